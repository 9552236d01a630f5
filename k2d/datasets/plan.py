"""What a freeze will write, found out before any audio is read: which chunks, what digest, the ledger of seconds."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2d.errors import Conflict
from k2d.policy import REASONS, STATUSES, Decision, Policy, decide, distance_column
from k2d.schema import Batch, Outcome, RecordingResult
from k2d.shards.facts import POLICY_COLUMNS
from k2d.shards.parquet import dumps
from k2d.store import Lake

_NAMES = ("recording", "recording_id", "label_key", "facts_key", "teacher_fingerprint", "validator_fingerprint")
DIGEST_DIGITS = 32
_COLUMNS = ("position", *_NAMES, "validator", "index", "duration_s", *POLICY_COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """A recording of which something is accepted. Arrays have one entry for each accepted chunk, shape (accepted,)."""

    recording_id: str
    source: str  # its name
    label_key: str
    facts_key: str
    indices: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float64]  # by the policy's metric


@dataclass(slots=True)
class Tally:
    """Running sums over different recordings, in milliseconds, so that the ledger adds up exactly."""

    input_ms: int = 0
    quarantined_ms: int = 0
    recordings: Counter[str] = field(default_factory=Counter)  # labeled, quarantined, pending, duplicates
    chunks: Counter[str] = field(default_factory=Counter)  # by Status
    status_ms: Counter[str] = field(default_factory=Counter)
    reason_ms: Counter[str] = field(default_factory=Counter)  # Reason and QuarantineReason
    teachers: dict[str, str] = field(default_factory=dict)  # fingerprint → a label key that tells more
    validators: set[tuple[str, str]] = field(default_factory=set)  # (name, fingerprint)

    @property
    def silence_ms(self) -> int:
        """What no chunk covers and no quarantine swallowed."""
        return self.input_ms - self.quarantined_ms - sum(self.status_ms.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of planning: enough for the manifest, but for what only writing tells."""

    digest: str
    selected: int  # recordings with accepted chunks
    tally: Tally


def make_plan(lake: Lake, batches: Sequence[Batch], policy: Policy, *, head: Any) -> Plan:
    """Walk the ledgers and the index once; `head` is what else determines the content (JSON values).

    Raises:
        Conflict: a batch is unfinished and not cancelled.
        StoreError
    """
    tally = Tally()
    _count_recordings(lake, batches, tally)
    sha256 = content_digest(head)
    selected = 0
    for chosen in selections(lake, batches, policy, tally=tally):
        sha256.update(content_line(chosen))
        selected += 1
    return Plan(sha256.hexdigest()[:DIGEST_DIGITS], selected, tally)


def selections(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, tally: Tally | None = None
) -> Iterator[Selected]:
    """Every recording with accepted chunks, each once (the first batch and position win), in a fixed order."""
    seen: set[str] = set()
    for batch in batches:
        for table in lake.index_parts(batch.id, _COLUMNS):
            if table.num_rows:
                yield from _of_part(table, policy, seen, tally)


def content_digest(head: Any) -> "hashlib._Hash":
    """The running digest of a dataset: what determines every row, then a line for each recording."""
    return hashlib.sha256(dumps(head))


def content_line(chosen: Selected) -> bytes:
    """What a recording adds to the digest. Facts and labels are named by their inputs, so their keys stand for them."""
    names = [chosen.recording_id, chosen.source, chosen.label_key, chosen.facts_key]
    return dumps([*names, chosen.indices.tolist()])


def _of_part(table: pa.Table, policy: Policy, seen: set[str], tally: Tally | None) -> Iterator[Selected]:
    positions = table["position"].to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(positions)) + 1])
    sizes = np.diff(np.append(starts, len(positions)))
    first = table.select([*_NAMES, "validator"]).take(pa.array(starts)).to_pylist()  # a row for each recording
    fresh = np.zeros(len(first), dtype=bool)
    for i, recording in enumerate(first):
        fresh[i] = recording["recording_id"] not in seen
        seen.add(recording["recording_id"])

    columns = {name: table[name].to_numpy() for name in POLICY_COLUMNS}
    decision = decide(policy, columns)
    accepted = decision.accepted
    distances = distance_column(policy.metric, columns, policy.repetition_max)
    indices = table["index"].to_numpy()
    if tally is not None:
        _count_chunks(tally, decision, table["duration_s"].to_numpy(), rows=np.repeat(fresh, sizes))
        for recording in (recording for i, recording in enumerate(first) if fresh[i]):
            tally.teachers.setdefault(recording["teacher_fingerprint"], recording["label_key"])
            tally.validators.add((recording["validator"], recording["validator_fingerprint"]))
    for i in np.flatnonzero(fresh).tolist():
        span = slice(starts[i], starts[i] + sizes[i])
        keep = accepted[span]
        if keep.any():
            yield Selected(
                recording_id=first[i]["recording_id"],
                source=first[i]["recording"],
                label_key=first[i]["label_key"],
                facts_key=first[i]["facts_key"],
                indices=indices[span][keep],
                distances=distances[span][keep],
            )


def _count_chunks(
    tally: Tally, decision: Decision, durations_s: npt.NDArray[np.float64], *, rows: npt.NDArray[np.bool_]
) -> None:
    ms = np.rint(durations_s[rows] * 1000)
    status, reason = decision.status[rows], decision.reason[rows]
    tally.chunks.update(_named(STATUSES, np.bincount(status, minlength=len(STATUSES))))
    tally.status_ms.update(_named(STATUSES, np.bincount(status, ms, minlength=len(STATUSES))))
    tally.reason_ms.update(_named(REASONS, np.bincount(reason, ms, minlength=len(REASONS))))


def _named(names: Sequence[str], sums: npt.NDArray[Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in zip(names, sums, strict=True) if value}


def _count_recordings(lake: Lake, batches: Sequence[Batch], tally: Tally) -> None:
    """Add up the ledgers. A recording that one batch labeled and another set aside counts as labeled."""
    seen: set[str] = set()  # recording ids, and source keys for what could not even be decoded
    aside: list[tuple[str, RecordingResult]] = []
    for batch in batches:
        done = 0
        for result in lake.results(batch.id):
            done += 1
            key = batch.sources[result.position].key
            if result.outcome is not Outcome.LABELED or result.recording_id is None:
                aside.append((key, result))
            elif result.recording_id in seen:
                tally.recordings["duplicates"] += 1
            else:
                seen |= {result.recording_id, f"source {key}"}
                tally.recordings["labeled"] += 1
                tally.input_ms += round(result.duration_s * 1000)
        pending = len(batch.sources) - done
        if pending and not lake.is_cancelled(batch.id):
            hint = "wait until it is done, or cancel it to freeze what there is"
            raise Conflict(f"batch {batch.name!r} still has {pending} recordings to do", hint=hint, batch=batch.id)
        tally.recordings["pending"] += pending
    for key, result in aside:
        if f"source {key}" in seen:
            tally.recordings["duplicates"] += 1
            continue
        seen.add(f"source {key}")
        ms = round(result.duration_s * 1000)
        tally.recordings["quarantined"] += 1
        tally.input_ms += ms
        tally.quarantined_ms += ms
        tally.reason_ms[str(result.reason)] += ms

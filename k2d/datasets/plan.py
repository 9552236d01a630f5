"""What a freeze will write, found out before any audio is read: which chunks, what digest, the ledger of seconds."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.corpus.index import Part
from k2d.datasets.revoked import Revoked
from k2d.errors import Conflict
from k2d.filtering.policy import REASONS, Columns, Decision, Policy, decide, distance_column
from k2d.filtering.policy.needed import policy_columns
from k2d.filtering.policy.salvage import milliseconds, salvaged
from k2d.schema import Batch, Metric, Outcome, RecordingResult, Status
from k2d.store import Lake
from k2d.store.parquet import dumps

_NAMES = ("recording", "recording_id", "label_key", "facts_key", "teacher_fingerprint", "validator_fingerprint")
DIGEST_DIGITS = 32
SALVAGED = "salvaged"  # beside the statuses: chunks kept in part, and the seconds of their segments that are
REVOKED = "revoked"  # beside the reasons: what someone asked to do without


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """A recording of which something is kept: whole chunks, and segments of others."""

    recording_id: str
    source: str  # its name
    label_key: str
    facts_key: str
    chunks: npt.NDArray[np.int32]  # indices of chunks kept whole, shape (chunks,), ascending
    distances: npt.NDArray[Any]  # of each, by the policy's metric
    segments: npt.NDArray[np.int32]  # (chunk, segment) of those kept of other chunks, shape (segments, 2), ascending
    risks: npt.NDArray[Any]  # of each, by the policy's metric


@dataclass(slots=True)
class Tally:
    """Running sums over different recordings, in milliseconds, so that the ledger adds up exactly."""

    input_ms: int = 0
    quarantined_ms: int = 0
    recordings: Counter[str] = field(default_factory=Counter)  # labeled, quarantined, pending, duplicates
    chunks: Counter[str] = field(default_factory=Counter)  # by Status, and "salvaged"
    status_ms: Counter[str] = field(default_factory=Counter)  # the same
    reason_ms: Counter[str] = field(default_factory=Counter)  # Reason, QuarantineReason, "revoked"; salvaged left out
    revoked: int = 0  # ids that were found
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
    selected: int  # recordings of which something is kept
    tally: Tally


def make_plan(lake: Lake, batches: Sequence[Batch], policy: Policy, *, without: Revoked, head: Any) -> Plan:
    """Walk the ledgers and the index once; `head` is what else determines the content (JSON values).

    Raises:
        Conflict: a batch is unfinished and not cancelled.
        StoreError
    """
    tally = Tally()
    _count_recordings(lake, batches, tally)
    sha256 = content_digest(head)
    selected = 0
    for chosen in selections(lake, batches, policy, without=without, tally=tally):
        sha256.update(content_line(chosen))
        selected += 1
    return Plan(sha256.hexdigest()[:DIGEST_DIGITS], selected, tally)


def selections(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, without: Revoked, tally: Tally | None = None
) -> Iterator[Selected]:
    """Every recording of which something is kept, each once (the first batch and position win), in a fixed order."""
    seen: set[str] = set()
    for batch in batches:
        for part in lake.parts(batch.id):
            if part.rows():
                yield from _of_part(part, policy, without, seen, tally)


def content_digest(head: Any) -> "hashlib._Hash":
    """The running digest of a dataset: what determines every row, then a line for each recording."""
    return hashlib.sha256(dumps(head))


def content_line(chosen: Selected) -> bytes:
    """What a recording adds to the digest. Facts and labels are named by their inputs, so their keys stand for them."""
    names = [chosen.recording_id, chosen.source, chosen.label_key, chosen.facts_key]
    return dumps([*names, chosen.chunks.tolist(), chosen.segments.tolist()])


@dataclass(slots=True, eq=False)
class _Kept:
    """What is kept of one part, before recordings are told apart."""

    whole: npt.NDArray[np.bool_]  # chunks, shape (chunks,)
    segments: npt.NDArray[np.bool_]  # of other chunks, shape (segments,)
    revoked: npt.NDArray[np.bool_]  # chunks of which something was revoked, shape (chunks,)


def _of_part(part: Part, policy: Policy, without: Revoked, seen: set[str], tally: Tally | None) -> Iterator[Selected]:
    chunks, segments = part.chunks(), part.segments()
    positions = chunks["position"]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(positions)) + 1])
    stops = np.append(starts[1:], len(positions))
    first = part.take(starts, [*_NAMES, "validator"]).to_pylist()  # a row for each recording
    fresh = np.zeros(len(first), dtype=np.bool_)
    for i, recording in enumerate(first):
        fresh[i] = recording["recording_id"] not in seen
        seen.add(recording["recording_id"])

    decision = decide(policy, {name: chunks[name] for name in policy_columns(policy)})
    kept = _keep(policy, decision, segments)
    for i in np.flatnonzero(fresh).tolist():
        if without.of(first[i]["facts_key"]):
            found = _revoke(kept, chunks, segments, slice(starts[i], stops[i]), without, first[i]["facts_key"])
            if tally is not None:
                tally.revoked += found
    if tally is not None:
        _count_chunks(tally, decision, kept, chunks, segments, rows=np.repeat(fresh, stops - starts))
        for recording in (recording for i, recording in enumerate(first) if fresh[i]):
            tally.teachers.setdefault(recording["teacher_fingerprint"], recording["label_key"])
            tally.validators.add((recording["validator"], recording["validator_fingerprint"]))

    whole, some = np.flatnonzero(kept.whole), np.flatnonzero(kept.segments)
    distances = _distances(policy, chunks, whole)
    risks = _risks(policy, chunks, segments, some)
    whole_at = np.searchsorted(whole, np.append(starts, len(positions)))
    some_at = np.searchsorted(segments["chunk"][some], np.append(starts, len(positions)))
    for i in np.flatnonzero(fresh).tolist():
        mine, few = slice(whole_at[i], whole_at[i + 1]), slice(some_at[i], some_at[i + 1])
        if mine.start == mine.stop and few.start == few.stop:
            continue
        of = chunks["index"][segments["chunk"][some[few]]]
        yield Selected(
            recording_id=first[i]["recording_id"],
            source=first[i]["recording"],
            label_key=first[i]["label_key"],
            facts_key=first[i]["facts_key"],
            chunks=chunks["index"][whole[mine]],
            distances=distances[mine],
            segments=np.stack([of, segments["number"][some[few]]], axis=1),
            risks=risks[few],
        )


def _keep(policy: Policy, decision: Decision, segments: Columns) -> _Kept:
    some = np.zeros(len(segments["chunk"]), np.bool_)
    some[salvaged(policy, segments, decision.accepted)] = True
    return _Kept(decision.accepted, some, np.zeros(len(decision.accepted), np.bool_))


def _revoke(kept: _Kept, chunks: Columns, segments: Columns, rows: slice, without: Revoked, facts_key: str) -> int:
    """Take what is revoked of one recording (its rows of the part) out of `kept`; returns how many ids were found.

    Of a chunk that was kept whole, the segments that nobody revoked stay.
    """
    found = 0
    every = np.arange(*np.searchsorted(segments["chunk"], [rows.start, rows.stop]))
    for row in np.arange(rows.start, rows.stop)[np.isin(chunks["index"][rows], [*without.chunks.get(facts_key, ())])]:
        kept.whole[row] = False
        kept.segments[every[segments["chunk"][every] == row]] = False
        kept.revoked[row] = True
        found += 1
    index_of = chunks["index"][segments["chunk"][every]]
    for chunk, number in without.segments.get(facts_key, ()):
        siblings = every[index_of == chunk]
        gone = siblings[segments["number"][siblings] == number]
        if not len(gone):
            continue
        found += 1
        row = segments["chunk"][gone[0]]
        if kept.whole[row]:
            kept.whole[row] = False
            kept.segments[siblings] = segments["ms"][siblings] > 0
        kept.segments[gone] = False
        kept.revoked[row] = True
    return found


def _distances(policy: Policy, columns: Columns, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    return distance_column(policy, {name: columns[name][rows] for name in policy_columns(policy)})


def _risks(policy: Policy, chunks: Columns, segments: Columns, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Of kept segments: their own by evidence; a distance is known of their chunks alone."""
    if policy.metric is Metric.EVIDENCE:
        return _distances(policy, segments, rows)
    return _distances(policy, chunks, segments["chunk"][rows])


def _count_chunks(
    tally: Tally,
    decision: Decision,
    kept: _Kept,
    chunks: Columns,
    segments: Columns,
    *,
    rows: npt.NDArray[np.bool_],
) -> None:
    """Add up the chunks in `rows`. What was excised of a chunk is rejected for the chunk's reason, or as revoked."""
    salvaged_ms = milliseconds(segments, np.flatnonzero(kept.segments), len(rows))
    left_ms = chunks["ms"] - salvaged_ms  # of a whole chunk, all of it
    whole, partly = rows & kept.whole, rows & (salvaged_ms > 0)
    for name, mask in ((Status.ACCEPTED, whole), (SALVAGED, partly), (Status.REJECTED, rows & ~whole & ~partly)):
        tally.chunks[str(name)] += int(np.count_nonzero(mask))
    tally.status_ms[Status.ACCEPTED] += int(left_ms[whole].sum())
    tally.status_ms[SALVAGED] += int(salvaged_ms[rows].sum())
    tally.status_ms[Status.REJECTED] += int(left_ms[rows & ~kept.whole].sum())
    named = rows & ~kept.revoked
    sums = np.bincount(decision.reason[named], left_ms[named], minlength=len(REASONS))
    tally.reason_ms.update(_named(REASONS, sums))
    if kept.revoked[rows].any():
        tally.reason_ms[REVOKED] += int(left_ms[rows & kept.revoked].sum())


def _named(names: Sequence[str], sums: npt.NDArray[Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in zip(names, sums, strict=True) if value}


def _count_recordings(lake: Lake, batches: Sequence[Batch], tally: Tally) -> None:
    """Add up the ledgers. A recording that one batch labeled and another set aside counts as labeled."""
    seen: set[str] = set()  # recording ids, and source keys for what could not even be decoded
    aside: list[tuple[str, RecordingResult]] = []
    for batch in batches:
        done = 0
        for result in lake.batches.results(batch.id):
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
        if pending and not lake.batches.is_cancelled(batch.id):
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

"""Plans a freeze before any audio is read: the kept chunks and segments, the digest, the slices, and the ledger."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from k2d.corpus.index import outdated, parts
from k2d.corpus.part import Part
from k2d.corpus.sweep import in_threads
from k2d.datasets.reviewed import ReviewedTexts
from k2d.datasets.revoked import RevokedIds
from k2d.datasets.rows import facts_gone, labels_gone
from k2d.datasets.selection import LedgerSums, Selection, content_line, selections_of
from k2d.errors import Conflict, DamagedFile
from k2d.filtering.policy import Policy
from k2d.schema import Batch, Outcome, RecordingResult, Versions
from k2d.store import Lake
from k2d.store.parquet import dumps
from k2d.wording import counted

DIGEST_DIGITS: Final = 32  # of the sha256


class PartPlan(BaseModel):
    """What is to be written of one part: the recordings it shares with none before, cut into slices."""

    model_config = ConfigDict(frozen=True)

    batch: str
    number: int  # of the part in its batch
    stem: str  # of the index that this was planned from: where another one is there, the batch changed
    skip: list[int]  # positions of recordings that are in an earlier part
    slices: list[tuple[int, int]]  # of its selections, in order; each is written by itself
    selected: list[int]  # how many recordings each slice has


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of planning: everything the manifest needs, except the shards."""

    digest: str
    selected: int  # number of recordings of which something is kept
    sums: LedgerSums
    parts: tuple[PartPlan, ...]


def make_plan(
    lake: Lake,
    batches: Sequence[Batch],
    policy: Policy,
    *,
    without: RevokedIds,
    head: Any,
    slice_ms: int = 0,
    reviewed: ReviewedTexts | None = None,
) -> Plan:
    """Sum up what will be written of all batches, part by part, in threads. No audio is read.

    Args:
        head: everything else that determines the content, as JSON values; part of the digest.
        slice_ms: about how much speech a slice has; 0: one slice a part.
        reviewed: reviews that decide about segments, whatever the policy says.

    Raises:
        Conflict: a batch is unfinished and not cancelled, or has facts of an earlier version.
        StoreError
    """
    sums = LedgerSums()
    listed = list(_count_recordings(lake, batches, sums))

    def plan(of: tuple[Batch, Part, list[int]]) -> _PlannedPart:
        batch, part, skip = of
        own = LedgerSums()
        chosen = list(selections_of(part, skip, policy, without, own, reviewed))
        part.release()  # all parts of a large corpus would not fit
        sha256 = hashlib.sha256(b"".join(map(content_line, chosen)))
        slices = _slices([selection.ms for selection in chosen], slice_ms)
        planned = PartPlan(
            batch=batch.id,
            number=part.number,
            stem=part.stem,
            skip=skip,
            slices=slices,
            selected=[end - start for start, end in slices],
        )
        return _PlannedPart(planned, own, sha256.hexdigest())

    planned = in_threads(plan, listed)
    sha256 = hashlib.sha256(dumps([head, [part.digest for part in planned]]))
    for part in planned:
        sums.add(part.sums)
    return Plan(
        sha256.hexdigest()[:DIGEST_DIGITS],
        sum(sum(part.plan.selected) for part in planned),
        sums,
        tuple(part.plan for part in planned if part.plan.slices),
    )


def digest_of_version_2(lake: Lake, batches: Sequence[Batch], policy: Policy, *, without: RevokedIds, head: Any) -> str:
    """The digest that version 0.2 gave the same content, to recognise its datasets."""
    sha256 = hashlib.sha256(dumps(head))
    for _, part, skip in _count_recordings(lake, batches, LedgerSums()):
        for selection in selections_of(part, skip, policy, without):
            sha256.update(content_line(selection))
    return sha256.hexdigest()[:DIGEST_DIGITS]


def selections(lake: Lake, batches: Sequence[Batch], policy: Policy, *, without: RevokedIds) -> Iterator[Selection]:
    """Iterate over the recordings of which something is kept, in a fixed order; each from its first batch and position.

    Raises:
        Conflict, StoreError: as `make_plan`.
    """
    for _, part, skip in _count_recordings(lake, batches, LedgerSums()):
        yield from selections_of(part, skip, policy, without)


@dataclass(frozen=True, slots=True)
class _PlannedPart:
    """The plan of a part, with its share of the ledger."""

    plan: PartPlan
    sums: LedgerSums
    digest: str  # of what is kept


def _slices(ms: Sequence[int], slice_ms: int) -> list[tuple[int, int]]:
    """Cut recordings, of which this much is kept, into runs of about `slice_ms`."""
    slices: list[tuple[int, int]] = []
    start, filled = 0, 0
    for place, length in enumerate(ms):
        filled += length
        if slice_ms and filled >= slice_ms:
            slices.append((start, place + 1))
            start, filled = place + 1, 0
    return [*slices, (start, len(ms))] if start < len(ms) else slices


def _count_recordings(
    lake: Lake, batches: Sequence[Batch], sums: LedgerSums
) -> Iterator[tuple[Batch, Part, list[int]]]:
    """Add the recordings to the ledger, and iterate over the parts, each with the positions of recordings that were in
    an earlier one. A recording that was labeled in one batch and quarantined in another is labeled.

    Raises:
        Conflict: a batch is unfinished and not cancelled, or has facts of an earlier version.
        DamagedFile: results or facts of a cancelled batch cannot be read.
    """
    seen: set[str] = set()  # recording ids, and keys of sources, since some could not be decoded
    quarantined: list[tuple[str, RecordingResult]] = []
    for batch in batches:
        _refuse_outdated(lake, batch)
        done, damaged = 0, list[DamagedFile]()
        for part in parts(lake, batch.id):
            skip: list[int] = []
            results = part.results
            done += len(results)
            damaged += part.damaged
            for result, versions in lake.files.many(partial(_with_versions, lake), results):
                key = batch.sources[result.position].key
                if result.outcome is not Outcome.LABELED or result.recording_id is None:
                    quarantined.append((key, result))
                elif result.recording_id in seen:
                    sums.recordings["duplicates"] += 1
                    skip.append(result.position)
                else:
                    seen |= {result.recording_id, f"source {key}"}
                    _count_labeled(result, versions, sums)
            yield batch, part, skip
        _count_pending(lake, batch, sums, done=done)
        if damaged:  # of a cancelled batch
            raise damaged[0]
    for key, result in quarantined:
        if f"source {key}" in seen:
            sums.recordings["duplicates"] += 1
            continue
        seen.add(f"source {key}")
        ms = round(result.duration_s * 1000)
        sums.recordings["quarantined"] += 1
        sums.input_ms += ms
        sums.quarantined_ms += ms
        sums.reason_ms[str(result.reason)] += ms


def _refuse_outdated(lake: Lake, batch: Batch) -> None:
    if missing := len(outdated(lake, batch)):
        raise Conflict(
            f"batch {batch.name!r} has {counted(missing, 'recording')} with facts of an earlier version of k2d",
            hint="run `k2d resume`: facts are computed again from the stored labels and hypotheses",
            batch=batch.id,
        )


def _count_labeled(result: RecordingResult, versions: Versions, sums: LedgerSums) -> None:
    sums.recordings["labeled"] += 1
    sums.versions[versions] += 1
    sums.input_ms += round(result.duration_s * 1000)
    if result.quarantined_s:  # kept in part
        sums.quarantined_ms += round(result.quarantined_s * 1000)
        sums.reason_ms[str(result.reason)] += round(result.quarantined_s * 1000)


def _count_pending(lake: Lake, batch: Batch, sums: LedgerSums, *, done: int) -> None:
    pending = len(batch.sources) - done
    if pending and not lake.batches.is_cancelled(batch.id):
        hint = (
            "`k2d resume` does what is missing, unless a service is at it (`k2d status` says so): then wait; "
            "`k2d cancel` gives the rest up, so that what is done can be frozen"
        )
        raise Conflict(
            f"batch {batch.name!r} still has {counted(pending, 'unfinished recording')}", hint=hint, batch=batch.id
        )
    sums.recordings["pending"] += pending


def _with_versions(lake: Lake, result: RecordingResult) -> tuple[RecordingResult, Versions]:
    """A result, and the versions of what labeled it: its shards' where an earlier version wrote it."""
    if result.outcome is not Outcome.LABELED:
        return result, Versions()
    return result, result.versions or lake.provenance(str(result.label_key), str(result.facts_key))[0]


def refuse_gone(lake: Lake, batches: Sequence[Batch]) -> None:
    """Raise an error if labels or facts of a recording are gone: a shard that is gone tells no version.

    Raises:
        StoreError: the first recording of which they are.
    """
    for batch in batches:
        for result in (result for part in parts(lake, batch.id) for result in part.results):
            if result.label_key and not lake.labels.has(result.label_key):
                raise labels_gone(result.name, result.label_key)
            if result.facts_key and not lake.facts.has(result.facts_key):
                raise facts_gone(result.name, result.facts_key)

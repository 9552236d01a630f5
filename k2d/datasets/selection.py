"""What a policy keeps of one part: whole chunks, salvaged segments, and the ledger of seconds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.distinct import DistinctPart, distinct_part
from k2d.corpus.part import Part
from k2d.datasets.reviewed import Place, ReviewedTexts
from k2d.datasets.revoked import RevokedIds
from k2d.filtering.policy import REASONS, Policy, RowSubset, decide, metric_column, policy_columns, thresholds
from k2d.schema import Metric, Status, Versions
from k2d.store.parquet import dumps

SALVAGED: Final = "salvaged"  # counted like a Status: chunks kept in part, and the seconds of their kept segments
REVOKED: Final = "revoked"  # counted like a Reason: excluded by an id in `without`
REVIEWED: Final = "reviewed"  # counted like a Reason: excluded by a review

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What is kept of one recording: whole chunks, and segments of other chunks."""

    recording_id: str
    source: str  # name of the source
    label_key: str
    facts_key: str
    chunks: npt.NDArray[np.int32]  # (chunks,): indices of the chunks kept whole, ascending
    distances: npt.NDArray[Any]  # (chunks,): the policy's metric
    segments: npt.NDArray[np.int32]  # (segments, 2): (chunk index, segment number) of the salvaged ones, ascending
    risks: npt.NDArray[Any]  # (segments,): the policy's metric
    ms: int  # of all that is kept


@dataclass(slots=True)
class LedgerSums:
    """Sums over distinct recordings, in whole milliseconds, so that the ledger adds up exactly."""

    input_ms: int = 0
    quarantined_ms: int = 0
    recordings: Counter[str] = field(default_factory=Counter)  # labeled, quarantined, pending, duplicates
    chunks: Counter[str] = field(default_factory=Counter)  # by Status and "salvaged"
    status_ms: Counter[str] = field(default_factory=Counter)  # by Status and "salvaged"
    reason_ms: Counter[str] = field(default_factory=Counter)  # by Reason, QuarantineReason and "revoked"
    revoked: int = 0  # revoked ids that exist in the batches
    # fingerprint → key of a label shard that describes it, and the recording's name
    teachers: dict[str, tuple[str, str]] = field(default_factory=dict)
    validators: set[tuple[str, str]] = field(default_factory=set)  # (name, fingerprint)
    versions: Counter[Versions] = field(default_factory=Counter)  # labeled recordings

    def add(self, other: "LedgerSums") -> None:
        """Add the sums over other recordings."""
        self.input_ms += other.input_ms
        self.quarantined_ms += other.quarantined_ms
        self.revoked += other.revoked
        for name in ("recordings", "chunks", "status_ms", "reason_ms", "versions"):
            getattr(self, name).update(getattr(other, name))
        for fingerprint, label in other.teachers.items():
            self.teachers.setdefault(fingerprint, label)
        self.validators |= other.validators

    @property
    def silence_ms(self) -> int:
        """Milliseconds that are in no chunk and not quarantined."""
        return self.input_ms - self.quarantined_ms - sum(self.status_ms.values())


def selections_of(
    part: Part,
    skip: Sequence[int],
    policy: Policy,
    without: RevokedIds,
    sums: LedgerSums | None = None,
    reviewed: ReviewedTexts | None = None,
) -> Iterator[Selection]:
    """Iterate over the recordings of a part of which something is kept, without those at the positions `skip`.

    `sums`: the ledger to update, if given. `reviewed`: segments with a reviewed text are kept whatever the policy says,
    other reviewed segments are not.
    """
    fresh = ~np.isin(part.recordings.positions, np.array(skip, np.int64))
    distinct = distinct_part(part, fresh)
    if len(distinct.chunks["ms"]):
        yield from _of_part(distinct, policy, without, sums, reviewed.by_place if reviewed is not None else {})


def content_line(selection: Selection) -> bytes:
    """What a recording adds to the digest. Facts and labels are represented by their keys, which hash their inputs."""
    names = [selection.recording_id, selection.source, selection.label_key, selection.facts_key]
    return dumps([*names, selection.chunks.tolist(), selection.segments.tolist()])


@dataclass(slots=True, eq=False)
class _KeptMasks:
    """Masks of what is kept of one part; modified by `_review` and `_revoke`."""

    whole: Flags  # (chunks,): chunks kept whole
    segments: Flags  # (segments,): segments kept of other chunks
    revoked: Flags  # (chunks,): chunks of which something was revoked
    reviewed: Flags  # (chunks,): chunks of which something was left out since a review says so


def _of_part(
    part: DistinctPart,
    policy: Policy,
    without: RevokedIds,
    sums: LedgerSums | None,
    reviewed: Mapping[str, Mapping[Place, str | None]],
) -> Iterator[Selection]:
    chunks, segments = part.chunks, part.segments
    names = {name: _fresh(part, name) for name in ("recording_id", "recording", "label_key", "facts_key")}
    sizes = part.part.recordings.sizes[part.fresh]
    bounds = np.concatenate([[0], np.cumsum(sizes)])  # rows of each recording's chunks
    kept = _keep(part, policy)
    for place, label_key in enumerate(names["label_key"]):
        if places := reviewed.get(label_key):
            _review(part, kept, slice(bounds[place], bounds[place + 1]), places)
    for place, facts_key in enumerate(names["facts_key"]):
        if without.of(facts_key):
            revoked = _revoke(part, kept, slice(bounds[place], bounds[place + 1]), without, facts_key)
            if sums is not None:
                sums.revoked += revoked
    if sums is not None:
        _count_chunks(sums, part, policy, kept)
        labels = zip(names["label_key"], names["recording"], strict=True)
        for fingerprint, label in zip(_fresh(part, "teacher_fingerprint"), labels, strict=True):
            sums.teachers.setdefault(fingerprint, label)
        sums.validators.update(zip(_fresh(part, "validators"), _fresh(part, "validator_fingerprint"), strict=True))

    whole, salvaged = np.flatnonzero(kept.whole), np.flatnonzero(kept.segments)
    distances = metric_column(policy, RowSubset(chunks, whole))
    risks = _segment_risks(part, policy, salvaged)
    whole_ms = np.concatenate([[0], np.cumsum(chunks["ms"][whole], dtype=np.int64)])
    salvaged_ms = np.concatenate([[0], np.cumsum(segments["ms"][salvaged], dtype=np.int64)])
    whole_at = np.searchsorted(whole, bounds)
    salvaged_at = np.searchsorted(segments["chunk"][salvaged], bounds)
    for place in range(len(sizes)):
        chunk_rows = slice(whole_at[place], whole_at[place + 1])
        segment_rows = slice(salvaged_at[place], salvaged_at[place + 1])
        if chunk_rows.start == chunk_rows.stop and segment_rows.start == segment_rows.stop:
            continue
        rows = salvaged[segment_rows]
        yield Selection(
            recording_id=names["recording_id"][place],
            source=names["recording"][place],
            label_key=names["label_key"][place],
            facts_key=names["facts_key"][place],
            chunks=chunks["index"][whole[chunk_rows]],
            distances=distances[chunk_rows],
            segments=np.stack([chunks["index"][segments["chunk"][rows]], segments["number"][rows]], axis=1),
            risks=risks[segment_rows],
            ms=int(
                whole_ms[chunk_rows.stop]
                - whole_ms[chunk_rows.start]
                + salvaged_ms[segment_rows.stop]
                - salvaged_ms[segment_rows.start]
            ),
        )


def _fresh(part: DistinctPart, name: str) -> list[str]:
    """One of RECORDING_COLUMNS, for the part's fresh recordings only."""
    values = part.part.recordings.column(name)
    return [value for value, fresh in zip(values, part.fresh.tolist(), strict=True) if fresh]


def _keep(part: DistinctPart, policy: Policy) -> _KeptMasks:
    least = thresholds(policy, part, alpha=policy.alpha)
    segments = np.zeros(len(least.segments), np.bool_)
    segments[least.salvaged(policy.alpha)] = True
    none = np.zeros(len(least.chunks), np.bool_)
    return _KeptMasks(least.whole(policy.alpha), segments, none, none.copy())


def _review(part: DistinctPart, kept: _KeptMasks, rows: slice, places: Mapping[Place, str | None]) -> None:
    """Keep the segments of one recording that have a reviewed text, and leave out its other reviewed ones."""
    chunks, segments = part.chunks, part.segments
    segment_rows = np.arange(*np.searchsorted(segments["chunk"], [rows.start, rows.stop]))
    index_of = chunks["index"][segments["chunk"][segment_rows]]
    for (chunk, number), text in places.items():
        siblings = segment_rows[index_of == chunk]
        own = siblings[segments["number"][siblings] == number]
        if not len(own):
            continue
        row = segments["chunk"][own[0]]
        if text is not None:
            kept.segments[own] = ~kept.whole[row] & (segments["ms"][own] > 0)
        elif kept.whole[row] or kept.segments[own].any():
            _leave_out(part, kept, own, siblings)
            kept.reviewed[row] = True


def _leave_out(part: DistinctPart, kept: _KeptMasks, own: Ints, siblings: Ints) -> None:
    """Remove a segment from `kept`; of a whole chunk, the other segments (`siblings` has all) stay."""
    segments = part.segments
    row = segments["chunk"][own[0]]
    if kept.whole[row]:
        kept.whole[row] = False
        kept.segments[siblings] = segments["ms"][siblings] > 0
    kept.segments[own] = False


def _revoke(part: DistinctPart, kept: _KeptMasks, rows: slice, without: RevokedIds, facts_key: str) -> int:
    """Remove what is revoked of one recording from `kept`; return the number of revoked ids that exist.

    If a segment of a whole chunk is revoked, the chunk's other segments are kept. `rows`: the recording's chunks in the
    part.
    """
    chunks, segments = part.chunks, part.segments
    ids = 0
    segment_rows = np.arange(*np.searchsorted(segments["chunk"], [rows.start, rows.stop]))
    for row in np.arange(rows.start, rows.stop)[np.isin(chunks["index"][rows], [*without.chunks.get(facts_key, ())])]:
        kept.whole[row] = False
        kept.segments[segment_rows[segments["chunk"][segment_rows] == row]] = False
        kept.revoked[row] = True
        ids += 1
    index_of = chunks["index"][segments["chunk"][segment_rows]]
    for chunk, number in without.segments.get(facts_key, ()):
        siblings = segment_rows[index_of == chunk]
        revoked = siblings[segments["number"][siblings] == number]
        if not len(revoked):
            continue
        ids += 1
        _leave_out(part, kept, revoked, siblings)
        kept.revoked[segments["chunk"][revoked[0]]] = True
    return ids


def _segment_risks(part: DistinctPart, policy: Policy, rows: Ints) -> npt.NDArray[Any]:
    """The policy's metric of salvaged segments: their own risk, or under a distance that of their chunks."""
    if policy.metric is Metric.EVIDENCE:
        return metric_column(policy, RowSubset(part.segments, rows))
    return metric_column(policy, RowSubset(part.chunks, part.segments["chunk"][rows]))


def _count_chunks(sums: LedgerSums, part: DistinctPart, policy: Policy, kept: _KeptMasks) -> None:
    """Add the chunks to the ledger. The excised rest of a chunk is rejected for the chunk's reason, or as revoked."""
    chunks, segments = part.chunks, part.segments
    decision = decide(policy, {name: chunks[name] for name in policy_columns(policy)})
    rows = np.flatnonzero(kept.segments)
    salvaged = np.bincount(segments["chunk"][rows], segments["ms"][rows], minlength=len(kept.whole)).astype(np.int64)
    left_ms = chunks["ms"] - salvaged  # what is not salvaged; of a whole chunk, all of it
    whole, partly = kept.whole, salvaged > 0
    for name, mask in ((Status.ACCEPTED, whole), (SALVAGED, partly), (Status.REJECTED, ~whole & ~partly)):
        sums.chunks[str(name)] += int(np.count_nonzero(mask))
    sums.status_ms[Status.ACCEPTED] += int(left_ms[whole].sum())
    sums.status_ms[SALVAGED] += int(salvaged.sum())
    sums.status_ms[Status.REJECTED] += int(left_ms[~whole].sum())
    by_review = kept.reviewed & ~kept.revoked
    named = ~kept.revoked & ~by_review
    by_reason = np.bincount(decision.reason[named], left_ms[named], minlength=len(REASONS))
    sums.reason_ms.update({str(name): int(ms) for name, ms in zip(REASONS, by_reason, strict=True) if ms})
    for name, mask in ((REVOKED, kept.revoked), (REVIEWED, by_review)):
        if mask.any():
            sums.reason_ms[name] += int(left_ms[mask].sum())

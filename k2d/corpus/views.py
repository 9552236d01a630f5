"""Batches and previews of policies, as documents of the API; used by the API and by the embedded client.

status(lake, lake.batches.get("lectures")).ledger.seconds.accepted
preview(lake, [batch], DEFAULT.varied(alpha=0.2)).hours_accepted
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from k2d.corpus.index import Part, parts
from k2d.corpus.sweep import Curve, SweepSums, sweep
from k2d.documents import (
    BatchItem,
    BatchStatus,
    BatchSummary,
    ChunkCounts,
    ChunkSeconds,
    CurvePoint,
    Jobs,
    Ledger,
    LedgerSeconds,
    Preview,
    QuarantinedRecording,
    ReasonCounts,
    RecordingCounts,
    RecordingNotes,
    VersionCount,
)
from k2d.errors import described
from k2d.filtering.policy import DEFAULT, REASONS, STATUSES, Policy
from k2d.schema import Batch, BatchState, Metric, Outcome, QuarantineReason, RecordingResult, Status, Versions
from k2d.store import Lake
from k2d.store.batches import DamagedBatch, DamagedResult
from k2d.text.terms import terms_of

FAILURES_SHOWN: Final = 100  # quarantined recordings in a status; chosen
ALPHAS: Final = tuple(round(0.05 * step, 2) for step in range(21))  # of a preview's curve: 0.00 … 1.00
# Chunks up to which a preview counts salvaged segments exactly. Chosen: keeps a preview of ten million chunks near one
# second (docs/LOG.md).
EXACT_SALVAGE: Final = 250_000
_ACCEPTED: Final = STATUSES.index(Status.ACCEPTED)


# ---- batches ------------------------------------------------------------------------------------------------------


def summary(batch: Batch) -> BatchSummary:
    """The part of a batch's document that never changes."""
    return BatchSummary(
        id=batch.id,
        name=batch.name,
        created_at=batch.created_at,
        recordings=len(batch.sources),
        teacher=batch.teacher,
        validator=batch.validator,
        language=batch.options.decode.language,
        terms=list(terms_of(batch.options.decode.initial_prompt or "")),
    )


def listed(lake: Lake, batch: Batch, *, jobs: Jobs | None = None) -> BatchItem:
    """A batch as an entry of a list; needs one listing of its results."""
    pending = len(batch.sources) - len(lake.batches.result_positions(batch.id))
    return BatchItem(**dict(summary(batch)), state=state(lake, batch, pending=pending, jobs=jobs), pending=pending)


def listed_damaged(batch: DamagedBatch) -> BatchItem:
    """A batch whose record cannot be read, as an entry of a list."""
    return BatchItem(
        id=batch.id,
        name=batch.id,
        created_at=batch.created_at,
        recordings=0,
        teacher="",
        validator="",
        language="",
        state=BatchState.DAMAGED,
        pending=0,
        error=described(batch.error),
    )


def ledger(lake: Lake, batch: Batch, policy: Policy = DEFAULT) -> Ledger:
    """Account for every second of a batch: in = accepted + salvaged + rejected + quarantined + silence.

    Exact in milliseconds over the recordings that have a result; the others are `pending`. Salvaged are the kept
    segments of chunks that are not kept whole; the rest of those chunks, pauses included, is rejected.
    """
    return _ledger(batch, policy, *_current(lake, batch))


def status(lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, jobs: Jobs | None = None) -> BatchStatus:
    """A batch's state, ledger and quarantined recordings. `jobs`: the jobs in the queue, None without a queue."""
    batch_parts, results = _current(lake, batch)
    batch_ledger = _ledger(batch, policy, batch_parts, results)
    quarantined = [result for result in results if result.outcome is Outcome.QUARANTINED]
    noted = [(result.name, result.notes) for result in results if result.notes]
    return BatchStatus(
        **dict(summary(batch)),
        state=state(lake, batch, pending=batch_ledger.recordings.pending, jobs=jobs),
        ledger=batch_ledger,
        jobs=jobs,
        quarantined=[_quarantined(result) for result in quarantined[:FAILURES_SHOWN]],
        quarantined_total=len(quarantined),
        damaged=[described(error) for part in batch_parts for error in part.damaged][:FAILURES_SHOWN],
        partial=sum(result.quarantined_s > 0 for result in results),
        versions=_versions(results),
        notes=[RecordingNotes(recording=name, notes=list(notes)) for name, notes in noted[:FAILURES_SHOWN]],
    )


def _versions(results: Sequence[RecordingResult]) -> list[VersionCount]:
    """Labeled recordings by the versions that made their labels and facts."""
    labeled = (result.versions or Versions() for result in results if result.outcome is Outcome.LABELED)
    return [VersionCount(**asdict(versions), recordings=count) for versions, count in sorted(Counter(labeled).items())]


def state(lake: Lake, batch: Batch, *, pending: int, jobs: Jobs | None) -> BatchState:
    """Derive the state of a batch from its results, its cancel mark and its jobs."""
    if pending == 0:
        return BatchState.DONE
    if lake.batches.is_cancelled(batch.id):
        return BatchState.CANCELLED
    if jobs and jobs.jobs_running and not jobs.waiting_for:
        return BatchState.RUNNING
    if jobs and (jobs.jobs_queued or jobs.jobs_running):
        return BatchState.QUEUED
    return BatchState.STALLED


def _current(lake: Lake, batch: Batch) -> tuple[list[Part], list[RecordingResult]]:
    """The parts of a batch, and its results without those whose facts are gone or of an earlier version.

    The results of a complete part all count, since its stored files have everything that the facts have; of an
    incomplete one, those that its rows account for, though more may have come in since.
    """
    batch_parts = list(parts(lake, batch.id))
    results: list[RecordingResult] = []
    for number, part in enumerate(batch_parts):
        if part.results is not None:
            results += part.results
            continue
        readings = list(lake.batches.readings(batch.id, part=number))
        if any(isinstance(reading, DamagedResult) for reading in readings):
            part.make()  # the stored rows are also of recordings whose result cannot be read
        else:
            part.load()  # where the stored files are damaged, facts are read, which may be damaged too
        whole = [reading for reading in readings if isinstance(reading, RecordingResult)]
        results += whole if part.results is None else part.results
    return batch_parts, results


def _ledger(batch: Batch, policy: Policy, batch_parts: Sequence[Part], results: Sequence[RecordingResult]) -> Ledger:
    sums = sweep(batch_parts, policy)
    in_ms = sum(_ms_of(result.duration_s) for result in results)
    quarantined = [result for result in results if result.outcome is Outcome.QUARANTINED]
    quarantined_ms = sum(_ms_of(result.duration_s) for result in quarantined)
    quarantined_ms += sum(_ms_of(result.quarantined_s) for result in results)  # ends of labeled ones
    labeled = [result.recording_id for result in results if result.outcome is Outcome.LABELED]
    kept = _seconds(sums)
    return Ledger(
        batch=batch.id,
        name=batch.name,
        policy=policy.name,
        seconds=LedgerSeconds(
            input=in_ms / 1000,
            accepted=kept.accepted,
            salvaged=kept.salvaged,
            rejected=kept.rejected,
            quarantined=quarantined_ms / 1000,
            silence=(in_ms - int(sums.ms.sum()) - quarantined_ms) / 1000,
        ),
        chunks=_chunks(sums),
        recordings=RecordingCounts(
            total=len(batch.sources),
            labeled=len(results) - len(quarantined),
            quarantined=len(quarantined),
            duplicates=len(labeled) - len(set(labeled)),
            pending=len(batch.sources) - len(results),
            unknown_length=sum(_is_unknown_length(result) for result in quarantined),
        ),
        wall_s=round(sum(result.wall_s for result in results), 3),
    )


def _is_unknown_length(result: RecordingResult) -> bool:
    return not result.duration_s and result.reason != QuarantineReason.TOO_SHORT


def _quarantined(result: RecordingResult) -> QuarantinedRecording:
    return QuarantinedRecording(
        recording=result.name, reason=result.reason, detail=result.detail, duration_s=result.duration_s
    )


# ---- policies -----------------------------------------------------------------------------------------------------


def preview(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, metrics: Sequence[Metric] | None = None
) -> Preview:
    """Compute what a policy would keep of these batches, by reason, and curves over α. No model runs.

    Args:
        metrics: the metrics to compute a curve for; None: the policy's own.

    Chunks are counted exactly. With more than EXACT_SALVAGE chunks, salvaged seconds are estimated from a sample;
    `salvage_sample` is then the share of the chunks in the sample.

    Raises:
        DamagedFile: results or facts of a recording cannot be read.
        StoreError
    """
    curve_metrics = (policy.metric,) if metrics is None else tuple(metrics)
    all_parts = [part for batch in batches for part in parts(lake, batch.id)]
    for part in all_parts:
        part.load()
        part.require_whole()
    sums = sweep(all_parts, policy, alphas=ALPHAS, metrics=curve_metrics, exact_up_to=EXACT_SALVAGE)
    seconds = _seconds(sums)
    return Preview(
        policy=policy,
        batches=[batch.id for batch in batches],
        chunks=_chunks(sums),
        seconds=seconds,
        hours_accepted=round(seconds.accepted / 3600, 4),
        hours_salvaged=round(seconds.salvaged / 3600, 4),
        salvage_sample=round(sums.sample, 4),
        reasons={
            reason: ReasonCounts(chunks=int(sums.chunks[:, code].sum()), seconds=int(sums.ms[:, code].sum()) / 1000)
            for code, reason in enumerate(REASONS)
            if sums.chunks[:, code].any()
        },
        curve={metric: _points(curve) for metric, curve in sums.curves.items()},
    )


# ---- helpers ------------------------------------------------------------------------------------------------------


def _chunks(sums: SweepSums) -> ChunkCounts:
    accepted = int(sums.chunks[_ACCEPTED].sum())
    rejected = int(sums.chunks.sum()) - accepted - sums.salvaged_chunks
    return ChunkCounts(accepted=accepted, salvaged=sums.salvaged_chunks, rejected=rejected)


def _seconds(sums: SweepSums) -> ChunkSeconds:
    accepted_ms = int(sums.ms[_ACCEPTED].sum())
    rejected_ms = int(sums.ms.sum()) - accepted_ms - sums.salvaged_ms
    return ChunkSeconds(accepted=accepted_ms / 1000, salvaged=sums.salvaged_ms / 1000, rejected=rejected_ms / 1000)


def _points(curve: Curve) -> list[CurvePoint]:
    return [
        CurvePoint(alpha=alpha, chunks=int(chunks), seconds=int(ms) / 1000, salvaged=int(salvaged) / 1000)
        for alpha, chunks, ms, salvaged in zip(ALPHAS, curve.chunks, curve.ms, curve.salvaged_ms, strict=True)
    ]


def _ms_of(seconds: float) -> int:
    return round(seconds * 1000)

"""Batches and previews of policies, as documents of the API; used by the API and by the embedded client.

status(lake, lake.batches.get("lectures")).ledger.seconds.accepted
preview(lake, [batch], DEFAULT.varied(alpha=0.2)).hours_accepted
"""

from collections.abc import Sequence
from typing import Final

from k2d.corpus.batch_index import BatchIndex
from k2d.corpus.index import parts, results
from k2d.corpus.ledgers import SHOWN, PartLedger
from k2d.corpus.sweep import Curve, SweepSums, sweep
from k2d.corpus.time_left import pending_audio_s, time_left_s
from k2d.documents import (
    BatchItem,
    BatchStatus,
    BatchSummary,
    ChunkCounts,
    ChunkSeconds,
    CurvePoint,
    Jobs,
    LabelingOptions,
    Ledger,
    LedgerSeconds,
    NoLabelSeconds,
    Preview,
    ProcessAtWork,
    ReasonCounts,
    RecordingCounts,
)
from k2d.errors import described
from k2d.filtering.policy import DEFAULT, REASONS, STATUSES, Policy
from k2d.schema import Batch, BatchState, Metric, Status
from k2d.store import Lake
from k2d.store.batches import DamagedBatch
from k2d.store.heartbeats import Heartbeat
from k2d.text.terms import terms_of

ALPHAS: Final = tuple(round(0.05 * step, 2) for step in range(21))  # of a preview's curve: 0.00 … 1.00
# Chunks up to which a preview counts salvaged segments exactly. Chosen: keeps a preview of ten million chunks near one
# second (docs/LOG.md).
EXACT_SALVAGE: Final = 250_000
_ACCEPTED: Final = STATUSES.index(Status.ACCEPTED)


# ---- batches ------------------------------------------------------------------------------------------------------


def summary(lake: Lake, batch: Batch) -> BatchSummary:
    """The part of a batch's document that does not change while it is labeled."""
    return BatchSummary(
        id=batch.id,
        name=lake.batches.shown_name(batch),
        created_at=batch.created_at,
        recordings=len(batch.sources),
        teacher=batch.teacher,
        validator=batch.validator,
        language=batch.options.decode.language,
        terms=list(terms_of(batch.options.decode.initial_prompt or "")),
        options=LabelingOptions(
            beam_size=batch.options.decode.beam_size,
            rescore=batch.options.rescore,
            vad=batch.options.vad,
            condition_on_previous_text=batch.options.condition_on_previous_text,
            channels=batch.audio.channels,
            keep_partial=batch.audio.keep_partial,
        ),
    )


def listed(lake: Lake, batch: Batch, *, jobs: Jobs | None = None) -> BatchItem:
    """A batch as an entry of a list: one listing of its index and one ledger, of the batch or of each part stored.

    Hours are those of the recordings that are in the stored index.
    """
    index = BatchIndex(lake, batch)
    pending = len(batch.sources) - index.finished
    return BatchItem(
        **dict(summary(lake, batch)),
        state=state(lake, batch, pending=pending, jobs=jobs),
        pending=pending,
        hours=round(index.stored_ms / 3_600_000, 6),
    )


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


def input_seconds(lake: Lake, batch: Batch) -> float:
    """Seconds of audio of the finished recordings of a batch. Reads their results; no facts, no policy."""
    return sum(round(result.duration_s * 1000) for result in results(lake, batch)) / 1000


def ledger(lake: Lake, batch: Batch, policy: Policy = DEFAULT) -> Ledger:
    """Account for every second of a batch: in = accepted + salvaged + rejected + quarantined + no label.

    Exact in milliseconds over the recordings that have a result; the others are `pending`. Salvaged are the kept
    segments of chunks that are not kept whole; the rest of those chunks, pauses included, is rejected.
    """
    return _ledger(batch, lake.batches.shown_name(batch), policy, BatchIndex(lake, batch).ledger(policy))


def status(
    lake: Lake,
    batch: Batch,
    policy: Policy = DEFAULT,
    *,
    jobs: Jobs | None = None,
    index: BatchIndex | None = None,
    make: bool = True,
) -> BatchStatus:
    """A batch's state, ledger and quarantined recordings. `jobs`: the jobs in the queue, None without a queue.

    Reads the ledger of the batch, or one for each part. Without `make`, recordings of parts that are finished but not
    in the index count as pending. `index`: the batch's, where the caller has listed it already.
    """
    index = index or BatchIndex(lake, batch)
    sums = index.ledger(policy, make=make)
    about = summary(lake, batch)
    batch_ledger = _ledger(batch, about.name, policy, sums)
    state_now, at_work = _state_and_processes(lake, batch, pending=batch_ledger.recordings.pending, jobs=jobs)
    return BatchStatus(
        **dict(about),
        state=state_now,
        ledger=batch_ledger,
        jobs=jobs,
        processes=[
            ProcessAtWork(host=beat.host, pid=beat.pid, command=beat.command, since=beat.since) for beat in at_work
        ],
        eta_s=_eta_s(batch_ledger, jobs),
        quarantined=sums.quarantined_shown,
        quarantined_total=sums.quarantined,
        damaged=[described(error) for error in index.damaged][:SHOWN],
        partial=sums.partial,
        versions=sums.versions,
        notes=sums.noted,
    )


def state(lake: Lake, batch: Batch, *, pending: int, jobs: Jobs | None) -> BatchState:
    """Derive the state of a batch from its results, its cancel mark, its jobs, and who is at work without a job."""
    return _state_and_processes(lake, batch, pending=pending, jobs=jobs)[0]


def _state_and_processes(
    lake: Lake, batch: Batch, *, pending: int, jobs: Jobs | None
) -> tuple[BatchState, Sequence[Heartbeat]]:
    """The state of a batch, and who is at work on it if it is running without a job."""
    if pending == 0:
        return BatchState.DONE, ()
    if lake.batches.is_cancelled(batch.id):
        return BatchState.CANCELLED, ()
    if jobs and jobs.jobs_running and not jobs.waiting_for:
        return BatchState.RUNNING, ()
    if jobs and (jobs.jobs_queued or jobs.jobs_running):
        return BatchState.QUEUED, ()
    at_work = lake.heartbeats.of(batch.id)
    return BatchState.RUNNING if at_work else BatchState.STALLED, at_work


def pending_s(ledger: Ledger, jobs: Jobs | None) -> float | None:
    """Seconds of audio in the recordings of a batch without a result; None if nothing is known of their length."""
    recordings = ledger.recordings
    return pending_audio_s(
        finished=recordings.total - recordings.pending,
        pending=recordings.pending,
        finished_s=ledger.seconds.input,
        audio_s=jobs.audio_s if jobs else None,
    )


def _eta_s(ledger: Ledger, jobs: Jobs | None) -> float | None:
    left_s = pending_s(ledger, jobs)
    if jobs is None or not jobs.jobs_running or not left_s:
        return None
    done_s = ledger.seconds.input
    return time_left_s(
        audio_s=done_s + left_s,
        labeled_s=done_s + jobs.seconds_in_flight,
        validated_s=done_s,
        times_real_time=jobs.times_real_time,
    )


def _ledger(batch: Batch, name: str, policy: Policy, sums: PartLedger) -> Ledger:
    kept, known = sums.kept, sums.no_label
    no_label_ms = sums.input_ms - kept.total_ms - sums.quarantined_ms
    return Ledger(
        batch=batch.id,
        name=name,
        policy=policy.name,
        seconds=LedgerSeconds(
            input=sums.input_ms / 1000,
            accepted=kept.accepted_ms / 1000,
            salvaged=kept.salvaged_ms / 1000,
            rejected=kept.rejected_ms / 1000,
            quarantined=sums.quarantined_ms / 1000,
            silence=no_label_ms / 1000,
        ),
        no_label=NoLabelSeconds(
            pauses=known.pauses_ms / 1000,
            quiet=known.quiet_ms / 1000,
            sound=known.sound_ms / 1000,
            unknown=(no_label_ms - known.pauses_ms - known.quiet_ms - known.sound_ms) / 1000,
        ),
        chunks=ChunkCounts(accepted=kept.accepted, salvaged=kept.salvaged, rejected=kept.rejected),
        recordings=RecordingCounts(
            total=len(batch.sources),
            labeled=sums.labeled,
            quarantined=sums.quarantined,
            duplicates=sums.duplicates,
            pending=len(batch.sources) - sums.recordings,
            unknown_length=sums.unknown_length,
        ),
        wall_s=round(sums.wall_s, 3),
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

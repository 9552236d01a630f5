"""What is in the lake, as people ask for it: ledgers, chunk lists, previews, as the documents of the API.

The API and the embedded client answer with the same functions, so they answer the same.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from k2d.corpus.chunk import all_distances, shown
from k2d.corpus.index import Part, outdated, parts
from k2d.corpus.sweep import Curve, Sums, salvaged_ms, sweep
from k2d.documents import (
    BatchListed,
    BatchStatus,
    BatchSummary,
    ChunkCounts,
    ChunkFilter,
    ChunkList,
    ChunkRow,
    ChunkSeconds,
    CurvePoint,
    Jobs,
    Ledger,
    LedgerSeconds,
    Preview,
    QuarantinedRecording,
    ReasonCounts,
    RecordingCounts,
)
from k2d.errors import BadRequest
from k2d.filtering.policy import (
    DEFAULT,
    REASONS,
    STATUSES,
    Columns,
    Policy,
    decide,
    metric_column,
    policy_columns,
    thresholds,
)
from k2d.schema import Batch, BatchState, Metric, Outcome, RecordingResult, Status
from k2d.store import Lake
from k2d.store.batches import PART

TEXT_COLUMNS: Final = (
    "id",
    "index",
    "start_s",
    "end_s",
    "recording",
    "teacher_text",
    "validators",
    "perturbations",
    "validator_texts",
    "phrase",
)
EVERY_CHUNK: Final = ChunkFilter()
FAILURES_SHOWN: Final = 100
MAX_PAGE: Final = 1000
ALPHAS: Final = tuple(round(0.05 * step, 2) for step in range(21))  # 0.00 … 1.00
EXACT_SALVAGE: Final = 250_000  # chunks; beyond, salvage is estimated from as many: each has several segments to judge
_ACCEPTED: Final = STATUSES.index(Status.ACCEPTED)


# ---- batches ------------------------------------------------------------------------------------------------------


def summary(batch: Batch) -> BatchSummary:
    """The unchanging part of a batch."""
    return BatchSummary(
        id=batch.id,
        name=batch.name,
        created_at=batch.created_at,
        recordings=len(batch.sources),
        teacher=batch.teacher,
        validator=batch.validator,
        language=batch.options.decode.language,
    )


def listed(lake: Lake, batch: Batch, *, jobs: Jobs | None = None) -> BatchListed:
    """A batch for a list of batches: its state, by one listing of its results."""
    pending = len(batch.sources) - len(lake.batches.result_positions(batch.id))
    return BatchListed(**dict(summary(batch)), state=state(lake, batch, pending=pending, jobs=jobs), pending=pending)


def ledger(lake: Lake, batch: Batch, policy: Policy = DEFAULT) -> Ledger:
    """Where every second of a batch went: in = accepted + salvaged + rejected + quarantined + silence.

    Exact in milliseconds over the recordings that have a result; the others are `pending`. Salvaged are segments of
    chunks that are not kept whole; what was excised of those, pauses between their segments too, is rejected.
    """
    return _ledger(lake, batch, policy, _Results(lake, batch))


def status(lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, jobs: Jobs | None = None) -> BatchStatus:
    """A batch's state, ledger and quarantined recordings. `jobs`: what the queue knows, None where there is none."""
    results = _Results(lake, batch)
    book = _ledger(lake, batch, policy, results)
    quarantined = [result for result in results.done if result.outcome is Outcome.QUARANTINED]
    return BatchStatus(
        **dict(summary(batch)),
        state=state(lake, batch, pending=book.recordings.pending, jobs=jobs),
        ledger=book,
        jobs=jobs,
        quarantined=[_quarantined(result) for result in quarantined[:FAILURES_SHOWN]],
        quarantined_total=len(quarantined),
    )


def state(lake: Lake, batch: Batch, *, pending: int, jobs: Jobs | None) -> BatchState:
    """Derive the batch's state; see BatchState."""
    if pending == 0:
        return BatchState.DONE
    if lake.batches.is_cancelled(batch.id):
        return BatchState.CANCELLED
    if jobs and jobs.jobs_running:
        return BatchState.RUNNING
    if jobs and jobs.jobs_queued:
        return BatchState.QUEUED
    return BatchState.STALLED


class _Results:
    """The results of a batch that count, and its parts. Where a part lacks facts that an earlier version wrote, their
    results do not count; a part that is complete needs no facts any more."""

    def __init__(self, lake: Lake, batch: Batch) -> None:
        self.parts = list(parts(lake, batch.id))
        complete = [part.complete for part in self.parts]
        missing = set() if all(complete) else {place for place in outdated(lake, batch) if not complete[place // PART]}
        self.done = [result for result in lake.batches.results(batch.id) if result.position not in missing]


def _ledger(lake: Lake, batch: Batch, policy: Policy, results: _Results) -> Ledger:
    sums = sweep(results.parts, policy)
    in_ms = sum(_ms_of(result.duration_s) for result in results.done)
    quarantined = [result for result in results.done if result.outcome is Outcome.QUARANTINED]
    quarantined_ms = sum(_ms_of(result.duration_s) for result in quarantined)
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
            labeled=len(results.done) - len(quarantined),
            quarantined=len(quarantined),
            pending=len(batch.sources) - len(results.done),
        ),
        wall_s=round(sum(result.wall_s for result in results.done), 3),
    )


def _quarantined(result: RecordingResult) -> QuarantinedRecording:
    return QuarantinedRecording(
        recording=result.name, reason=result.reason, detail=result.detail, duration_s=result.duration_s
    )


# ---- chunks -------------------------------------------------------------------------------------------------------


def page(
    lake: Lake,
    batch: Batch,
    policy: Policy = DEFAULT,
    *,
    where: ChunkFilter = EVERY_CHUNK,
    limit: int = 100,
    cursor: str | None = None,
) -> ChunkList:
    """One page of a batch's chunks in (recording, time) order, and the cursor of the next (None at the end).

    Parts of the index are judged one after the other until the page is full; texts are read for its rows alone.

    Raises:
        BadRequest: the limit is out of bounds, or the cursor is damaged.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be 1…{MAX_PAGE}, not {limit}")
    last = _Cursor(-1, -1) if cursor is None else _Cursor.decode(cursor)
    first_part = last.position // PART
    chunks: list[ChunkRow] = []
    for number, part in enumerate(parts(lake, batch.id)):
        if number < first_part:
            continue
        columns = part.chunks
        later = (columns["position"] == last.position) & (columns["index"] > last.index)
        rows = np.flatnonzero(_matching(part, policy, where) & (later | (columns["position"] > last.position)))
        page_rows = rows[: limit - len(chunks)]
        if len(page_rows):
            chunks += _rows(part, policy, page_rows)
            last = _Cursor(int(columns["position"][page_rows[-1]]), int(columns["index"][page_rows[-1]]))
        if len(rows) > len(page_rows):
            return ChunkList(chunks=chunks, next=last.encode())
    return ChunkList(chunks=chunks, next=None)


def all_chunks(
    lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, where: ChunkFilter = EVERY_CHUNK
) -> Iterator[ChunkRow]:
    """Every matching chunk of a batch, a page at a time."""
    cursor: str | None = None
    while True:
        found = page(lake, batch, policy, where=where, limit=MAX_PAGE, cursor=cursor)
        yield from found.chunks
        cursor = found.next
        if cursor is None:
            return


# ---- policies -----------------------------------------------------------------------------------------------------


def preview(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, metrics: Sequence[Metric] | None = None
) -> Preview:
    """What a policy would keep of these batches, by reason, and the curve over α for some metrics.

    `metrics`: the policy's own when None. Chunks are counted exactly; beyond EXACT_SALVAGE of them, what is salvaged of
    the rejected ones is estimated from a sample, and `salvage_sample` says from what share of the chunks.
    """
    asked = (policy.metric,) if metrics is None else tuple(metrics)
    every = (part for batch in batches for part in parts(lake, batch.id))
    sums = sweep(every, policy, alphas=ALPHAS, metrics=asked, exact_up_to=EXACT_SALVAGE)
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


def _chunks(sums: Sums) -> ChunkCounts:
    accepted = int(sums.chunks[_ACCEPTED].sum())
    rejected = int(sums.chunks.sum()) - accepted - sums.salvaged_chunks
    return ChunkCounts(accepted=accepted, salvaged=sums.salvaged_chunks, rejected=rejected)


def _seconds(sums: Sums) -> ChunkSeconds:
    accepted_ms = int(sums.ms[_ACCEPTED].sum())
    rejected_ms = int(sums.ms.sum()) - accepted_ms - sums.salvaged_ms
    return ChunkSeconds(accepted=accepted_ms / 1000, salvaged=sums.salvaged_ms / 1000, rejected=rejected_ms / 1000)


def _points(curve: Curve) -> list[CurvePoint]:
    return [
        CurvePoint(alpha=alpha, chunks=int(chunks), seconds=int(ms) / 1000, salvaged=int(salvaged) / 1000)
        for alpha, chunks, ms, salvaged in zip(ALPHAS, curve.chunks, curve.ms, curve.salvaged_ms, strict=True)
    ]


def _matching(part: Part, policy: Policy, where: ChunkFilter) -> npt.NDArray[np.bool_]:
    columns = part.chunks
    decision = decide(policy, {name: columns[name] for name in policy_columns(policy)})
    keep = np.ones(len(decision.status), dtype=np.bool_)
    if where.verdict is not None:
        keep &= decision.status == STATUSES.index(where.verdict)
    if where.reason is not None:
        keep &= decision.reason == REASONS.index(where.reason)
    if where.min_distance is not None:
        keep &= metric_column(policy, columns) >= where.min_distance
    if where.max_distance is not None:
        keep &= metric_column(policy, columns) <= where.max_distance
    if where.recording is not None:
        keep &= pc.equal(part.read(["recording"])["recording"], where.recording).to_numpy()
    if where.text is not None:
        texts = part.read(["teacher_text"])["teacher_text"]
        keep &= pc.match_substring(texts, where.text, ignore_case=True).to_numpy()
    return keep


def _rows(part: Part, policy: Policy, rows: npt.NDArray[np.int64]) -> list[ChunkRow]:
    """Full rows for a page: texts of these rows, every distance, the verdict, what is salvaged."""
    texts = part.take(rows, list(TEXT_COLUMNS)).to_pylist()
    columns = {name: column[rows] for name, column in part.chunks.items()}
    decision, distances = decide(policy, columns), all_distances(policy, columns)
    salvaged = _salvaged_ms(part, policy, rows)
    return [
        ChunkRow(
            **text,
            distances={m: None if values is None else shown(values[row]) for m, values in distances.items()},
            teacher_repetition=int(columns["teacher_repetition"][row]),
            validator_repetition=int(columns["validator_repetition"][row]),
            verdict=decision.verdict(row).status,
            reason=decision.verdict(row).reason,
            salvaged_s=int(salvaged[row]) / 1000,
        )
        for row, text in enumerate(texts)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    """Some chunks of a part with all their segments, to be judged like a part."""

    chunks: Columns
    segments: Columns


def _salvaged_ms(part: Part, policy: Policy, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Milliseconds salvaged of each of these chunks, shape (rows,)."""
    if not policy.salvage:
        return np.zeros(len(rows), np.int64)
    own = part.segments["chunk"]
    # segments lie in the order of their chunks
    first, stop = np.searchsorted(own, rows), np.searchsorted(own, rows, side="right")
    of = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)]) if len(rows) else first
    segments: dict[str, npt.NDArray[Any]] = {name: column[of] for name, column in part.segments.items()}
    segments["chunk"] = np.repeat(np.arange(len(rows)), stop - first)
    page_part = _Page({name: column[rows] for name, column in part.chunks.items()}, segments)
    return salvaged_ms(segments, thresholds(policy, page_part, alpha=policy.alpha), policy.alpha)


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The last chunk of a page."""

    position: int
    index: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.position, self.index]).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> "_Cursor":
        try:
            position, index = json.loads(base64.urlsafe_b64decode(text.encode()))
            return cls(int(position), int(index))
        except (ValueError, TypeError) as error:
            raise BadRequest("the cursor is damaged", hint="use `next` of the page before as it is") from error


def _ms_of(seconds: float) -> int:
    return round(seconds * 1000)

"""What is in the lake, as people ask for it: ledgers, chunk lists, previews. Plain JSON-able dictionaries.

The API and the embedded command answer with the same functions, so they answer the same.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from k2d.corpus.chunk import distances, shown
from k2d.corpus.index import Part
from k2d.corpus.sweep import Line, Sums, sweep
from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, REASONS, STATUSES, Columns, Policy, decide, distance_column
from k2d.filtering.policy.needed import policy_columns
from k2d.filtering.policy.salvage import milliseconds, salvaged
from k2d.schema import Batch, BatchState, Metric, Outcome, Reason, RecordingResult, Status
from k2d.store import Lake
from k2d.store.batches import PART

TEXT_COLUMNS = (
    "id",
    "index",
    "start_s",
    "end_s",
    "recording",
    "teacher_text",
    "validator",
    "perturbations",
    "validator_texts",
    "phrase",
)
FAILURES_SHOWN = 100
MAX_PAGE = 1000
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))  # 0.00 … 1.00
EXACT_SALVAGE = 250_000  # chunks; beyond, salvage is estimated from as many: each has several segments to be judged
_ACCEPTED = STATUSES.index(Status.ACCEPTED)


@dataclass(frozen=True, slots=True)
class ChunkFilter:
    """Which chunks of a batch to list; None means any."""

    verdict: Status | None = None
    reason: Reason | None = None
    recording: str | None = None  # exact source name
    text: str | None = None  # substring of the teacher's text
    min_distance: float | None = None
    max_distance: float | None = None


# ---- batches ------------------------------------------------------------------------------------------------------


def summary(batch: Batch) -> dict[str, Any]:
    """The unchanging part of a batch."""
    return {
        "id": batch.id,
        "name": batch.name,
        "created_at": batch.created_at,
        "recordings": len(batch.sources),
        "teacher": batch.teacher,
        "validator": batch.validator,
        "language": batch.options.decode.language,
    }


def ledger(lake: Lake, batch: Batch, policy: Policy = DEFAULT) -> dict[str, Any]:
    """Where every second of a batch went: in = accepted + salvaged + rejected + quarantined + silence.

    Exact in milliseconds over the recordings that have a result; the others are `pending`. Salvaged are segments of
    chunks that are not kept whole; what was excised of those, pauses between their segments too, is rejected.
    """
    results = list(lake.batches.results(batch.id))
    sums = sweep(lake.parts(batch.id), policy)
    in_ms = sum(_ms_of(result.duration_s) for result in results)
    quarantined_ms = sum(_ms_of(r.duration_s) for r in results if r.outcome == Outcome.QUARANTINED)
    outcomes = [result.outcome for result in results]
    labeled = outcomes.count(Outcome.LABELED)
    return {
        "batch": batch.id,
        "name": batch.name,
        "policy": policy.name,
        "seconds": {
            "in": in_ms / 1000,
            **_seconds(sums),
            "quarantined": quarantined_ms / 1000,
            "silence": (in_ms - int(sums.ms.sum()) - quarantined_ms) / 1000,
        },
        "chunks": _chunks(sums),
        "recordings": {
            "total": len(batch.sources),
            "labeled": labeled,
            "quarantined": len(outcomes) - labeled,
            "pending": len(batch.sources) - len(outcomes),
        },
        "wall_s": round(sum(result.wall_s for result in results), 3),
    }


def status(lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, jobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A batch's state, ledger and quarantined recordings. `jobs`: what the queue knows, None where there is none."""
    book = ledger(lake, batch, policy)
    aside = [r for r in lake.batches.results(batch.id) if r.outcome == Outcome.QUARANTINED]
    return {
        **summary(batch),
        "state": state(lake, batch, pending=book["recordings"]["pending"], jobs=jobs),
        "ledger": book,
        "jobs": jobs,
        "quarantined": [_failure(result) for result in aside[:FAILURES_SHOWN]],
        "quarantined_total": len(aside),
    }


def state(lake: Lake, batch: Batch, *, pending: int, jobs: dict[str, Any] | None) -> BatchState:
    """Derive the batch's state; see BatchState."""
    if pending == 0:
        return BatchState.DONE
    if lake.batches.is_cancelled(batch.id):
        return BatchState.CANCELLED
    if jobs and jobs["jobs_running"]:
        return BatchState.RUNNING
    if jobs and jobs["jobs_queued"]:
        return BatchState.QUEUED
    return BatchState.STALLED


def _failure(result: RecordingResult) -> dict[str, Any]:
    return {"recording": result.name, "reason": result.reason, "detail": result.detail, "duration_s": result.duration_s}


# ---- chunks -------------------------------------------------------------------------------------------------------


def page(
    lake: Lake,
    batch: Batch,
    policy: Policy = DEFAULT,
    *,
    where: ChunkFilter = ChunkFilter(),
    limit: int = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """One page of a batch's chunks in (recording, time) order, and the cursor of the next (None at the end).

    Parts of the index are judged one after the other until the page is full; texts are read for its rows alone.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be 1…{MAX_PAGE}, not {limit}")
    after = (-1, -1) if cursor is None else _decode_cursor(cursor)
    chunks: list[dict[str, Any]] = []
    last = after
    for number, part in enumerate(lake.parts(batch.id)):
        if (number + 1) * PART <= after[0]:
            continue
        columns = part.chunks()
        later = (columns["position"] == after[0]) & (columns["index"] > after[1]) | (columns["position"] > after[0])
        rows = np.flatnonzero(_matching(part, policy, columns, where) & later)
        shown = rows[: limit - len(chunks)]
        if len(shown):
            chunks += _rows(part, policy, columns, shown)
            last = int(columns["position"][shown[-1]]), int(columns["index"][shown[-1]])
        if len(rows) > len(shown):
            return {"chunks": chunks, "next": _cursor(last)}
    return {"chunks": chunks, "next": None}


def all_chunks(lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, where: ChunkFilter) -> Iterator[dict[str, Any]]:
    """Every matching chunk of a batch, a page at a time."""
    cursor: str | None = None
    while True:
        found = page(lake, batch, policy, where=where, limit=MAX_PAGE, cursor=cursor)
        yield from found["chunks"]
        cursor = found["next"]
        if cursor is None:
            return


# ---- policies -----------------------------------------------------------------------------------------------------


def preview(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, metrics: Sequence[Metric] | None = None
) -> dict[str, Any]:
    """What a policy would keep of these batches, by reason, and the curve over α for some metrics.

    `metrics`: the policy's own when None. Chunks are counted exactly; beyond EXACT_SALVAGE of them, what is salvaged of
    the rejected ones is estimated from a sample, and `salvage_sample` says from what share of the chunks.
    """
    asked = (policy.metric,) if metrics is None else tuple(metrics)
    parts = (part for batch in batches for part in lake.parts(batch.id))
    sums = sweep(parts, policy, alphas=ALPHAS, metrics=asked, exact_up_to=EXACT_SALVAGE)
    seconds = _seconds(sums)
    return {
        "policy": policy.model_dump(mode="json"),
        "batches": [batch.id for batch in batches],
        "chunks": _chunks(sums),
        "seconds": seconds,
        "hours_accepted": round(seconds["accepted"] / 3600, 4),
        "hours_salvaged": round(seconds["salvaged"] / 3600, 4),
        "salvage_sample": round(sums.sample, 4),
        "reasons": {
            str(reason): {"chunks": int(sums.chunks[:, code].sum()), "seconds": int(sums.ms[:, code].sum()) / 1000}
            for code, reason in enumerate(REASONS)
            if sums.chunks[:, code].any()
        },
        "curve": {str(metric): _points(line) for metric, line in sums.lines.items()},
    }


# ---- helpers ------------------------------------------------------------------------------------------------------


def _chunks(sums: Sums) -> dict[str, int]:
    """Chunks kept whole, kept in part, and not kept at all."""
    accepted = int(sums.chunks[_ACCEPTED].sum())
    rejected = int(sums.chunks.sum()) - accepted - sums.salvaged_chunks
    return {"accepted": accepted, "salvaged": sums.salvaged_chunks, "rejected": rejected}


def _seconds(sums: Sums) -> dict[str, float]:
    accepted_ms = int(sums.ms[_ACCEPTED].sum())
    rejected_ms = int(sums.ms.sum()) - accepted_ms - sums.salvaged_ms
    return {
        "accepted": accepted_ms / 1000,
        "salvaged": sums.salvaged_ms / 1000,
        "rejected": rejected_ms / 1000,
    }


def _points(line: Line) -> list[dict[str, Any]]:
    return [
        {"alpha": alpha, "chunks": int(chunks), "seconds": int(ms) / 1000, "salvaged": int(salvaged_ms) / 1000}
        for alpha, chunks, ms, salvaged_ms in zip(ALPHAS, line.chunks, line.ms, line.salvaged_ms, strict=True)
    ]


def _matching(part: Part, policy: Policy, columns: Columns, where: ChunkFilter) -> npt.NDArray[np.bool_]:
    needed = {name: columns[name] for name in policy_columns(policy)}
    decision = decide(policy, needed)
    keep = np.ones(len(decision.status), dtype=np.bool_)
    if where.verdict is not None:
        keep &= decision.status == STATUSES.index(where.verdict)
    if where.reason is not None:
        keep &= decision.reason == REASONS.index(where.reason)
    if where.min_distance is not None:
        keep &= distance_column(policy, columns) >= where.min_distance
    if where.max_distance is not None:
        keep &= distance_column(policy, columns) <= where.max_distance
    if where.recording is not None:
        keep &= pc.equal(part.read(["recording"])["recording"], where.recording).to_numpy()
    if where.text is not None:
        texts = part.read(["teacher_text"])["teacher_text"]
        keep &= pc.match_substring(texts, where.text, ignore_case=True).to_numpy()
    return keep


def _rows(part: Part, policy: Policy, columns: Columns, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Full rows for a page: texts of these rows, every distance, the verdict, what is salvaged."""
    texts = part.take(rows, list(TEXT_COLUMNS)).to_pylist()
    few = {name: column[rows] for name, column in columns.items()}
    decision, measured = decide(policy, few), distances(policy, few)
    salvaged_ms = _salvaged_ms(part, policy, len(columns["ms"]), rows[~decision.accepted])
    return [
        {
            "id": text["id"],
            "recording": text["recording"],
            "index": text["index"],
            "start_s": text["start_s"],
            "end_s": text["end_s"],
            "teacher_text": text["teacher_text"],
            "validator_text": text["validator_texts"][0],
            "validator_texts": text["validator_texts"],
            "validator": text["validator"],
            "perturbations": text["perturbations"],
            **{str(metric): None if each is None else shown(each[row]) for metric, each in measured.items()},
            "teacher_repetition": int(few["teacher_repetition"][row]),
            "validator_repetition": int(few["validator_repetition"][row]),
            "phrase": text["phrase"],
            "verdict": decision.verdict(row).status,
            "reason": decision.verdict(row).reason,
            "salvaged_s": int(salvaged_ms[rows[row]]) / 1000,
        }
        for row, text in enumerate(texts)
    ]


def _salvaged_ms(part: Part, policy: Policy, chunks: int, rejected: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Milliseconds salvaged of each chunk of the part, counted for the rejected ones named here alone."""
    if not policy.salvage or not len(rejected):
        return np.zeros(chunks, np.int64)
    kept = np.ones(chunks, np.bool_)
    kept[rejected] = False
    segments = part.segments()
    return milliseconds(segments, salvaged(policy, segments, kept), chunks)


def _cursor(place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode_cursor(cursor: str) -> tuple[int, int]:
    try:
        position, index = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return int(position), int(index)
    except (ValueError, TypeError) as error:
        raise BadRequest("the cursor is damaged", hint="use `next` of the page before as it is") from error


def _ms_of(seconds: float) -> int:
    return round(seconds * 1000)

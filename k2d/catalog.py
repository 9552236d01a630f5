"""What is in the lake, as people ask for it: ledgers, chunk lists, details, curves. Plain JSON-able dictionaries.

The API and the embedded command answer with the same functions, so they answer the same.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2d.distance import aligned_diff
from k2d.errors import BadRequest, NotFound
from k2d.policy import COLUMNS, DEFAULT, REASONS, STATUSES, Policy, columns_of, curve, decide, distance_column
from k2d.schema import Batch, BatchState, ChunkFacts, Metric, Outcome, Reason, RecordingResult, Status
from k2d.store import Lake

PLACE_COLUMNS = ("id", "position", "index", "start_s", "end_s", "duration_s")
TEXT_COLUMNS = ("recording", "teacher_text", "validator", "views", "validator_texts", "phrase")
FAILURES_SHOWN = 100
MAX_PAGE = 1000
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))  # 0.00 … 1.00


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
    """Where every second of a batch went under a policy: in = accepted + rejected + quarantined + silence.

    Exact in milliseconds over the recordings that have a result; the others are `pending`.
    """
    results = list(lake.results(batch.id))
    table = lake.index(batch.id, columns=[*PLACE_COLUMNS, *COLUMNS])
    accepted = decide(policy, _arrays(table)).accepted
    chunk_ms = _ms(table["duration_s"].to_numpy())
    in_ms = sum(_ms_of(result.duration_s) for result in results)
    quarantined_ms = sum(_ms_of(r.duration_s) for r in results if r.outcome == Outcome.QUARANTINED)
    accepted_ms = int(chunk_ms[accepted].sum())
    rejected_ms = int(chunk_ms.sum()) - accepted_ms
    outcomes = [result.outcome for result in results]
    labeled = outcomes.count(Outcome.LABELED)
    return {
        "batch": batch.id,
        "name": batch.name,
        "policy": policy.name,
        "seconds": {
            "in": in_ms / 1000,
            "accepted": accepted_ms / 1000,
            "rejected": rejected_ms / 1000,
            "quarantined": quarantined_ms / 1000,
            "silence": (in_ms - accepted_ms - rejected_ms - quarantined_ms) / 1000,
        },
        "chunks": {"accepted": int(accepted.sum()), "rejected": int((~accepted).sum())},
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
    aside = [r for r in lake.results(batch.id) if r.outcome == Outcome.QUARANTINED]
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
    if lake.is_cancelled(batch.id):
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

    Only numeric columns are read to find the page; texts are read for its rows alone.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be 1…{MAX_PAGE}, not {limit}")
    numbers = lake.index(batch.id, columns=[*PLACE_COLUMNS, *COLUMNS])
    keep = _matching(lake, batch, policy, numbers, where)
    if cursor is not None:
        position, index = _decode_cursor(cursor)
        positions, indices = numbers["position"].to_numpy(), numbers["index"].to_numpy()
        keep &= (positions > position) | ((positions == position) & (indices > index))
    rows = np.flatnonzero(keep)
    shown = rows[:limit]
    chunks = _rows(lake, batch, policy, numbers, shown)
    more = len(rows) > limit
    return {"chunks": chunks, "next": _cursor_at(numbers, int(shown[-1])) if more else None}


def all_chunks(lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, where: ChunkFilter) -> Iterator[dict[str, Any]]:
    """Every matching chunk of a batch, a page at a time."""
    cursor: str | None = None
    while True:
        found = page(lake, batch, policy, where=where, limit=MAX_PAGE, cursor=cursor)
        yield from found["chunks"]
        cursor = found["next"]
        if cursor is None:
            return


def detail(lake: Lake, chunk_id: str, policy: Policy = DEFAULT) -> dict[str, Any]:
    """One chunk: both transcripts, the aligned diff, distances, verdict, reason, and the teacher's signals.

    Raises:
        NotFound: no such chunk.
    """
    facts = find_chunk(lake, chunk_id)
    columns = columns_of([facts.distances])
    verdict = decide(policy, columns).verdict(0)
    return {
        "id": facts.id,
        "recording_id": facts.recording_id,
        "index": facts.index,
        "start_s": facts.start_s,
        "end_s": facts.end_s,
        "duration_s": facts.duration_s,
        "teacher_text": facts.teacher_text,
        "validator": facts.validator,
        "views": [
            {
                "view": view,
                "text": text,
                "diff": [asdict(operation) for operation in aligned_diff(facts.teacher_text, text)],
            }
            for view, text in zip(facts.views, facts.validator_texts, strict=True)
        ],
        "distances": {str(m): _shown(distance_column(m, columns, policy.repetition_max)[0]) for m in Metric},
        "counts": {"mixed": asdict(facts.distances.mixed), "phonemes": asdict(facts.distances.phonemes)},
        "repetition": {
            "teacher": facts.distances.teacher_repetition,
            "validator": facts.distances.validator_repetition,
        },
        "phrase": facts.distances.phrase,
        "segments": [asdict(segment) for segment in facts.segments],
        "verdict": verdict.status,
        "reason": verdict.reason,
        "policy": policy.name,
    }


def find_chunk(lake: Lake, chunk_id: str) -> ChunkFacts:
    """The facts of a chunk by its id ("{facts_key}-{index:05d}")."""
    key, _, index = chunk_id.rpartition("-")
    if key.isalnum() and index.isdigit() and lake.has_facts(key):
        for facts in lake.facts(key):
            if facts.id == chunk_id:
                return facts
    raise NotFound(f"no chunk is called {chunk_id[:80]!r}", hint="GET /v1/chunks?batch=… lists them")


# ---- policies -----------------------------------------------------------------------------------------------------


def preview(lake: Lake, batches: Sequence[Batch], policy: Policy) -> dict[str, Any]:
    """What a policy would accept of these batches, by reason, and the curve over α for every metric."""
    columns = [*PLACE_COLUMNS, *COLUMNS]
    table = pa.concat_tables([lake.index(batch.id, columns=columns) for batch in batches])
    arrays = _arrays(table)
    durations = table["duration_s"].to_numpy()
    decision = decide(policy, arrays)
    accepted = decision.accepted
    reasons = {
        str(REASONS[code]): {
            "chunks": int((decision.reason == code).sum()),
            "seconds": _seconds(durations[decision.reason == code]),
        }
        for code in np.unique(decision.reason)
    }
    return {
        "policy": policy.model_dump(mode="json"),
        "batches": [batch.id for batch in batches],
        "chunks": {"accepted": int(accepted.sum()), "rejected": int((~accepted).sum())},
        "seconds": {"accepted": _seconds(durations[accepted]), "rejected": _seconds(durations[~accepted])},
        "hours_accepted": round(_seconds(durations[accepted]) / 3600, 4),
        "reasons": reasons,
        "curve": _curves(arrays, durations, policy),
    }


# ---- helpers ------------------------------------------------------------------------------------------------------


def _arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    return {name: table[name].to_numpy() for name in COLUMNS}


def _curves(
    arrays: dict[str, npt.NDArray[Any]], durations: npt.NDArray[np.float64], policy: Policy
) -> dict[str, list[dict[str, Any]]]:
    found = curve(arrays, durations, alphas=ALPHAS, policy=policy)
    return {
        str(metric): [
            {"alpha": float(alpha), "chunks": int(chunks), "seconds": round(float(seconds), 3)}
            for alpha, chunks, seconds in zip(line.alphas, line.chunks, line.seconds, strict=True)
        ]
        for metric, line in found.items()
    }


def _matching(lake: Lake, batch: Batch, policy: Policy, numbers: pa.Table, where: ChunkFilter) -> npt.NDArray[np.bool_]:
    arrays = _arrays(numbers)
    decision = decide(policy, arrays)
    keep = np.ones(len(numbers), dtype=bool)
    if where.verdict is not None:
        keep &= decision.status == STATUSES.index(where.verdict)
    if where.reason is not None:
        keep &= decision.reason == REASONS.index(where.reason)
    distance = distance_column(policy.metric, arrays, policy.repetition_max)
    if where.min_distance is not None:
        keep &= distance >= where.min_distance
    if where.max_distance is not None:
        keep &= distance <= where.max_distance
    if where.recording is not None:
        keep &= pc.equal(lake.index(batch.id, columns=["recording"])["recording"], where.recording).to_numpy()
    if where.text is not None:
        texts = lake.index(batch.id, columns=["teacher_text"])["teacher_text"]
        keep &= pc.match_substring(texts, where.text, ignore_case=True).to_numpy()
    return keep


def _rows(
    lake: Lake, batch: Batch, policy: Policy, numbers: pa.Table, rows: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Full rows for a page: texts of these rows, every distance, the verdict."""
    few = numbers.take(pa.array(rows))
    texts = lake.index_rows(batch.id, rows.tolist(), columns=list(TEXT_COLUMNS)).to_pylist()
    arrays = _arrays(few)
    decision = decide(policy, arrays)
    distances = {m: distance_column(m, arrays, policy.repetition_max) for m in Metric}
    found = []
    for row, (place, text) in enumerate(zip(few.select(PLACE_COLUMNS).to_pylist(), texts, strict=True)):
        found.append(
            {
                "id": place["id"],
                "recording": text["recording"],
                "index": place["index"],
                "start_s": place["start_s"],
                "end_s": place["end_s"],
                "teacher_text": text["teacher_text"],
                "validator_text": text["validator_texts"][0],
                "validator_texts": text["validator_texts"],
                "validator": text["validator"],
                "views": text["views"],
                **{str(metric): _shown(distances[metric][row]) for metric in Metric},
                "teacher_repetition": int(arrays["teacher_repetition"][row]),
                "validator_repetition": int(arrays["validator_repetition"][row]),
                "phrase": text["phrase"],
                "verdict": decision.verdict(row).status,
                "reason": decision.verdict(row).reason,
            }
        )
    return found


def _cursor_at(numbers: pa.Table, row: int) -> str:
    place = [numbers["position"][row].as_py(), numbers["index"][row].as_py()]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode_cursor(cursor: str) -> tuple[int, int]:
    try:
        position, index = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return int(position), int(index)
    except (ValueError, TypeError) as error:
        raise BadRequest("the cursor is damaged", hint="use `next` of the page before as it is") from error


def _shown(value: Any) -> float:
    return round(float(value), 4)


def _ms(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.rint(seconds * 1000).astype(np.int64)


def _ms_of(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(durations: npt.NDArray[np.float64]) -> float:
    return int(_ms(durations).sum()) / 1000

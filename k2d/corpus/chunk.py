"""Everything that is stored about one chunk, and the verdict on it with its reasons."""

from contextlib import suppress
from dataclasses import fields
from typing import Any

import numpy.typing as npt
import pyarrow.compute as pc

from k2d.corpus.index import parts
from k2d.documents import ChunkDetail, DiffStep, HypothesisDetail, SegmentDetail
from k2d.errors import NotFound, StoreError
from k2d.filtering.distance import aligned_diff
from k2d.filtering.policy import (
    DEFAULT,
    METRICS,
    Columns,
    Policy,
    columns_of,
    decide,
    distances,
    evidence_columns,
    explain,
    metric_column,
)
from k2d.filtering.policy.risk import contributions
from k2d.keys import chunk_of, segment_id
from k2d.schema import ChunkFacts, Hypothesis, Metric, Status
from k2d.store import Lake


def detail(lake: Lake, chunk_id: str, policy: Policy = DEFAULT, *, batch: str | None = None) -> ChunkDetail:
    """Describe one chunk: label and aligned hypotheses, evidence, verdict, contributions to the risk, and its segments.

        detail(lake, "4f…-00003").reason

    Args:
        batch: id or name of the batch in which to look for the chunk first; looking through all takes longer.

    Raises:
        NotFound: no such chunk.
    """
    facts = find_chunk(lake, chunk_id)
    columns = columns_of([facts.distances], [facts.evidence])
    verdict = decide(policy, columns).verdict(0)
    segments = _segments(facts, policy, rejected=verdict.status is not Status.ACCEPTED)
    salvaged_ms = sum(round(1000 * (segment.end_s - segment.start_s)) for segment in segments if segment.salvaged)
    batch_name, recording = _origin(lake, chunk_of(chunk_id)[0], batch)
    return ChunkDetail(
        id=facts.id,
        batch=batch_name,
        recording=recording,
        recording_id=facts.recording_id,
        index=facts.index,
        start_s=facts.start_s,
        end_s=facts.end_s,
        duration_s=facts.duration_s,
        teacher_text=facts.teacher_text,
        validators=facts.validators,
        hypotheses=[_hypothesis(facts.teacher_text, hypothesis) for hypothesis in facts.hypotheses],
        distances={
            metric: None if values is None else shown(values[0], policy.alpha)
            for metric, values in all_distances(policy, columns).items()
        },
        counts={"mixed": _members(facts.distances.mixed), "phonemes": _members(facts.distances.phonemes)},
        repetition={
            "teacher": facts.distances.teacher_repetition,
            "validator": facts.distances.validator_repetition,
        },
        phrase=facts.distances.phrase,
        evidence=_members(facts.evidence),
        contributions=_contributions(policy, columns)[0],
        segments=segments,
        salvaged_s=salvaged_ms / 1000,
        verdict=verdict.status,
        reason=verdict.reason,
        policy=policy.name,
        explanation=explain(policy),
    )


def _origin(lake: Lake, facts_key: str, first: str | None) -> tuple[str | None, str | None]:
    """The names of a batch with these facts, and of their recording in it; None if no batch has them.

    The batch is `first` if that has them, or else the newest that does.
    """
    with suppress(StoreError, NotFound):
        if first and (recording := _recording(lake, first, facts_key)) is not None:
            return lake.batches.get(first).name, recording
    for batch in lake.batches.all():
        with suppress(StoreError):  # another batch's damage is of no concern here
            if (recording := _recording(lake, batch.id, facts_key)) is not None:
                return batch.name, recording
    return None, None


def _recording(lake: Lake, batch: str, facts_key: str) -> str | None:
    """The name of the recording of a batch with these facts."""
    for part in parts(lake, batch):
        recordings = part.recording_table
        if (row := pc.index(recordings["facts_key"], facts_key).as_py()) >= 0:
            return str(recordings["name"][row].as_py())
    return None


def _hypothesis(label: str, hypothesis: Hypothesis) -> HypothesisDetail:
    # a probe's phonemes cannot be aligned with the label's text
    steps = () if hypothesis.is_phonemes else aligned_diff(label, hypothesis.text)
    return HypothesisDetail(**_members(hypothesis), diff=[DiffStep(**_members(step)) for step in steps])


def _members(value: Any) -> dict[str, Any]:
    """The members of a dataclass by name. Unlike asdict it copies nothing, which costs more than all else here."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _segments(facts: ChunkFacts, policy: Policy, *, rejected: bool) -> list[SegmentDetail]:
    """The segments of a chunk with their evidence and, if the policy's metric is evidence, their own verdicts."""
    stored = [
        {"id": segment_id(facts.id, number), **_members(segment), "evidence": _members(evidence)}
        for number, (segment, evidence) in enumerate(zip(facts.segments, facts.segment_evidence, strict=True))
    ]
    if policy.metric is not Metric.EVIDENCE:
        unjudged: dict[str, Any] = {"verdict": None, "reason": None, "risk": None, "contributions": {}}
        return [SegmentDetail(**segment, **unjudged, salvaged=False) for segment in stored]
    columns = evidence_columns(facts.segment_evidence)
    decision, risks = decide(policy, columns), metric_column(policy, columns)
    added = _contributions(policy, columns)
    return [
        SegmentDetail(
            **segment,
            verdict=decision.verdict(row).status,
            reason=decision.verdict(row).reason,
            risk=shown(risks[row], policy.alpha),
            contributions=added[row],
            salvaged=bool(
                policy.salvage and rejected and decision.accepted[row] and segment["end_s"] > segment["start_s"]
            ),
        )
        for row, segment in enumerate(stored)
    ]


def _contributions(policy: Policy, columns: Columns) -> list[dict[str, float]]:
    """What the bias and each feature add to the log-odds of every row; empty for a distance."""
    rows = len(next(iter(columns.values())))
    if policy.metric is not Metric.EVIDENCE or policy.weights is None:
        return [{} for _ in range(rows)]
    added = contributions(policy, columns)
    bias = {"bias": policy.weights.bias}
    return [bias | {name: shown(values[row]) for name, values in added.items()} for row in range(rows)]


def find_chunk(lake: Lake, chunk_id: str) -> ChunkFacts:
    """Read the facts of a chunk by its id (`k2d.keys.chunk_id`).

    Raises:
        NotFound: no such chunk.
    """
    key, index = chunk_of(chunk_id)
    if lake.facts.has(key) and index < 2**31:
        for facts in lake.facts.read(key, only=(index,)):
            return facts
    raise NotFound(
        f"no chunk has the id {chunk_id[:80]!r}",
        hint="`k2d chunks BATCH --jsonl` prints the ids of a batch",
        chunk=chunk_id[:80],
    )


def all_distances(policy: Policy, columns: Columns) -> dict[Metric, npt.NDArray[Any] | None]:
    """Compute every metric for every row, shape (rows,) each; None for evidence if the policy has no weights."""
    values: dict[Metric, npt.NDArray[Any] | None] = {
        metric: distances(metric, columns, policy.repetition_max) for metric in METRICS
    }
    by_evidence = None if policy.weights is None else policy.varied(metric=Metric.EVIDENCE)
    return values | {Metric.EVIDENCE: None if by_evidence is None else metric_column(by_evidence, columns)}


def shown(value: Any, alpha: float | None = None) -> float:
    """Round a number for display: to four decimals, or to as many as it takes to stay on its side of α.

        shown(np.float32(0.30000004), 0.3)  # 0.30000004, which a policy with α = 0.3 does not keep

    Args:
        value: a NumPy number; it is compared with α in its own precision, as a policy compares it.
        alpha: what the number is compared with, if it is.
    """
    exact = float(str(value))  # the shortest number that is this one in its precision: 0.3, not 0.30000001192092896
    if alpha is None:
        return round(exact, 4)
    side = (value > alpha, value < alpha)
    roundings = (round(exact, decimals) for decimals in range(4, 18))
    return next((number for number in roundings if (number > alpha, number < alpha) == side), alpha)

"""One chunk, with everything that is known of it and every reason for its verdict. A plain JSON-able dictionary."""

from dataclasses import asdict
from typing import Any

import numpy.typing as npt

from k2d.errors import NotFound
from k2d.filtering.distance import aligned_diff
from k2d.filtering.policy import (
    DEFAULT,
    Columns,
    Policy,
    columns_of,
    decide,
    distance_column,
    evidence_columns,
    explain,
    metric_column,
)
from k2d.filtering.policy.risk import contributions
from k2d.keys import segment_id
from k2d.schema import ChunkFacts, Metric, Status
from k2d.store import Lake


def detail(lake: Lake, chunk_id: str, policy: Policy = DEFAULT) -> dict[str, Any]:
    """One chunk: what was said and heard, aligned; its evidence and its segments', verdicts and why; the risk's parts.

    Raises:
        NotFound: no such chunk.
    """
    facts = find_chunk(lake, chunk_id)
    columns = columns_of([facts.distances], [facts.evidence])
    verdict = decide(policy, columns).verdict(0)
    segments = _segments(facts, policy, rejected=verdict.status is not Status.ACCEPTED)
    return {
        "id": facts.id,
        "recording_id": facts.recording_id,
        "index": facts.index,
        "start_s": facts.start_s,
        "end_s": facts.end_s,
        "duration_s": facts.duration_s,
        "teacher_text": facts.teacher_text,
        "validator": facts.validator,
        "hypotheses": [
            {
                **asdict(hypothesis),
                # phonemes are no text that could be laid beside the label
                "diff": []
                if hypothesis.is_phonemes
                else [asdict(operation) for operation in aligned_diff(facts.teacher_text, hypothesis.text)],
            }
            for hypothesis in facts.hypotheses
        ],
        "distances": {str(m): None if d is None else shown(d[0]) for m, d in distances(policy, columns).items()},
        "counts": {"mixed": asdict(facts.distances.mixed), "phonemes": asdict(facts.distances.phonemes)},
        "repetition": {
            "teacher": facts.distances.teacher_repetition,
            "validator": facts.distances.validator_repetition,
        },
        "phrase": facts.distances.phrase,
        "evidence": asdict(facts.evidence),
        "contributions": _contributions(policy, columns)[0],
        "segments": segments,
        "salvaged_s": sum(round(1000 * (one["end_s"] - one["start_s"])) for one in segments if one["salvaged"]) / 1000,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "policy": policy.name,
        "explanation": explain(policy),
    }


def _segments(facts: ChunkFacts, policy: Policy, *, rejected: bool) -> list[dict[str, Any]]:
    """The segments of a chunk with their evidence and, by a policy that judges evidence, a verdict of their own."""
    every = [
        {"id": segment_id(facts.id, number), **asdict(segment), "evidence": asdict(evidence)}
        for number, (segment, evidence) in enumerate(zip(facts.segments, facts.segment_evidence, strict=True))
    ]
    blank: dict[str, Any] = {"verdict": None, "reason": None, "risk": None, "contributions": {}, "salvaged": False}
    if policy.metric is not Metric.EVIDENCE:
        return [{**one, **blank} for one in every]
    columns = evidence_columns(facts.segment_evidence)
    decision, risks = decide(policy, columns), distance_column(policy, columns)
    added = _contributions(policy, columns)
    return [
        {
            **one,
            "verdict": decision.verdict(row).status,
            "reason": decision.verdict(row).reason,
            "risk": shown(risks[row]),
            "contributions": added[row],
            "salvaged": bool(policy.salvage and rejected and decision.accepted[row] and one["end_s"] > one["start_s"]),
        }
        for row, one in enumerate(every)
    ]


def _contributions(policy: Policy, columns: Columns) -> list[dict[str, float]]:
    """What the bias and each feature add to the log-odds of every row; nothing where a policy has no weights."""
    if policy.metric is not Metric.EVIDENCE or policy.weights is None:
        return [{} for _ in next(iter(columns.values()))]
    added = {"bias": policy.weights.bias}
    found = contributions(policy, columns)
    rows = len(next(iter(columns.values())))
    return [{**added, **{name: shown(each[row]) for name, each in found.items()}} for row in range(rows)]


def find_chunk(lake: Lake, chunk_id: str) -> ChunkFacts:
    """The facts of a chunk by its id ("{facts_key}-{index:05d}")."""
    key, _, index = chunk_id.rpartition("-")
    if key.isalnum() and index.isdigit() and lake.facts.has(key):
        for facts in lake.facts.read(key):
            if facts.id == chunk_id:
                return facts
    raise NotFound(f"no chunk is called {chunk_id[:80]!r}", hint="GET /v1/chunks?batch=… lists them")


def distances(policy: Policy, columns: Columns) -> dict[Metric, npt.NDArray[Any] | None]:
    """Every metric of every row; None for evidence where the policy has no weights to weigh it."""
    found: dict[Metric, npt.NDArray[Any] | None] = {
        metric: metric_column(metric, columns, policy.repetition_max)
        for metric in Metric
        if metric is not Metric.EVIDENCE
    }
    judging = None if policy.weights is None else policy.varied(metric=Metric.EVIDENCE)
    return found | {Metric.EVIDENCE: None if judging is None else distance_column(judging, columns)}


def shown(value: Any) -> float:
    """A number as people see it."""
    return round(float(value), 4)

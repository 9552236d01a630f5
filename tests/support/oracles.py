"""Slow and plain versions of what the product computes over columns, to compare it with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from k2d.filtering.policy import REASONS, STATUSES, Policy, decide
from k2d.schema import Counts, Distances, Metric, Reason, Status

Row = Mapping[str, Any]


# ---- distances of one chunk ---------------------------------------------------------------------------------------


def rate(counts: Counts) -> float:
    """edits / |validator|, at least one token."""
    return counts.edits / max(1, counts.hits + counts.substitutions + counts.deletions)


def bounded(counts: Counts) -> float:
    """edits / max(|teacher|, |validator|)."""
    teacher = counts.hits + counts.substitutions + counts.insertions
    validator = counts.hits + counts.substitutions + counts.deletions
    return counts.edits / max(1, teacher, validator)


def distance(metric: Metric, chunk: Distances, repetition_max: int = 5) -> float:
    """Any metric but evidence, of one chunk (docs/method.md)."""
    if metric is Metric.MER:
        return rate(chunk.mixed)
    if metric is Metric.MER_BOUNDED:
        return bounded(chunk.mixed)
    error = (
        bounded(chunk.phonemes) if metric in (Metric.PER_BOUNDED, Metric.COMPOSITE_BOUNDED) else rate(chunk.phonemes)
    )
    if metric in (Metric.PER, Metric.PER_BOUNDED):
        return error
    if chunk.teacher_repetition > repetition_max:
        return 1.0
    if chunk.validator_repetition > repetition_max:
        return 0.0
    return min(1.0, error)


# ---- what a policy keeps, one row at a time -----------------------------------------------------------------------


def broken_rule(policy: Policy, row: Row) -> Reason | None:
    """The first rule that rejects a row whatever α is; None: none does."""
    tokens = row["zh_tokens"] + row["en_tokens"] + row["other_tokens"]
    disagreement = row[
        {"any": "disagreement_least", "most": "disagreement_middle", "all": "disagreement_most"}[policy.quorum]
    ]
    if policy.reject_empty and tokens == 0:
        return Reason.EMPTY
    if row["teacher_repetition"] > policy.repetition_max or row["loops"] > (policy.loops_max or 10**9):
        return Reason.TEACHER_REPETITION
    if policy.reject_phrases and row["is_phrase"]:
        return Reason.HALLUCINATION_PHRASE
    if policy.reject_echoes and row["is_echo"]:
        return Reason.PROMPT_ECHO
    if policy.flip_max is not None and row["flip"] > policy.flip_max:
        return Reason.LANGUAGE_FLIP
    if policy.foreign_max is not None and row["other_tokens"] > policy.foreign_max * tokens:
        return Reason.SCRIPT_MIX
    if policy.min_phonemes_per_s is not None and row["phonemes"] < policy.min_phonemes_per_s * row["duration_s"]:
        return Reason.SPEECH_RATE
    if policy.max_phonemes_per_s is not None and row["phonemes"] > policy.max_phonemes_per_s * row["duration_s"]:
        return Reason.SPEECH_RATE
    if policy.disagreement_max is not None and disagreement > policy.disagreement_max:
        return Reason.UNCONFIRMED
    return None


def rows(columns: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Each row of some columns as columns of one row."""
    count = len(next(iter(columns.values())))
    return [{name: column[row : row + 1] for name, column in columns.items()} for row in range(count)]


def salvaged_ms(policy: Policy, part: Any) -> list[int]:
    """Milliseconds salvaged of each chunk: of segments that pass by themselves, where the chunk does not."""
    totals = [0] * len(part.chunks["ms"])
    for segment in rows(part.segments) if policy.salvage else []:
        chunk = int(segment["chunk"][0])
        whole = decide(policy, {name: column[chunk : chunk + 1] for name, column in part.chunks.items()}).accepted[0]
        if not whole and segment["ms"][0] > 0 and decide(policy, segment).accepted[0]:
            totals[chunk] += int(segment["ms"][0])
    return totals


def ledger(policy: Policy, parts: Sequence[Any]) -> dict[tuple[Status, Reason], tuple[int, int]]:
    """(chunks, milliseconds) by status and reason; nothing for those that do not occur."""
    totals: dict[tuple[Status, Reason], tuple[int, int]] = {}
    for part in parts:
        for chunk in rows(part.chunks):
            decision = decide(policy, chunk)
            key = (STATUSES[decision.status[0]], REASONS[decision.reason[0]])
            chunks, ms = totals.get(key, (0, 0))
            totals[key] = (chunks + 1, ms + int(chunk["ms"][0]))
    return totals


def kept(policy: Policy, parts: Sequence[Any]) -> tuple[int, int, int]:
    """Chunks kept whole, their milliseconds, and the milliseconds salvaged of the others."""
    chunks = ms = salvaged = 0
    for (status, _), (count, length) in ledger(policy, parts).items():
        if status is Status.ACCEPTED:
            chunks, ms = chunks + count, ms + length
    for part in parts:
        salvaged += sum(salvaged_ms(policy, part))
    return chunks, ms, salvaged

"""Verdicts on every chunk of some batches, summed up: part by part, in threads, from mapped numbers.

Sums are in whole milliseconds. Chunks are always counted exactly. What is salvaged of rejected chunks is counted
exactly too unless a sample is asked for: there are several segments to a chunk, and few chunks are rejected.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from k2d.corpus.index import Part
from k2d.filtering.policy import (
    REASONS,
    RULES,
    STATUSES,
    Decision,
    Policy,
    decide,
    distance_column,
    metric_column,
)
from k2d.filtering.policy.needed import metric_columns, policy_columns
from k2d.filtering.policy.salvage import milliseconds, salvaged
from k2d.schema import Metric

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_BY_RULE: Final = np.array([reason in RULES for reason in REASONS])
_CODES: Final = len(STATUSES) * len(REASONS)
_T = TypeVar("_T")


@dataclass(slots=True)
class Line:
    """What each α would keep by one metric, shape (alphas,): whole chunks, and segments salvaged of the others."""

    chunks: Ints
    ms: Ints
    salvaged_ms: Ints


@dataclass(slots=True)
class Sums:
    """What a policy makes of all chunks."""

    chunks: Ints = field(default_factory=lambda: np.zeros((len(STATUSES), len(REASONS)), np.int64))
    ms: Ints = field(default_factory=lambda: np.zeros((len(STATUSES), len(REASONS)), np.int64))
    salvaged_chunks: int = 0  # not kept whole, but something of them is
    salvaged_ms: int = 0
    sample: float = 1.0  # share of the chunks in which salvage was counted; below 1 it is estimated from them
    lines: dict[Metric, Line] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One part: verdicts, and where on the curve each chunk stands by the policy's own metric."""

    part: Part
    decision: Decision
    ms: npt.NDArray[np.int32]
    lines: dict[Metric, npt.NDArray[np.int8]]  # the first of the α that keeps each chunk


def sweep(
    parts: Iterable[Part],
    policy: Policy,
    *,
    alphas: Sequence[float] = (),
    metrics: Sequence[Metric] = (),
    exact_up_to: int | None = None,
) -> Sums:
    """Judge all chunks of `parts`; with `metrics`, also at each of the ascending `alphas` (same other rules).

    Beyond `exact_up_to` chunks salvage is estimated from every k-th part, so many that about as many chunks are seen.
    """
    sums, asked = Sums(), np.asarray(alphas, np.float64)
    wanted = [metric for metric in metrics if metric is not Metric.EVIDENCE or policy.weights is not None]
    judged = _in_threads(lambda part: _judge(part, policy, asked, wanted), parts)
    for one in judged:
        codes = one.decision.status * np.int8(len(REASONS)) + one.decision.reason  # at most 3 × 16
        sums.chunks += _binned(codes, _CODES).reshape(sums.chunks.shape)
        sums.ms += _binned(codes, _CODES, one.ms).reshape(sums.ms.shape)
        for metric, first in one.lines.items():
            line = sums.lines.setdefault(metric, Line(*(np.zeros(len(asked), np.int64) for _ in range(3))))
            line.chunks += np.cumsum(_binned(first, len(asked) + 1))[:-1]
            line.ms += np.cumsum(_binned(first, len(asked) + 1, one.ms))[:-1]
    if policy.salvage:
        _add_salvage(sums, judged, policy, asked, exact_up_to)
    return sums


def _judge(part: Part, policy: Policy, alphas: npt.NDArray[np.float64], metrics: Sequence[Metric]) -> _Judged:
    columns = part.chunks()
    decision = decide(policy, {name: columns[name] for name in policy_columns(policy)})
    ruled_out = _BY_RULE[decision.reason]
    lines = {}
    for metric in metrics:
        if metric is Metric.EVIDENCE:
            distance = distance_column(policy.varied(metric=metric), columns)
        else:
            needed = {name: columns[name] for name in metric_columns(metric)}
            distance = metric_column(metric, needed, policy.repetition_max)
        lines[metric] = _first(distance, ruled_out, alphas)
    return _Judged(part, decision, columns["ms"], lines)


def _add_salvage(
    sums: Sums, judged: Sequence[_Judged], policy: Policy, alphas: npt.NDArray[np.float64], exact_up_to: int | None
) -> None:
    """Count what is salvaged in all parts, or estimate it from some: in proportion to what is not kept whole."""
    total = int(sums.chunks.sum())
    step = 1 if exact_up_to is None or not total else max(1, -(-total // exact_up_to))
    sample = judged[:: max(1, min(step, len(judged)))]
    line = sums.lines.get(Metric.EVIDENCE)
    found = _in_threads(lambda one: _salvage(one, policy, alphas), sample)
    seen = sum(len(one.ms) for one in sample)
    sums.sample = seen / total if total else 1.0
    scale = 1.0 if len(sample) == len(judged) else total / max(1, seen)
    sums.salvaged_chunks = round(scale * sum(chunks for chunks, _, _ in found))
    sums.salvaged_ms = round(scale * sum(ms for _, ms, _ in found))
    if line is not None:
        line.salvaged_ms += np.rint(scale * sum((each for _, _, each in found), np.zeros(len(alphas)))).astype(np.int64)


def _salvage(one: _Judged, policy: Policy, alphas: npt.NDArray[np.float64]) -> tuple[int, int, Ints]:
    """Of one part: chunks of which something is salvaged, how much is, and how much would be at each α."""
    segments, kept = one.part.segments(), one.decision.accepted
    rows = salvaged(policy, segments, kept)
    ms = milliseconds(segments, rows, len(kept))
    line = np.zeros(len(alphas), np.int64)
    if (chunk_first := one.lines.get(Metric.EVIDENCE)) is not None:
        decision = decide(policy, {name: segments[name] for name in policy_columns(policy)})
        out = _BY_RULE[decision.reason] | (segments["ms"] == 0)
        first = _first(distance_column(policy, segments), out, alphas)
        until = chunk_first[segments["chunk"]]  # from there on the whole chunk is kept
        here = np.flatnonzero(first < until)
        spans = segments["ms"][here]
        bins = len(alphas) + 1
        line = np.cumsum(_binned(first[here], bins, spans) - _binned(until[here], bins, spans))[:-1]
    return int(np.count_nonzero(ms)), int(ms.sum()), line


def _first(distance: npt.NDArray[Any], ruled_out: Flags, alphas: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Where in the ascending alphas each row begins to be kept; len(alphas) where it never is.

    A pass for each α, eight rows at a time, is five times faster than searching for each row. An α is compared in the
    precision of the distance, as `decide` does.
    """
    first = np.zeros(len(distance), np.int8)
    for alpha in alphas.astype(distance.dtype):
        first += (distance > alpha).view(np.int8)
    first[np.flatnonzero(ruled_out)] = len(alphas)
    return first


def _binned(codes: npt.NDArray[Any], bins: int, ms: npt.NDArray[np.int32] | None = None) -> Ints:
    """Rows, or milliseconds, by code. Sums of milliseconds stay whole in a double: 2^53 ms are 285,000 years."""
    return np.bincount(codes, ms, minlength=bins).astype(np.int64)


def _in_threads(function: Callable[[Any], _T], items: Iterable[Any]) -> list[_T]:
    """Results in order. NumPy lets go of the interpreter while it works, so threads use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sweep") as pool:
        return list(pool.map(function, items))

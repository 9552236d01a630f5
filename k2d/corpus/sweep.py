"""Sums over all chunks of some batches: ledgers and curves over α. Parts are computed in threads and then added up.

A ledger is the sum over what one α keeps, and a curve is a histogram of the thresholds (`k2d.filtering.policy`).
Durations are in whole milliseconds. Chunks are always counted exactly. What is salvaged of rejected chunks is counted
exactly too, unless the caller allows an estimate from a sample: a chunk has several segments, and judging those takes
most of the time.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import (
    REASONS,
    STATUSES,
    Columns,
    Decision,
    PartColumns,
    Policy,
    Thresholds,
    decide,
    least_alpha,
    policy_columns,
    thresholds,
)
from k2d.schema import Metric

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_CODES: Final = len(STATUSES) * len(REASONS)
FEW_ALPHAS: Final = 100  # up to which thresholds are compared with each; chosen, and an index fits int8
_T = TypeVar("_T")


@dataclass(slots=True)
class Curve:
    """What each α keeps under one metric, shape (alphas,) each."""

    chunks: Ints  # kept whole
    ms: Ints  # of these chunks
    salvaged_ms: Ints  # of segments of other chunks


@dataclass(slots=True)
class SweepSums:
    """Chunks and milliseconds by verdict, and curves over α."""

    # (statuses, reasons), by the codes of `k2d.filtering.policy.decide`
    chunks: Ints = field(default_factory=lambda: np.zeros((len(STATUSES), len(REASONS)), np.int64))
    ms: Ints = field(default_factory=lambda: np.zeros((len(STATUSES), len(REASONS)), np.int64))
    salvaged_chunks: int = 0  # chunks that are not kept whole, but some of whose segments are
    salvaged_ms: int = 0
    sample: float = 1.0  # share of the chunks in which salvage was counted; below 1 it is an estimate from these
    curves: dict[Metric, Curve] = field(default_factory=dict)


def sweep(
    parts: Iterable[PartColumns],
    policy: Policy,
    *,
    alphas: Sequence[float] = (),
    metrics: Sequence[Metric] = (),
    exact_up_to: int | None = None,
) -> SweepSums:
    """Apply a policy to all chunks of `parts`, and compute what other α and metrics would keep.

        sums = sweep(parts(lake, batch.id), policy, alphas=[0.2, 0.4], metrics=[Metric.EVIDENCE])
        sums.curves[Metric.EVIDENCE].ms  # milliseconds kept whole at 0.2 and at 0.4

    Args:
        alphas: ascending.
        metrics: a curve over `alphas` is computed for each, under the other rules of the policy. Evidence is left out
            if the policy has no weights.
        exact_up_to: if there are more chunks than this, salvage is estimated from every k-th part, with k such that
            about this many chunks are in them. None: always exact.
    """
    sums, grid = SweepSums(), np.asarray(alphas, np.float64)
    wanted = [metric for metric in metrics if metric is not Metric.EVIDENCE or policy.weights is not None]
    judged = in_threads(lambda part: _judge(part, policy, grid, wanted), parts)
    for part in judged:
        codes = part.decision.status * np.int8(len(REASONS)) + part.decision.reason  # below 3 × 17, fits int8
        sums.chunks += binned(codes, _CODES).reshape(sums.chunks.shape)
        sums.ms += binned(codes, _CODES, part.ms).reshape(sums.ms.shape)
        for metric, first in part.first.items():
            curve = sums.curves.setdefault(metric, Curve(*(np.zeros(len(grid), np.int64) for _ in range(3))))
            curve.chunks += np.cumsum(binned(first, len(grid) + 1))[:-1]
            curve.ms += np.cumsum(binned(first, len(grid) + 1, part.ms))[:-1]
    if policy.salvage:
        _add_salvage(sums, [part.part for part in judged], policy, grid, exact_up_to)
    return sums


@dataclass(frozen=True, slots=True)
class _PartVerdicts:
    """The verdicts on one part's chunks."""

    part: PartColumns
    decision: Decision
    ms: npt.NDArray[np.int32]  # (chunks,)
    first: dict[Metric, npt.NDArray[np.integer[Any]]]  # (chunks,): index of the first α that keeps each chunk


def _judge(part: PartColumns, policy: Policy, alphas: Floats, metrics: Sequence[Metric]) -> _PartVerdicts:
    columns = part.chunks
    decision = decide(policy, {name: columns[name] for name in policy_columns(policy)})
    first = {
        metric: first_kept(least_alpha(policy.varied(metric=metric), columns), alphas)
        for metric in dict.fromkeys(metrics)
    }
    return _PartVerdicts(part, decision, columns["ms"], first)


def _add_salvage(
    sums: SweepSums, parts: Sequence[PartColumns], policy: Policy, alphas: Floats, exact_up_to: int | None
) -> None:
    """Count what is salvaged in all parts, or extrapolate from some of them in proportion to their chunks."""
    total = int(sums.chunks.sum())
    step = 1 if exact_up_to is None or not total else max(1, -(-total // exact_up_to))
    sample = parts[:: max(1, min(step, len(parts)))]
    curve = sums.curves.get(Metric.EVIDENCE)
    counted = in_threads(lambda part: _salvage(part, policy, alphas if curve is not None else None), sample)
    seen = sum(part.chunks for part in counted)
    sums.sample = seen / total if total else 1.0
    scale = 1.0 if len(sample) == len(parts) else total / max(1, seen)
    sums.salvaged_chunks = round(scale * sum(part.salvaged_chunks for part in counted))
    sums.salvaged_ms = round(scale * sum(part.salvaged_ms for part in counted))
    if curve is not None:
        curve.salvaged_ms += np.rint(scale * sum((part.curve_ms for part in counted), np.zeros(len(alphas)))).astype(
            np.int64
        )


@dataclass(frozen=True, slots=True)
class _PartSalvage:
    """What is salvaged in one part."""

    chunks: int  # all chunks of the part
    salvaged_chunks: int
    salvaged_ms: int
    curve_ms: Ints  # (alphas,): milliseconds salvaged at each α


def _salvage(part: PartColumns, policy: Policy, alphas: Floats | None) -> _PartSalvage:
    least = thresholds(policy, part, alpha=policy.alpha if alphas is None else None)
    ms = salvaged_ms(part.segments, least, policy.alpha)
    curve_ms = np.empty(0, np.int64) if alphas is None else salvage_curve(part.segments, least, alphas)
    return _PartSalvage(len(least.chunks), int(np.count_nonzero(ms)), int(ms.sum()), curve_ms)


def salvaged_ms(segments: Columns, least: Thresholds, alpha: float) -> Ints:
    """Compute the milliseconds salvaged of each chunk at α, shape (chunks,), without pauses between segments."""
    rows = least.salvaged(alpha)
    ms = np.bincount(segments["chunk"][rows], segments["ms"][rows], minlength=len(least.chunks))
    return ms.astype(np.int64)


def salvage_curve(segments: Columns, least: Thresholds, alphas: Floats) -> Ints:
    """Compute the milliseconds salvaged at each α, shape (alphas,)."""
    first, until = first_kept(least.segments, alphas), first_kept(least.chunks, alphas)[least.chunk]
    rows = np.flatnonzero(first < until)  # from `until` on, the whole chunk is kept
    ms, bins = segments["ms"][rows], len(alphas) + 1
    return np.cumsum(binned(first[rows], bins, ms) - binned(until[rows], bins, ms))[:-1]


def first_kept(least: npt.NDArray[Any], alphas: Floats) -> npt.NDArray[np.integer[Any]]:
    """The index of the first of the ascending alphas that keeps each row; len(alphas) where none does.

    For few alphas, one vectorised pass for each is five times faster than a search for each row. An α is compared in
    the precision of the thresholds, like in `decide`.
    """
    if len(alphas) > FEW_ALPHAS:
        return np.searchsorted(alphas.astype(least.dtype), least, side="left")
    first = np.zeros(len(least), np.int8)
    for alpha in alphas.astype(least.dtype):
        first += (least > alpha).view(np.int8)
    return first


def binned(codes: npt.NDArray[Any], bins: int, ms: npt.NDArray[np.int32] | None = None) -> Ints:
    """The number of rows, or their milliseconds, by code. Sums of milliseconds are exact in float64 up to 2^53."""
    return np.bincount(codes, ms, minlength=bins).astype(np.int64)


def in_threads(function: Callable[[Any], _T], items: Iterable[Any]) -> list[_T]:
    """Apply a function in threads; results in order. NumPy releases the GIL, so threads use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sweep") as pool:
        return list(pool.map(function, items))

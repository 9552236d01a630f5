"""Confidence bands by resampling whole recordings. Pure numpy, seeded."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COVERED: Final = 0.95  # share of the draws that a band covers
_LEAST: Final = 2  # recordings to draw from: one says nothing about others
_WEIGHTS: Final = 4_000_000  # in memory at once, at most: 32 MB


@dataclass(frozen=True, slots=True)
class Band:
    """A figure and the range of 95 % of the resampled sets.

    None: there is nothing to divide by. The range is None also for a single recording, which says nothing about others.
    """

    value: float | None
    low: float | None
    high: float | None


def sum_by_recording(values: Array, recordings: Sequence[Hashable]) -> Array:
    """Sum the rows of utterances of one recording, which are not independent of one another.

        sum_by_recording(np.array([[1.0], [2.0], [3.0]]), ["a", "b", "a"])  # [[4.0], [2.0]]

    Args:
        values: shape (utterances, …).
        recordings: of each utterance.

    Returns:
        Shape (recordings, …), in order of first appearance.
    """
    numbers: dict[Hashable, int] = {}
    rows = [numbers.setdefault(recording, len(numbers)) for recording in recordings]
    summed: Array = np.zeros((len(numbers), *values.shape[1:]))
    np.add.at(summed, rows, values)
    return summed


def resample_rates(edits: Array, tokens: Array, *, draws: int, seed: int) -> Array:
    """Rates of `draws` sets of as many recordings, drawn with replacement; the same draws for all columns.

        rates = resample_rates(edits, tokens, draws=1000, seed=0)
        band(pooled_rates(edits, tokens)[0], rates[:, 0])

    Args:
        edits: shape (recordings, columns); a column is a metric of a model.
        tokens: reference tokens, of the same shape.

    Returns:
        Shape (draws, columns); NaN where a drawn set has no reference token, and throughout for a single recording.
    """
    count = len(edits)
    random = np.random.default_rng(seed)
    rates = np.full((draws, edits.shape[1]), np.nan)
    if count < _LEAST:
        return rates
    step = max(1, _WEIGHTS // count)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        weights = random.multinomial(count, np.full(count, 1 / count), size=stop - start).astype(np.float64)
        rates[start:stop] = _divide(weights @ edits, weights @ tokens)
    return rates


def pooled_rates(edits: Array, tokens: Array) -> Array:
    """The rates of all recordings together, shape (columns,); NaN without reference tokens."""
    return _divide(edits.sum(axis=0), tokens.sum(axis=0))


def band(value: float, draws: Array) -> Band:
    """A figure with the percentile range of its draws, shape (draws,)."""
    if np.isnan(value) or np.isnan(draws).all():
        return Band(None if np.isnan(value) else float(value), None, None)
    tail = (1 - COVERED) / 2
    low, high = np.nanquantile(draws, (tail, 1 - tail))
    return Band(float(value), float(low), float(high))


def _divide(edits: Array, tokens: Array) -> Array:
    rates: Array = np.full(edits.shape, np.nan)
    np.divide(edits, tokens, out=rates, where=tokens > 0)
    return rates

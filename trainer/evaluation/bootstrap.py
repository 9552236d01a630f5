"""Confidence bands by resampling whole recordings. Pure numpy, seeded."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COVERED = 0.95  # of a band
_LEAST = 2  # recordings to draw from
_WEIGHTS = 4_000_000  # most of them in memory at once: 32 MB


@dataclass(frozen=True, slots=True)
class Band:
    """A figure and the range that 95 % of the resampled sets give.

    None: nothing to divide by; as a range also: a single recording, which says nothing about others.
    """

    value: float | None
    low: float | None
    high: float | None


def by_recording(values: Array, recordings: Sequence[Hashable]) -> Array:
    """Sum the rows of utterances that come from one recording; they are not independent.

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


def resampled(edits: Array, tokens: Array, *, draws: int, seed: int) -> Array:
    """Rates over `draws` sets of as many recordings, drawn with replacement; equal draws for all columns.

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


def point(edits: Array, tokens: Array) -> Array:
    """The rates themselves, shape (columns,); NaN without reference tokens."""
    return _divide(edits.sum(axis=0), tokens.sum(axis=0))


def band(value: float, draws: Array) -> Band:
    """The percentile band of one column of draws."""
    if np.isnan(value) or np.isnan(draws).all():
        return Band(None if np.isnan(value) else float(value), None, None)
    tail = (1 - COVERED) / 2
    low, high = np.nanquantile(draws, (tail, 1 - tail))
    return Band(float(value), float(low), float(high))


def _divide(edits: Array, tokens: Array) -> Array:
    rates: Array = np.full(edits.shape, np.nan)
    np.divide(edits, tokens, out=rates, where=tokens > 0)
    return rates

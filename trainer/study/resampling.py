"""Figures with their bands: every filter judged over the same draws, so that differences are paired."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.bootstrap import Band, band
from trainer.study.table import Floats, Labels

_LEAST_GROUPS = 2  # fewer say nothing about others
_WEIGHTS = 2_000_000  # most in memory at once: 16 MB


@dataclass(frozen=True, slots=True)
class How:
    """What can be chosen about the bootstrap."""

    draws: int = 1000
    seed: int = 0


def weightings(labels: Labels, how: How) -> Iterator[Floats]:
    """How often each label counts, a block of draws at a time: shape (draws of the block, labels).

    The first row of the first block is all ones: the figure itself. Then follow `how.draws` draws of as many groups as
    there are, with replacement; a group's labels come together. A single group gives no draw.
    """
    yield np.ones((1, len(labels)))
    count = int(labels.groups.max()) + 1 if len(labels) else 0
    present = np.unique(labels.groups)
    if len(present) < _LEAST_GROUPS:
        return
    random = np.random.default_rng(how.seed)
    step = max(1, _WEIGHTS // max(count, len(labels)))
    for start in range(0, how.draws, step):
        rows = min(step, how.draws - start)
        drawn = random.multinomial(len(present), np.full(len(present), 1 / len(present)), size=rows)
        weights = np.zeros((rows, count))
        weights[:, present] = drawn
        yield weights[:, labels.groups]


def banded(values: Floats) -> Band:
    """The figure (first entry) with the range of its draws (the others); shape (1 + draws,)."""
    return band(float(values[0]), values[1:])


@dataclass(frozen=True, slots=True)
class Pair:
    """One filter against another, drawn together."""

    difference: Band  # first minus second
    ratio: Band  # first over second
    below: float | None  # share of draws in which the first is smaller

    @property
    def clear(self) -> bool:
        """Whether the first is smaller by more than the band."""
        return self.difference.high is not None and self.difference.high < 0


def paired(first: Floats, second: Floats) -> Pair:
    """Compare two figures of shape (1 + draws,), draw by draw."""
    difference = first - second
    ratio = np.full(len(first), np.nan)
    np.divide(first, second, out=ratio, where=second > 0)
    draws = difference[1:][~np.isnan(difference[1:])]
    return Pair(banded(difference), banded(ratio), float((draws < 0).mean()) if len(draws) else None)

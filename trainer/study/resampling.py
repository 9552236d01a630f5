"""Figures with their bands: every filter is judged over the same draws, so that differences are paired."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.evaluation.bootstrap import Band, band
from trainer.study.table import Floats, LabelTable

_LEAST_GROUPS: Final = 2  # one says nothing about others
_WEIGHTS: Final = 2_000_000  # in memory at once, at most: 16 MB


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """What can be chosen about the bootstrap."""

    draws: int = 1000
    seed: int = 0


def weightings(labels: LabelTable, options: BootstrapOptions) -> Iterator[Floats]:
    """How often each label counts, a block of draws at a time: shape (draws of the block, labels).

    The first row of the first block is all ones: the figure itself. Then follow `options.draws` draws of as many groups
    as there are, with replacement; a group's labels come together. A single group gives no draw.

        figures = np.concatenate([weights @ labels.edits for weights in weightings(labels, BootstrapOptions())])
        figure_with_band(figures)
    """
    yield np.ones((1, len(labels)))
    count = int(labels.groups.max()) + 1 if len(labels) else 0
    present = np.unique(labels.groups)
    if len(present) < _LEAST_GROUPS:
        return
    random = np.random.default_rng(options.seed)
    step = max(1, _WEIGHTS // max(count, len(labels)))
    for start in range(0, options.draws, step):
        rows = min(step, options.draws - start)
        drawn = random.multinomial(len(present), np.full(len(present), 1 / len(present)), size=rows)
        weights = np.zeros((rows, count))
        weights[:, present] = drawn
        yield weights[:, labels.groups]


def figure_with_band(values: Floats) -> Band:
    """The figure (first entry) with the range of its draws (the others); shape (1 + draws,)."""
    return band(float(values[0]), values[1:])


@dataclass(frozen=True, slots=True)
class PairedFigures:
    """One filter against another, over the same draws."""

    difference: Band  # first minus second
    ratio: Band  # first over second
    below: float | None  # share of draws in which the first is smaller

    @property
    def is_clear(self) -> bool:
        """Whether the first is smaller by more than the band."""
        return self.difference.high is not None and self.difference.high < 0


def compare_draws(first: Floats, second: Floats) -> PairedFigures:
    """Compare two figures of shape (1 + draws,), draw by draw."""
    difference = first - second
    ratio = np.full(len(first), np.nan)
    np.divide(first, second, out=ratio, where=second > 0)
    draws = difference[1:][~np.isnan(difference[1:])]
    below = float((draws < 0).mean()) if len(draws) else None
    return PairedFigures(figure_with_band(difference), figure_with_band(ratio), below)

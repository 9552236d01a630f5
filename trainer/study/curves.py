"""How good a ranking of labels is: risk–coverage curves, areas, AUC. Pure numpy, over many weightings at once.

A weighting counts every label some number of times: once each for the figure itself, as often as it was drawn for a
bootstrap draw. `weights` has shape (draws, labels) everywhere.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trainer.study.table import Flags, Floats

POINTS: Final = 500  # of the midpoint rule under a curve
GRID: Final[Floats] = (np.arange(POINTS) + 0.5) / POINTS  # shares of hours kept


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Labels in order of a filter's score, best first."""

    order: npt.NDArray[np.int64]  # shape (labels,)
    starts: npt.NDArray[np.int64]  # first place of each stretch of equal scores, shape (stretches,)

    def sum_stretches(self, values: Floats) -> Floats:
        """Sum values of shape (draws, labels) over stretches of equal scores: shape (draws, stretches)."""
        sums: Floats = np.add.reduceat(values[:, self.order], self.starts, axis=1)
        return sums


def rank(score: Floats, rejected: Flags | None = None) -> Ranking:
    """Sort labels by score, least first. Rejected ones, and those whose score is NaN, are last and equal.

    rank(np.array([0.1, 0.9, 0.5])).order  # [0, 2, 1]
    """
    key = np.where(np.isnan(score), np.inf, score)
    if rejected is not None:
        key = np.where(rejected, np.inf, key)
    order = np.argsort(key, kind="stable")
    in_order = key[order]
    changes = np.concatenate(([True], in_order[1:] != in_order[:-1])) if len(in_order) else np.empty(0)
    return Ranking(order, np.flatnonzero(changes).astype(np.int64))


def rate(edits: Floats, tokens: Floats) -> Floats:
    """Label MER of a group: edits over reference tokens. A reference without tokens counts as one."""
    return edits / np.maximum(tokens, 1.0)


def risk(
    ranking: Ranking,
    weights: Floats,
    *,
    seconds: Floats,
    edits: Floats,
    tokens: Floats,
    shares: Floats = GRID,
) -> Floats:
    """Label MER of what is kept when the best `shares` of all seconds are kept: shape (draws, shares).

    Labels of equal score are kept together, each by the same part: between two stretches, seconds, edits and tokens
    grow in proportion. So the curve of a filter that scores all labels alike is flat, at the MER of all labels.
    """
    draws = len(weights)
    parts = [ranking.sum_stretches(weights * values) for values in (seconds, edits, tokens)]
    # (draws, stretches + 1) each: what the best stretches hold together
    cumulated = [np.concatenate((np.zeros((draws, 1)), np.cumsum(part, axis=1)), axis=1) for part in parts]
    covered = cumulated[0] / np.maximum(cumulated[0][:, -1:], 1e-12)
    # one interpolation for all draws: each draw's range 0…1 is moved to a range of its own
    offsets = 2.0 * np.arange(draws)[:, None]
    at, known = (shares[None, :] + offsets).ravel(), (covered + offsets).ravel()
    kept = [np.interp(at, known, values.ravel()).reshape(draws, -1) for values in cumulated[1:]]
    # before the first stretch is whole there may be less than a token: its own MER is taken
    first = (cumulated[0] > 0).argmax(axis=1)[:, None]
    first_end, first_edits, first_tokens = (
        np.take_along_axis(values, first, axis=1) for values in (covered, cumulated[1], cumulated[2])
    )
    return np.where(shares[None, :] <= first_end, rate(first_edits, first_tokens), rate(kept[0], kept[1]))


def area(curve: Floats) -> Floats:
    """The mean height of curves over GRID, which is the area under them from 0 to 1: shape (draws,)."""
    mean: Floats = curve.mean(axis=-1)
    return mean


def auc(ranking: Ranking, weights: Floats, bad: Flags) -> Floats:
    """How often a bad label ranks behind a good one, equal scores half: shape (draws,); NaN without a pair."""
    worse, better = ranking.sum_stretches(weights * bad), ranking.sum_stretches(weights * ~bad)
    before = np.cumsum(better, axis=1) - better / 2
    pairs = worse.sum(axis=1) * better.sum(axis=1)
    return divide((worse * before).sum(axis=1), pairs)


def divide(part: Floats, whole: Floats) -> Floats:
    """part / whole; NaN where there is nothing to divide by."""
    part, whole = np.broadcast_arrays(part, whole)
    quotients: Floats = np.full(part.shape, np.nan)
    np.divide(part, whole, out=quotients, where=whole > 0)
    return quotients

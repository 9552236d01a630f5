"""What a ranking of labels is worth: risk–coverage curves, areas, AUC. Pure numpy, over many weightings at once.

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
    """Labels from the one a filter trusts most to the one it trusts least."""

    order: npt.NDArray[np.int64]  # shape (labels,)
    starts: npt.NDArray[np.int64]  # first place of each stretch of equal scores, shape (stretches,)

    def summed(self, values: Floats) -> Floats:
        """Sum values of shape (draws, labels) over stretches of equal scores: shape (draws, stretches)."""
        found: Floats = np.add.reduceat(values[:, self.order], self.starts, axis=1)
        return found


def rank(score: Floats, rejected: Flags | None = None) -> Ranking:
    """Sort labels by score, least first. Rejected ones, and those whose score is no number, are last and equal."""
    key = np.where(np.isnan(score), np.inf, score)
    if rejected is not None:
        key = np.where(rejected, np.inf, key)
    order = np.argsort(key, kind="stable")
    ranked = key[order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1]))) if len(ranked) else np.empty(0)
    return Ranking(order, starts.astype(np.int64))


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
    parts = [ranking.summed(weights * values) for values in (seconds, edits, tokens)]
    cumulated = [np.concatenate((np.zeros((draws, 1)), np.cumsum(part, axis=1)), axis=1) for part in parts]
    covered = cumulated[0] / np.maximum(cumulated[0][:, -1:], 1e-12)
    # one interpolation for all draws: each draw's 0…1 is moved to a place of its own
    places = 2.0 * np.arange(draws)[:, None]
    wanted, known = (shares[None, :] + places).ravel(), (covered + places).ravel()
    kept = [np.interp(wanted, known, values.ravel()).reshape(draws, -1) for values in cumulated[1:]]
    # before the first stretch is whole there may be less than a token; its own MER counts
    first = (cumulated[0] > 0).argmax(axis=1)[:, None]
    end, edits_1, tokens_1 = (
        np.take_along_axis(values, first, axis=1) for values in (covered, cumulated[1], cumulated[2])
    )
    return np.where(shares[None, :] <= end, rate(edits_1, tokens_1), rate(kept[0], kept[1]))


def area(curve: Floats) -> Floats:
    """The mean height of curves over GRID, which is the area under them from 0 to 1: shape (draws,)."""
    found: Floats = curve.mean(axis=-1)
    return found


def auc(ranking: Ranking, weights: Floats, bad: Flags) -> Floats:
    """How often a bad label is ranked behind a good one, equal scores half: shape (draws,); NaN without a pair."""
    worse, better = ranking.summed(weights * bad), ranking.summed(weights * ~bad)
    before = np.cumsum(better, axis=1) - better / 2
    pairs = worse.sum(axis=1) * better.sum(axis=1)
    return divided((worse * before).sum(axis=1), pairs)


def divided(part: Floats, whole: Floats) -> Floats:
    """part / whole; NaN where there is nothing to divide by."""
    part, whole = np.broadcast_arrays(part, whole)
    found: Floats = np.full(part.shape, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found

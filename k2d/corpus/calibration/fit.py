"""Fits the weights of the risk to reviewed labels: logistic regression with non-negative weights near the preset's.

The targets are fractions: the share of a label that is wrong (edits over the longer of label and reference, 0…1). A
ridge penalty pulls each weight towards the preset's, in units of its feature's standard deviation. Its strength is
chosen by cross-fitting: each review is predicted by weights that were fitted without it. If no strength predicts better
than the preset's weights by more than one standard error, the preset's weights are kept.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.calibration.draw import Floats
from k2d.filtering.policy import FEATURES, Weights

# All constants are chosen.
PULLS: Final = (1.0, 3.0, 10.0, 30.0, 100.0)  # strengths of the ridge: as if so many reviews agreed with the preset
FOLDS: Final = 5
ROUNDS: Final = 100  # most iterations of projected Newton; it converges much earlier
LEAST_SPREAD: Final = 1e-3  # a feature with a smaller standard deviation in the reviews keeps the preset's weight


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of a fit."""

    weights: Weights
    fitted: bool  # False: the preset's weights were kept
    loss: float  # cross-fitted log loss per review, of the chosen weights
    preset_loss: float  # the same for the preset's weights


def fit(features: Floats, wrong: Floats, weight: Floats, preset: Weights) -> Fit:
    """Fit the weights to reviews.

        fit(features(policy, columns), wrong, weight, policy.weights).weights

    Args:
        features: shape (reviews, len(FEATURES)).
        wrong: the share of each label that is wrong, shape (reviews,).
        weight: of each review, shape (reviews,).
        preset: the weights to start from and to stay near.

    Reviews must be in random order, since folds are taken by position.
    """
    x = np.column_stack([np.ones(len(features)), features]).astype(np.float64)
    start = np.array([preset.bias, *(getattr(preset, name) for name in FEATURES)])
    w = weight / weight.mean()
    spread = np.sqrt(np.average((x - np.average(x, axis=0, weights=w)) ** 2, axis=0, weights=w))
    spread[0] = 1.0
    before = _losses(x @ start, wrong) * w
    best, best_pull = before, None
    for pull in PULLS:
        after = _cross_fitted(x, wrong, w, start, pull * np.maximum(spread, LEAST_SPREAD) ** 2)
        gain = before - after
        chance = float(gain.std(ddof=1)) / np.sqrt(len(gain))
        if after.mean() < best.mean() and gain.mean() > chance:
            best, best_pull = after, pull
    preset_loss = float(before.mean())
    if best_pull is None:
        return Fit(preset, fitted=False, loss=preset_loss, preset_loss=preset_loss)
    beta = minimise(x, wrong, w, start, best_pull * np.maximum(spread, LEAST_SPREAD) ** 2)
    beta[1:] = np.where(spread[1:] < LEAST_SPREAD, start[1:], beta[1:])
    bias, *rest = (round(float(value), 4) for value in beta)
    weights = Weights(bias=bias, **dict(zip(FEATURES, rest, strict=True)))
    return Fit(weights, fitted=True, loss=float(best.mean()), preset_loss=preset_loss)


def minimise(x: Floats, wrong: Floats, weight: Floats, start: Floats, pull: Floats) -> Floats:
    """Minimise Σ weight × log loss + ½ Σ pull × (β - start)² over β with β[1:] ≥ 0; shape (1 + features,).

    By projected Newton (Bertsekas, 1982): coefficients at 0 whose gradient would make them negative stay there, the
    others take a Newton step, which is halved until the objective decreases.
    """
    free_sign = np.arange(len(start)) == 0
    beta = start.copy()
    value = _objective(x, wrong, weight, beta, start, pull)
    for _ in range(ROUNDS):
        p = _probability(x @ beta)
        slope = x.T @ (weight * (p - wrong)) + pull * (beta - start)
        held = ~free_sign & (beta <= 0) & (slope > 0)
        curve = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(pull + 1e-9)
        step = np.zeros_like(beta)
        step[~held] = np.linalg.solve(curve[np.ix_(~held, ~held)], slope[~held])
        size = 1.0
        while size > 1e-8:
            tried = beta - size * step
            tried = np.where(free_sign, tried, np.maximum(tried, 0.0))
            new = _objective(x, wrong, weight, tried, start, pull)
            if new < value - 1e-12:
                break
            size /= 2
        else:
            return beta
        if value - new < 1e-10 * max(1.0, abs(value)):
            return tried
        beta, value = tried, new
    return beta


def _cross_fitted(x: Floats, wrong: Floats, weight: Floats, start: Floats, pull: Floats) -> Floats:
    """The weighted loss of each review under coefficients that were fitted on the other folds; shape (reviews,)."""
    losses = np.empty(len(x))
    fold = np.arange(len(x)) % FOLDS
    for number in range(FOLDS):
        rest = fold != number
        beta = minimise(x[rest], wrong[rest], weight[rest], start, pull)
        losses[~rest] = _losses(x[~rest] @ beta, wrong[~rest])
    return losses * weight


def _objective(x: Floats, wrong: Floats, weight: Floats, beta: Floats, start: Floats, pull: Floats) -> float:
    return float(weight @ _losses(x @ beta, wrong) + 0.5 * pull @ (beta - start) ** 2)


def _losses(odds: Floats, wrong: Floats) -> npt.NDArray[np.float64]:
    """The log loss -wrong × log p - (1 - wrong) × log(1 - p), where p is the logistic function of `odds`."""
    return np.asarray(np.logaddexp(0.0, odds) - wrong * odds, np.float64)


def _probability(odds: Floats) -> npt.NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -30.0, 30.0))), np.float64)

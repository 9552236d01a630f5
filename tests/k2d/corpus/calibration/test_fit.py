"""Weights are monotone, near the preset, and moved only by what predicts."""

import numpy as np
import pytest

from k2d.corpus.calibration.fit import fit, minimise
from k2d.filtering.policy import DEFAULT, FEATURES, Weights

PRESET = Weights(bias=-4.0, disagreement=6.0, forced_logprob=1.0, avg_logprob=1.0)
NAMES = tuple(FEATURES)


def reviews(rng, count, *, true):
    x = np.abs(rng.normal(0, 0.3, (count, len(NAMES))))
    odds = true[0] + x @ true[1:]
    return x.astype(np.float32), rng.binomial(12, 1 / (1 + np.exp(-odds))) / 12


def weighed(bias, **weights):
    return np.array([bias, *(weights.get(name, 0.0) for name in NAMES)])


def test_reviews_that_contradict_the_preset_move_the_weights():
    rng = np.random.default_rng(0)
    x, wrong = reviews(rng, 1500, true=weighed(-3.0, disagreement=2.0, avg_logprob=6.0))
    found = fit(x, wrong, np.ones(len(x)), PRESET)
    assert found.fitted
    assert found.loss < found.preset_loss
    assert found.weights.avg_logprob == pytest.approx(6.0, abs=1.2)
    assert found.weights.disagreement == pytest.approx(2.0, abs=1.2)


def test_reviews_as_the_preset_predicts_them_leave_it():
    rng = np.random.default_rng(1)
    x, wrong = reviews(rng, 300, true=np.array([PRESET.bias, *(getattr(PRESET, n) for n in NAMES)]))
    found = fit(x, wrong, np.ones(len(x)), PRESET)
    assert not found.fitted or abs(found.weights.disagreement - PRESET.disagreement) < 1.0
    few = fit(x[:50], rng.permutation(wrong[:50]) * 0, np.ones(50), PRESET)  # all correct: nothing to learn from
    assert few.weights.disagreement >= 0


@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_is_one_and_no_weight_is_negative(seed):
    """Against the conditions of Karush, Kuhn and Tucker: free weights have no slope, held ones want to be negative."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(200), np.abs(rng.normal(0, 1, (200, 6)))])
    wrong, weight = rng.random(200), rng.uniform(0.5, 1.1, 200)
    start, pull = np.array([-4.0, 6, 1, 1, 0, 0, 0]), np.full(7, 0.5)
    beta = minimise(x, wrong, weight, start, pull)
    slope = x.T @ (weight * (1 / (1 + np.exp(-x @ beta)) - wrong)) + pull * (beta - start)
    assert (beta[1:] >= 0).all()
    assert np.abs(slope[(beta > 0) | (np.arange(7) == 0)]).max() < 1e-3
    assert (slope[1:][beta[1:] == 0] >= -1e-6).all()


def test_a_feature_that_never_moves_keeps_its_weight():
    rng = np.random.default_rng(4)
    x, wrong = reviews(rng, 800, true=weighed(-2.0, disagreement=1.0, forced_logprob=5.0))
    x[:, NAMES.index("avg_logprob")] = 0.25
    assert fit(x, wrong, np.ones(len(x)), PRESET).weights.avg_logprob == PRESET.avg_logprob


def test_the_shipped_preset_can_be_fitted():
    assert DEFAULT.weights is not None
    assert set(Weights.model_fields) == {"bias", *FEATURES}

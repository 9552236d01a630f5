"""The bound holds at its stated level: a thousand draws from worlds whose truth is known."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2d.corpus.calibration.bound import ReviewedDraws, band, needed, proved, rates
from k2d.corpus.calibration.calibrate import _curve
from k2d.corpus.calibration.draw import MOST_WEIGHT, STRATA, chances_of
from k2d.corpus.calibration.rates import STEPS, SecondsKept

ALPHAS = np.linspace(0.1, 1.0, 12)
CONFIDENCE, TARGET = 0.95, 0.08
SEGMENTS, DRAWS, REVIEWS, PILOT = 3000, 1000, 400, 100
LEVEL = 1 - CONFIDENCE
SOMETIMES = LEVEL + 3 * np.sqrt(LEVEL * CONFIDENCE / DRAWS)  # three standard deviations above the stated level


def world(kind: str, rng: np.random.Generator) -> ReviewedDraws:
    """Every segment of a corpus, with its true edits."""
    tokens = rng.integers(3, 40, SEGMENTS).astype(float)
    size = np.maximum(tokens * rng.uniform(1.0, 1.5, SEGMENTS), 1.0)
    quality = rng.random(SEGMENTS)  # the truth behind the risk
    risk = np.clip(quality + rng.normal(0, 0.1, SEGMENTS), 0.001, 0.999)
    if kind == "total failures":  # most labels perfect, one in ten wholly wrong; a fifth of those looks fine
        failed = rng.random(SEGMENTS) < 0.1
        edits = np.where(failed, size, 0.0)
        risk = np.where(failed, np.where(rng.random(SEGMENTS) < 0.8, 0.9, risk), 0.8 * risk)
    elif kind == "mild noise":  # a few wrong tokens nearly everywhere, more where the risk is higher
        edits = rng.binomial(tokens.astype(int), 0.2 * quality).astype(float)
    elif kind == "uninformative":  # whole failures that no risk sees, just above the target: every claim is wrong
        edits = np.where(rng.random(SEGMENTS) < 1.15 * TARGET, tokens, 0.0)
        risk = rng.random(SEGMENTS)
    else:  # "cliff": perfect below a risk of a half; with all that lies above, just above the target
        edits = np.where(quality > 0.5, np.where(rng.random(SEGMENTS) < 2.3 * TARGET, tokens, 0.0), 0.0)
        risk = quality
    return ReviewedDraws(np.minimum(edits, size), tokens, size, np.ones(SEGMENTS), risk.astype(np.float32))


class Draws:
    """Draws as `k2d.corpus.calibration.draw` makes them: in proportion to size, some spread over strata of risk."""

    def __init__(self, truth: ReviewedDraws) -> None:
        stratum = np.digitize(truth.risk, STRATA)
        mass = np.bincount(stratum, truth.size, minlength=len(STRATA) + 1)
        chances, weights = chances_of(mass)
        self.truth, self.weights = truth, weights[stratum]
        self.ends = np.cumsum(chances[stratum] * truth.size / mass[stratum])

    def __call__(self, rng: np.random.Generator, count: int = REVIEWS) -> ReviewedDraws:
        rows = np.minimum(np.searchsorted(self.ends, rng.random(count)), len(self.ends) - 1)
        found = self.truth.take(rows)
        return ReviewedDraws(found.edits, found.tokens, found.size, self.weights[rows], found.risk)


def true_rates(truth: ReviewedDraws) -> np.ndarray:
    kept = truth.kept(ALPHAS)
    return (truth.edits[:, None] * kept).sum(0) / (truth.tokens[:, None] * kept).sum(0)


@pytest.mark.parametrize(
    ("kind", "least_claims"),
    [("total failures", 0.8), ("mild noise", 0.0), ("uninformative", 0.0), ("cliff", 0.8)],
)
def test_the_claim_is_wrong_no_more_often_than_it_says(kind, least_claims):
    rng = np.random.default_rng(7)
    truth = world(kind, rng)
    real, draws = true_rates(truth), Draws(truth)
    claims = violations = 0
    for _ in range(DRAWS):
        reviews = draws(rng)
        pilot, rest = reviews.take(slice(0, PILOT)), reviews.take(slice(PILOT, None))
        won = proved(rest, pilot, ALPHAS, target=TARGET, confidence=CONFIDENCE)
        claims += bool(len(won))
        violations += bool((real[won] > TARGET).any())
    assert violations / DRAWS <= SOMETIMES
    assert claims / DRAWS >= least_claims  # a bound that never claims anything is no use


def test_with_a_single_hypothesis_at_its_edge_the_level_is_nearly_used_up():
    """Rare whole failures, label error a hair above the target, one α: the worst case for a bound. It must be wrong
    sometimes, or this test could not fail; and no more often than it says."""
    rng = np.random.default_rng(3)
    rows = 20_000
    edits = np.where(np.arange(rows) < rows * (TARGET + 0.0005), 10.0, 0.0)
    truth = ReviewedDraws(
        edits, np.full(rows, 10.0), np.full(rows, 10.0), np.ones(rows), np.full(rows, 0.5, np.float32)
    )
    violations = 0
    for _ in range(DRAWS):
        reviews = truth.take(rng.integers(0, rows, 250))
        pilot, rest = reviews.take(slice(0, 50)), reviews.take(slice(50, None))
        violations += bool(len(proved(rest, pilot, np.array([1.0]), target=TARGET, confidence=CONFIDENCE)))
    assert 0 < violations / DRAWS <= SOMETIMES


def test_bands_cover_the_truth():
    rng = np.random.default_rng(11)
    truth = world("total failures", rng)
    draws, alphas = Draws(truth), ALPHAS[[2, 7, 11]]
    real = true_rates(truth)[[2, 7, 11]]
    outside = np.zeros(3, int)
    for _ in range(12):
        reviews = draws(rng)
        pilot, rest = reviews.take(slice(0, PILOT)), reviews.take(slice(PILOT, None))
        lower, upper = band(rest, pilot, alphas, confidence=CONFIDENCE, target=TARGET)
        assert (lower <= upper).all()
        assert (upper - lower < 0.2)[1:].all()  # it says something
        outside += (real > upper) | (real < lower)
    assert outside.max() <= 5  # both ends together are wrong in 10 % of the draws: 6 of 12 would be 1 in 2,000


@given(seed=st.integers(0, 2**32), edits=st.floats(0, 1), drift=st.floats(-0.5, 0.5), count=st.integers(20, 120))
@example(seed=1, edits=0.0, drift=0.5, count=120)  # perfect at first, then wrong: the first prove too much
@example(seed=1, edits=1.0, drift=-0.5, count=120)
@settings(max_examples=60)
def test_a_band_contains_its_own_estimate(seed: int, edits: float, drift: float, count: int) -> None:
    """Whatever the reviews are, also where the first of them say something else than the last."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 40, count).astype(float)
    wrong = rng.random(count) < np.clip(edits + drift * np.linspace(-1, 1, count), 0, 1)
    risk = rng.random(count).astype(np.float32)
    weight = rng.uniform(0.1, MOST_WEIGHT, count)
    reviews = ReviewedDraws(np.where(wrong, tokens, 0.0), tokens, tokens, weight, risk)
    pilot, rest = reviews.take(slice(0, count // 6)), reviews.take(slice(count // 6, None))
    lower, upper = band(rest, pilot, ALPHAS, confidence=CONFIDENCE, target=TARGET)
    estimates = rates(rest, ALPHAS)
    is_known = ~np.isnan(estimates)
    assert (lower <= upper).all()
    assert (lower[is_known] <= estimates[is_known]).all()
    assert (estimates[is_known] <= upper[is_known]).all()
    _, points = _curve(
        rest, pilot, ALPHAS, SecondsKept(np.linspace(0, 60, STEPS + 1), 60.0), target=TARGET, confidence=0.6
    )
    for point in points:
        assert point.label_mer is None or point.lower <= point.label_mer <= point.upper


def test_estimates_are_of_the_corpus_and_not_of_the_draws():
    rng = np.random.default_rng(5)
    truth = world("total failures", rng)
    estimated = rates(Draws(truth)(rng, 50_000), ALPHAS)
    np.testing.assert_allclose(estimated, true_rates(truth), atol=0.01)


def test_what_is_proved_is_more_with_more_reviews_and_never_without_any():
    rng = np.random.default_rng(2)
    draws = Draws(world("total failures", rng))
    few, many = draws(rng, 60), draws(rng, 3000)

    def reach(reviews, pilot=50):
        known, rest = reviews.take(slice(0, pilot)), reviews.take(slice(pilot, None))
        return len(proved(rest, known, ALPHAS, target=TARGET, confidence=CONFIDENCE))

    assert reach(few) == reach(few, pilot=60) == 0 < reach(many)
    wanted = needed(many, ALPHAS, target=TARGET, confidence=CONFIDENCE)
    assert wanted is not None
    assert 60 < wanted < 3000


def test_no_number_of_reviews_proves_what_is_not_so():
    rng = np.random.default_rng(2)
    bad = world("uninformative", rng)
    worse = ReviewedDraws(bad.tokens / 2, bad.tokens, bad.size, bad.weight, bad.risk)
    assert needed(Draws(worse)(rng), ALPHAS, target=TARGET, confidence=CONFIDENCE) is None


def test_weights_are_bounded_whatever_the_corpus():
    for mass in ([1, 0, 0], [1e9, 1, 1e-3], [1, 1, 1]):
        chances, weights = chances_of(np.array(mass, float))
        assert chances.sum() == pytest.approx(1)
        assert weights.max() <= MOST_WEIGHT
        assert (chances * weights).sum() == pytest.approx(1)  # a fair sample on average

"""What more reviews would prove: the estimates against what proofs took, in worlds whose truth is known."""

import numpy as np
import pytest
from test_bound import Draws, world

from k2d.corpus.calibration.bound import ReviewedDraws, proved
from k2d.corpus.calibration.outlook import ClaimOutlook, KeptHours, best_claim, outlook

ALPHAS = np.linspace(0.02, 1, 50)
PILOT = 75
WHOLE = {"target": 0.08, "confidence": 0.95}


def hours_of(truth: ReviewedDraws) -> KeptHours:
    kept = (truth.size[:, None] * truth.kept(ALPHAS)).sum(0)
    return KeptHours(tuple(ALPHAS), tuple(kept), float(truth.size.sum()))


def draws_for(draws: ReviewedDraws, hours: KeptHours, share: float) -> float:
    """The number of draws after which the claim is proved."""
    pilot = draws.take(slice(0, PILOT))
    for upto in range(90, len(draws), 30):
        won = proved(draws.take(slice(PILOT, upto)), pilot, ALPHAS, **WHOLE)
        if len(won) and hours.seconds[won[-1]] / hours.total_s >= share - 0.02:
            return upto
    return np.inf


@pytest.mark.parametrize(("kind", "least", "most"), [("total failures", 0.8, 2.0), ("cliff", 0.6, 2.0)])
def test_the_estimate_is_of_the_size_of_the_truth(kind, least, most):
    rng = np.random.default_rng(5)
    truth = world(kind, rng)
    draws, hours, ratios = Draws(truth), hours_of(truth), []
    for _ in range(9):
        whole = draws(rng, 1500)
        claim = best_claim(outlook(whole.take(slice(0, 120)), hours, pilot=PILOT, **WHOLE), 280)
        assert claim is not None
        ratios.append((120 + claim.more) / draws_for(whole, hours, claim.share))
    assert least <= np.median(ratios) <= most


def test_where_no_claim_is_true_none_is_promised_for_long():
    rng = np.random.default_rng(2)
    truth = world("uninformative", rng)
    many = Draws(truth)(rng, 3000)
    claims = outlook(many, hours_of(truth), pilot=PILOT, **WHOLE)
    assert all(claim.more > 500 for claim in claims)


def test_too_few_reviews_give_no_estimate():
    rng = np.random.default_rng(1)
    truth = world("cliff", rng)
    assert outlook(Draws(truth)(rng, 10), hours_of(truth), pilot=PILOT, **WHOLE) == []


def test_more_reviews_are_for_more_hours():
    rng = np.random.default_rng(3)
    truth = world("total failures", rng)
    claims = outlook(Draws(truth)(rng, 150), hours_of(truth), pilot=PILOT, **WHOLE)
    assert [own.more for own in claims] == sorted({own.more for own in claims})
    assert [own.share for own in claims] == sorted(own.share for own in claims)


def test_the_claim_to_work_for_is_within_reach_if_any_is():
    near, far = ClaimOutlook(0.5, 100), ClaimOutlook(0.9, 300)
    assert best_claim([near, far], 400) == far
    assert best_claim([near, far], 200) == near
    assert best_claim([near, far], 10) == near
    assert best_claim([], 10) is None

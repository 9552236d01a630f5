"""Estimates how many more reviews a claim takes, and for how much of the hours it would be.

The estimate supposes that the next reviews are like those so far, but that one of them, wherever it falls, is entirely
wrong: a hundred right labels are no promise of a thousand. It uses the policy's weights as they are; a calibration may
fit better ones. Nothing is proved by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.corpus.calibration.bound import STAKES, ReviewedDraws
from k2d.corpus.calibration.draw import MOST_WEIGHT, Floats

FEWEST: Final = 20  # reviewed draws; with fewer there is no estimate
# What spreading the capital over several stakes costs, in log capital, beside knowing the best one. Measured: the
# estimates of tests/k2d/corpus/calibration/test_outlook.py against the draws that a proof took.
SPREAD: Final = 1.0


@dataclass(frozen=True, slots=True)
class KeptHours:
    """The seconds that each α keeps; `alphas` are those that a calibration tests, ascending."""

    alphas: tuple[float, ...]
    seconds: tuple[float, ...]
    total_s: float


@dataclass(frozen=True, slots=True)
class ClaimOutlook:
    """With `more` reviews like these, the claim could be made for `share` of the hours."""

    share: float
    more: int  # reviewed draws; 0: it may be possible now


def outlook(
    reviewed: ReviewedDraws, hours: KeptHours, *, target: float, confidence: float, pilot: int
) -> list[ClaimOutlook]:
    """Estimate the claims that more reviews like these would allow, with their share of the hours and cost, ascending.

        outlook(reviewed, hours, target=0.08, confidence=0.95, pilot=100)[0].more  # 140

    Args:
        pilot: draws that do not count for the proof.

    Empty if there are too few reviews for an estimate, or none would do.
    """
    alphas = np.array(hours.alphas)
    if len(reviewed) < FEWEST or not len(alphas) or not hours.total_s:
        return []
    growth = _growth(reviewed, alphas, target)
    with np.errstate(divide="ignore"):
        need = np.where(growth > 0, (SPREAD - np.log(1 - confidence)) / np.maximum(growth, 1e-12), np.inf)
    found: list[ClaimOutlook] = []
    start = int(np.argmax(growth))
    # α are proved upwards from the easiest, so a larger one takes at least what those below it take
    for place, total in zip(range(start, len(alphas)), np.maximum.accumulate(need[start:]), strict=True):
        if not np.isfinite(total):
            break
        more = max(0, int(np.ceil(total)) + pilot - len(reviewed))
        found = [own for own in found if own.more < more]  # as many reviews prove more hours
        found.append(ClaimOutlook(round(hours.seconds[place] / hours.total_s, 4), more))
    return found


def best_claim(claims: Sequence[ClaimOutlook], left: int) -> ClaimOutlook | None:
    """The claim to work for: that with the most hours among those that `left` more reviews allow; else the nearest."""
    within = [claim for claim in claims if claim.more <= left]
    return within[-1] if within else next(iter(claims), None)


def _growth(reviewed: ReviewedDraws, alphas: Floats, target: float) -> Floats:
    """Log capital gained per draw at the best stake, for each α; shape (alphas,)."""
    stakes = STAKES / MOST_WEIGHT
    kept = reviewed.kept(alphas)
    earned = kept.T.astype(np.float64) @ np.log1p(-reviewed.excess(target)[:, None] * stakes)  # (alphas, stakes)
    failure = kept.mean(axis=0)[:, None] * np.log1p(-stakes)[None, :]  # of one draw, kept as often as the others
    return np.asarray(((earned + failure) / (len(reviewed) + 1)).max(axis=1), np.float64)

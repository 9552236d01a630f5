"""Upper bounds on the label error of what each α keeps, from reviewed draws.

The label error of what is kept is a ratio: edits over reference tokens, summed over all kept segments. It is at most t
exactly if the mean over the draws of X = weight × kept × (edits - t × tokens) / size is at most 0. X lies between
-t × MOST_WEIGHT and MOST_WEIGHT (`k2d.corpus.calibration.draw`).

The hypothesis "the mean is above 0" is tested by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2024). Staking a fixed share λ of the capital against X in each draw gives the capital
Π(1 - λX), whose expectation never exceeds 1 while the hypothesis holds. If it ever reaches 1 / δ, the hypothesis is
rejected at level δ (Ville's inequality), for any corpus and any number of reviews, and whenever the reviewer stops. The
capital is distributed over a grid of λ in proportion to what each λ would have earned on a pilot: reviews that are not
used for the test.

Several α are tested in a fixed sequence that is chosen on the pilot alone: upwards from the α that is easiest to prove
there, until one cannot be proved. All proved α then hold together (Angelopoulos et al., "Learn then Test", 2021).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.calibration.draw import MOST_WEIGHT, Floats

# All constants are chosen.
# Stakes, as shares of the largest stake that cannot lose more than the capital; denser where most proofs succeed.
STAKES: Final = np.array([0.02, 0.05, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.65, 0.8, 0.95])
FLOOR: Final = 0.1  # share of the capital that is distributed evenly, whatever the pilot says
MOST_LOG: Final = 600.0  # log of the largest capital: e^600 proves anything, and more would overflow
LEAST_RANGE: Final = 0.02  # keeps stakes finite where X has almost no range
TARGETS: Final = np.concatenate([[0.0], np.geomspace(0.002, 1.0, 56)])  # possible ends of a confidence band


@dataclass(frozen=True, slots=True, eq=False)
class ReviewedDraws:
    """Reviewed draws, shape (draws,) each. Edits and tokens are at most `size`."""

    edits: Floats
    tokens: Floats  # of the reference
    size: Floats
    weight: Floats
    risk: Floats  # the least α that keeps the segment

    def __len__(self) -> int:
        return len(self.edits)

    def take(self, rows: "slice | npt.NDArray[np.int64]") -> "ReviewedDraws":
        """Return some of the draws."""
        return ReviewedDraws(self.edits[rows], self.tokens[rows], self.size[rows], self.weight[rows], self.risk[rows])

    def kept(self, alphas: Floats) -> npt.NDArray[np.bool_]:
        """Return whether each α keeps each draw, shape (draws, alphas)."""
        kept: npt.NDArray[np.bool_] = np.less_equal(self.risk[:, None], np.asarray(alphas, np.float32)[None, :])
        return kept

    def excess(self, target: float) -> Floats:
        """Compute X of every draw, given that it is kept; shape (draws,)."""
        return np.asarray(self.weight * (self.edits - target * self.tokens) / self.size, np.float64)


def rates(reviews: ReviewedDraws, alphas: Floats) -> Floats:
    """Estimate the label error of what each α keeps, shape (alphas,); NaN where no reviewed segment is kept."""
    share = (reviews.weight / reviews.size)[:, None] * reviews.kept(alphas)
    edits, tokens = (share * reviews.edits[:, None]).sum(0), (share * reviews.tokens[:, None]).sum(0)
    return np.asarray(np.divide(edits, tokens, out=np.full(len(edits), np.nan), where=tokens > 0), np.float64)


def log_capital(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, target: float, upwards: bool = True
) -> Floats:
    """Compute the natural log of the largest capital reached in betting draw by draw, shape (alphas,).

    `upwards`: the bet is against a label error above `target`; otherwise against one below it.
    """
    sign, most = (1.0, MOST_WEIGHT) if upwards else (-1.0, MOST_WEIGHT * target)
    stakes = STAKES / max(most, LEAST_RANGE)
    believed = _earnings(pilot, alphas, sign * pilot.excess(target), stakes)
    spread = np.exp(believed - believed.max(axis=1, keepdims=True))
    spread = (1 - FLOOR) * spread / spread.sum(axis=1, keepdims=True) + FLOOR / len(stakes)
    capital = np.zeros((len(reviews) + 1, len(alphas)))
    kept = reviews.kept(alphas)
    steps = np.log1p(-sign * reviews.excess(target)[:, None] * stakes)
    for share, step in zip(spread.T, steps.T, strict=True):  # one stake at a time, so that arrays stay small
        capital[0] += share
        capital[1:] += share * np.exp(np.minimum(np.cumsum(step[:, None] * kept, axis=0), MOST_LOG))
    return np.asarray(np.log(capital.max(axis=0)), np.float64)


def proved(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, target: float, confidence: float
) -> npt.NDArray[np.int64]:
    """Find the α at which the label error of what is kept is proven to be at most `target`; ascending indices.

    With a probability of at least `confidence` over the draw of the reviews, this is true for all of them. `alphas`
    must be ascending and chosen without looking at `reviews`.
    """
    gains = _earnings(pilot, alphas, pilot.excess(target), STAKES / MOST_WEIGHT).max(axis=1)
    order = np.arange(int(np.argmax(gains)), len(alphas))
    won = log_capital(reviews, pilot, alphas[order], target=target) >= -np.log(1 - confidence)
    return order[: len(won) if won.all() else int(np.argmin(won))]


def band(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, confidence: float, target: float
) -> tuple[Floats, Floats]:
    """Compute lower and upper bounds on the label error of what each α keeps, shape (alphas,) each.

    Each bound holds with `confidence` for each α by itself. It is one of TARGETS or `target`, or the estimate (`rates`)
    where that is further out: a bet counts by the most it ever gained, so a bound may be won by the first reviews that
    the later ones speak against. An upper bound is 1 where no lower one can be proved.
    """
    ends = np.sort(np.append(TARGETS, target))
    need = -np.log(1 - confidence)
    upper, lower = np.ones(len(alphas)), np.zeros(len(alphas))
    above, below = np.ones(len(alphas), bool), np.ones(len(alphas), bool)
    for end in ends[::-1]:
        above &= log_capital(reviews, pilot, alphas, target=end) >= need
        upper[above] = end
    for end in ends:
        below &= log_capital(reviews, pilot, alphas, target=end, upwards=False) >= need
        lower[below] = end
    estimates = rates(reviews, alphas)
    return np.fmin(lower, estimates), np.fmax(upper, estimates)  # fmin, fmax: no estimate (NaN) changes nothing


def needed(reviews: ReviewedDraws, alphas: Floats, *, target: float, confidence: float) -> int | None:
    """Estimate how many reviews like these would prove `target` for some α; None if no number would."""
    gains = _earnings(reviews, alphas, reviews.excess(target), STAKES / MOST_WEIGHT)
    growth = float(gains.max()) / max(1, len(reviews))
    return None if growth <= 0 else int(np.ceil(-np.log(1 - confidence) / growth))


def _earnings(reviews: ReviewedDraws, alphas: Floats, excess: Floats, stakes: Floats) -> Floats:
    """Σ log(1 - λX) over the draws that each α keeps, shape (alphas, stakes)."""
    return np.asarray(reviews.kept(alphas).T.astype(np.float64) @ np.log1p(-excess[:, None] * stakes), np.float64)

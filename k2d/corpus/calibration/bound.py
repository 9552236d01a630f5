"""What reviews prove: an upper bound on the label error of what each α keeps. Pure arithmetic over reviewed draws.

The label error of what is kept is a ratio, edits over reference tokens of all kept segments together. "It is at most t"
is the same as "the mean of X = weight × kept × (edits - t × tokens) / size over the draws is at most 0", and X lies
between -t × MOST_WEIGHT and MOST_WEIGHT (`k2d.corpus.calibration.draw`). "The mean is above 0" is tested by betting
 (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024): a gambler who stakes
a fixed share λ of the capital against X has a capital Π(1 - λX) whose expectation never exceeds 1 while the hypothesis
holds, so a capital that ever reaches 1 / δ refutes it at level δ (Ville), for any corpus, any number of reviews, and
whenever the reviewer stops. The capital is spread over a grid of λ in proportion to what each would have earned on a
pilot, reviews that are not used again.

Several α are tried in a fixed sequence, chosen on the pilot alone: from the one the pilot finds easiest to prove
upwards, until one cannot be proved. Every α proved holds at once (Angelopoulos et al., "Learn then Test", 2021).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.calibration.draw import MOST_WEIGHT, Floats

# Stakes as shares of the largest that cannot lose more than all; close together where proofs are usually won.
STAKES: Final = np.array([0.02, 0.05, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.65, 0.8, 0.95])
FLOOR: Final = 0.1  # share of the capital that is spread evenly, whatever the pilot says
MOST_LOG: Final = 600.0  # a capital of e^600 proves anything: more would overflow
LEAST_RANGE: Final = 0.02  # stakes stay finite where nothing can be lost
TARGETS: Final = np.concatenate([[0.0], np.geomspace(0.002, 1.0, 56)])  # label errors at which a band can end


@dataclass(frozen=True, slots=True, eq=False)
class ReviewedDraws:
    """ReviewedDraws draws, shape (draws,) each. Edits and tokens are at most `size`."""

    edits: Floats
    tokens: Floats  # of the reference
    size: Floats
    weight: Floats
    risk: Floats  # least α that keeps it

    def __len__(self) -> int:
        return len(self.edits)

    def take(self, rows: "slice | npt.NDArray[np.int64]") -> "ReviewedDraws":
        return ReviewedDraws(self.edits[rows], self.tokens[rows], self.size[rows], self.weight[rows], self.risk[rows])

    def kept(self, alphas: Floats) -> npt.NDArray[np.bool_]:
        """What each α keeps, shape (draws, alphas)."""
        kept: npt.NDArray[np.bool_] = np.less_equal(self.risk[:, None], np.asarray(alphas, np.float32)[None, :])
        return kept

    def excess(self, target: float) -> Floats:
        """X of every draw as long as it is kept, shape (draws,)."""
        return np.asarray(self.weight * (self.edits - target * self.tokens) / self.size, np.float64)


def rates(reviews: ReviewedDraws, alphas: Floats) -> Floats:
    """Estimated label error of what each α keeps, shape (alphas,); NaN where no reviewed segment is kept."""
    share = (reviews.weight / reviews.size)[:, None] * reviews.kept(alphas)
    edits, tokens = (share * reviews.edits[:, None]).sum(0), (share * reviews.tokens[:, None]).sum(0)
    return np.asarray(np.divide(edits, tokens, out=np.full(len(edits), np.nan), where=tokens > 0), np.float64)


def log_capital(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, target: float, upwards: bool = True
) -> Floats:
    """Natural log of the most capital that betting review by review ever reaches, shape (alphas,).

    Upwards, the bet is against a label error above `target`; otherwise against one below.
    """
    sign, most = (1.0, MOST_WEIGHT) if upwards else (-1.0, MOST_WEIGHT * target)
    stakes = STAKES / max(most, LEAST_RANGE)
    believed = _earnings(pilot, alphas, sign * pilot.excess(target), stakes)
    spread = np.exp(believed - believed.max(axis=1, keepdims=True))
    spread = (1 - FLOOR) * spread / spread.sum(axis=1, keepdims=True) + FLOOR / len(stakes)
    capital = np.zeros((len(reviews) + 1, len(alphas)))
    kept = reviews.kept(alphas)
    steps = np.log1p(-sign * reviews.excess(target)[:, None] * stakes)
    for share, step in zip(spread.T, steps.T, strict=True):  # a stake at a time: the arrays stay small
        capital[0] += share
        capital[1:] += share * np.exp(np.minimum(np.cumsum(step[:, None] * kept, axis=0), MOST_LOG))
    return np.asarray(np.log(capital.max(axis=0)), np.float64)


def proved(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, target: float, confidence: float
) -> npt.NDArray[np.int64]:
    """The α (their places, ascending) at which the label error of what is kept is at most `target`.

    With a chance of at least `confidence` over the draw of the reviews, this holds for all of them. `alphas` ascend
    and were chosen without looking at `reviews`.
    """
    gains = _earnings(pilot, alphas, pilot.excess(target), STAKES / MOST_WEIGHT).max(axis=1)
    order = np.arange(int(np.argmax(gains)), len(alphas))
    won = log_capital(reviews, pilot, alphas[order], target=target) >= -np.log(1 - confidence)
    return order[: len(won) if won.all() else int(np.argmin(won))]


def band(
    reviews: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, *, confidence: float, target: float
) -> tuple[Floats, Floats]:
    """Bounds of the label error of what each α keeps, lower and upper, shape (alphas,) each.

    Each end is one of TARGETS or `target` and holds with `confidence`, for each α by itself. An upper end is 1 where
    nothing lower can be proved.
    """
    asked = np.sort(np.append(TARGETS, target))
    need = -np.log(1 - confidence)
    upper, lower = np.ones(len(alphas)), np.zeros(len(alphas))
    above, below = np.ones(len(alphas), bool), np.ones(len(alphas), bool)
    for end in asked[::-1]:
        above &= log_capital(reviews, pilot, alphas, target=end) >= need
        upper[above] = end
    for end in asked:
        below &= log_capital(reviews, pilot, alphas, target=end, upwards=False) >= need
        lower[below] = end
    return lower, upper


def needed(reviews: ReviewedDraws, alphas: Floats, *, target: float, confidence: float) -> int | None:
    """About how many reviews would prove `target` for some α, if more look like these; None if none ever would."""
    gains = _earnings(reviews, alphas, reviews.excess(target), STAKES / MOST_WEIGHT)
    growth = float(gains.max()) / max(1, len(reviews))
    return None if growth <= 0 else int(np.ceil(-np.log(1 - confidence) / growth))


def _earnings(reviews: ReviewedDraws, alphas: Floats, excess: Floats, stakes: Floats) -> Floats:
    """Σ log(1 - λX) over the draws, shape (alphas, stakes): what is not kept neither wins nor loses."""
    return np.asarray(reviews.kept(alphas).T.astype(np.float64) @ np.log1p(-excess[:, None] * stakes), np.float64)

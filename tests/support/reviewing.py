"""A lake with a batch to review: tones to play, labels, and hypotheses that differ from some of them."""

from factories import finished_batch

from k2d.corpus.calibration.draws import StoredDraw, make_draw
from k2d.filtering.policy import DEFAULT
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.reviews import ReviewOrder

# label, hypothesis: five of six are right
SPEECH = (
    ("今天這堂課我們先來 review 一下", "今天這堂課我們先來 review 一下"),
    ("這個 function 的參數要先宣告", "這個 function 的參數要先宣告"),
    ("把 gradient 算出來", "把 gradients 算出來了"),
    ("deadline 是下禮拜五", "deadline 是下禮拜五"),
)


def reviewable(
    root: str, *, recordings: int = 8, count: int = 60, order: ReviewOrder = ReviewOrder.RANDOM
) -> tuple[Lake, Batch, StoredDraw]:
    """A finished batch of 25 s recordings with four segments each, and a draw from it."""
    lake = Lake(root)
    batch = finished_batch(lake, recordings=recordings, texts=SPEECH)
    return lake, batch, make_draw(lake, [batch], DEFAULT, count=count, seed=1, order=order)

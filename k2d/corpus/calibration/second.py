"""How well reviewers agree who reviewed the same segments without seeing each other's answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from k2d.filtering.distance import counts
from k2d.schema import Counts
from k2d.store.reviews import Review, ReviewVerdict
from k2d.text.reading import read


@dataclass(frozen=True, slots=True)
class ReviewAgreement:
    """Pairs of reviews of one segment by two people."""

    segments: int  # that several people reviewed
    pairs: int
    same: int  # pairs that say the same, as mixed tokens
    verdicts: int  # pairs that agree whether the label is right
    kappa: float | None  # Cohen's κ of "the label is right"; None where chance alone would agree
    mer: float | None  # edits between their texts over the tokens of both, halved; None without a pair of texts


def agreement(reviews: Iterable[Review]) -> ReviewAgreement:
    """Compare the reviews of segments that several people reviewed; `reviews` are those that count (`current`).

    agreement(current(lake.reviews.of_labels(label_keys))).kappa
    """
    by_place: dict[tuple[str, int, int], list[Review]] = {}
    for review in reviews:
        by_place.setdefault(review.place, []).append(review)
    several = [sorted(group, key=lambda own: own.reviewer) for group in by_place.values() if len(group) > 1]
    pairs = [pair for group in several for pair in combinations(group, 2)]
    right = [(_is_right(one), _is_right(other)) for one, other in pairs]
    texts = [(text_of(one), text_of(other)) for one, other in pairs]
    compared = [(read(a).tokens, read(b).tokens) for a, b in texts if a is not None and b is not None]
    edits = sum((counts(one, other) for one, other in compared), Counts())
    tokens = edits.reference_length + edits.hypothesis_length
    return ReviewAgreement(
        segments=len(several),
        pairs=len(pairs),
        same=sum(_said(one) == _said(other) for one, other in pairs),
        verdicts=sum(one == other for one, other in right),
        kappa=_kappa(right),
        mer=round(2 * edits.edits / tokens, 4) if tokens else (0.0 if compared else None),
    )


def text_of(review: Review) -> str | None:
    """What is said in the segment according to a review; None if it does not tell."""
    if review.verdict is ReviewVerdict.RIGHT:
        return review.label
    return "" if review.verdict is ReviewVerdict.NOTHING else review.reference


def _is_right(review: Review) -> bool:
    text = text_of(review)
    return text is not None and read(text).tokens == read(review.label).tokens


def _said(review: Review) -> tuple[str, ...] | ReviewVerdict:
    text = text_of(review)
    return review.verdict if text is None else tuple(read(text).tokens)


def _kappa(pairs: list[tuple[bool, bool]]) -> float | None:
    """Of two raters who are the same for every pair: which of two people is first means nothing, so both are pooled."""
    if not pairs:
        return None
    observed = sum(one == other for one, other in pairs) / len(pairs)
    share = sum(one + other for one, other in pairs) / (2 * len(pairs))
    chance = share**2 + (1 - share) ** 2
    return None if chance == 1 else round((observed - chance) / (1 - chance), 4)

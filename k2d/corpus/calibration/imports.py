"""Puts reviews of files into the store: review files of k2d, and exports of Label Studio."""

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from k2d.corpus.calibration import reviews
from k2d.corpus.calibration.desk import store_review
from k2d.corpus.calibration.label_studio import ImportedReview, reviews_in
from k2d.corpus.calibration.reviews import ReviewRow
from k2d.documents import ReviewRequest
from k2d.errors import BadRequest, NotFound
from k2d.keys import place_of
from k2d.store import Lake
from k2d.store.reviews import Review, ReviewVerdict, current
from k2d.textfiles import read_text, why_unreadable


def load_reviews(path: Path) -> list[ImportedReview]:
    """Read the reviews of a file: JSON lines as `k2d review` writes them, or Label Studio's JSON.

    Raises:
        NotFound: no such file.
        BadRequest: it is neither.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"["):
            return list(reviews_in(read_text(path)))
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"{path} cannot be read: {why_unreadable(error)}") from error
    return [_of_row(row) for row in reviews.load(path)[1] if row.reviewed]


def import_reviews(lake: Lake, imported: Iterable[ImportedReview], *, reviewer: str) -> tuple[int, int]:
    """Store reviews; returns how many were stored, and how many the store had already.

        import_reviews(lake, load_reviews(Path("review.jsonl")), reviewer="ada")

    A review that says what its reviewer's current one says is not stored again.

    Args:
        reviewer: whose reviews they are, where the file does not say.

    Raises:
        NotFound: a segment is not in the store.
        StoreError
    """
    stored = known = 0
    for review in imported:
        who = review.reviewer or reviewer
        request = ReviewRequest(
            id=uuid.uuid4().hex,
            segment=review.segment,
            verdict=review.verdict,
            reference=review.reference,
            seconds=review.seconds,
        )
        if any(_says(own, review) for own in _of_segment(lake, review.segment) if own.reviewer == who):
            known += 1
            continue
        store_review(lake, request, reviewer=who, at=review.at)
        stored += 1
    return stored, known


def _of_segment(lake: Lake, segment: str) -> Iterator[Review]:
    place = place_of(segment)
    label_key = lake.facts.label_key(place.facts_key)
    for review in current(lake.reviews.of_labels([label_key])):
        if (review.chunk, review.segment) == (place.chunk, place.segment):
            yield review


def _says(stored: Review, review: ImportedReview) -> bool:
    text = " ".join((review.reference or "").split()) or None
    return (stored.verdict, stored.reference) == (review.verdict, text)


def _of_row(row: ReviewRow) -> ImportedReview:
    if row.reference is not None:
        verdict = ReviewVerdict.TEXT if row.reference.strip() else ReviewVerdict.NOTHING
        return ImportedReview(row.id, verdict, row.reference if row.reference.strip() else None, None, "")
    return ImportedReview(row.id, ReviewVerdict.RIGHT if row.correct else ReviewVerdict.WRONG, None, None, "")

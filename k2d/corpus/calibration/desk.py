"""What reviewers are served: the next segments, their reviews stored, progress, and calibration by them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import Any

from k2d.corpus.calibration.calibrate import calibrate, pilot_of
from k2d.corpus.calibration.candidates import candidates_of, stops_of
from k2d.corpus.calibration.draw import Draw
from k2d.corpus.calibration.draws import (
    StoredDraw,
    answered_rows,
    deleted_batches,
    id_of_draw,
    judged_rows,
    open_draw,
    place_of_draw,
    reviews_of,
    with_labels,
)
from k2d.corpus.calibration.outlook import ClaimOutlook, best_claim, outlook
from k2d.corpus.calibration.review import facts_of_draws
from k2d.corpus.calibration.reviews import error_of, table, until
from k2d.corpus.calibration.second import agreement
from k2d.corpus.index import parts
from k2d.documents import (
    AgreementDocument,
    CalibrationResult,
    ClaimForecast,
    DiffStep,
    DrawItem,
    ReviewCandidate,
    ReviewDocument,
    ReviewItem,
    ReviewItems,
    ReviewProgress,
    ReviewRequest,
)
from k2d.errors import BadRequest, NotFound
from k2d.keys import digest, place_of
from k2d.schema import Batch, ChunkFacts
from k2d.store import Lake
from k2d.store.reviews import Review, ReviewOrder, ReviewVerdict, current, review_segment

# ---- draws --------------------------------------------------------------------------------------------------------


def describe_draw(lake: Lake, draw: StoredDraw) -> DrawItem:
    """A draw as lists show it.

    Raises:
        StoreError
    """
    head = draw.head
    return DrawItem(
        id=draw.id,
        created_at=head.created_at,
        batches=head.batches,
        deleted=deleted_batches(lake, draw),
        order=head.order,
        policy=head.policy.name,
        draws=head.draws,
        segments=len(draw.segments),
        reachable=int(head.population.get("reachable", 0)),
    )


def next_segments(
    lake: Lake, draw_id: str, *, reviewer: str, after: int = -1, limit: int = 5, second: bool = False
) -> ReviewItems:
    """The next segments of a draw for a reviewer, in its order, from the one behind number `after`.

        next_segments(lake, "d_0123456789abcdef", reviewer="ada").segments[0].label

    Args:
        second: segments that others reviewed, and this reviewer did not: a second review, without the first one's
            answer. Otherwise those that nobody reviewed.

    Raises:
        NotFound: no such draw.
        LabelsDeleted: its facts are gone.
        StoreError
    """
    draw = open_draw(lake, draw_id)
    found = reviews_of(lake, draw)

    def is_wanted(segment: Draw) -> bool:
        reviewers = {review.reviewer for review in found.get(place_of_draw(segment), ())}
        return bool(reviewers) and reviewer not in reviewers if second else not reviewers

    wanted = [(number, segment) for number, segment in enumerate(draw.segments) if is_wanted(segment)]
    ahead = [(number, segment) for number, segment in wanted if number > after]
    served = ahead[:limit]
    with with_labels(lake, draw):
        facts = facts_of_draws(lake, [segment for _, segment in served])
        items = [_item(*numbered, fact) for numbered, fact in zip(served, facts, strict=True)]
    return ReviewItems(segments=items, left=len(wanted))


def _item(number: int, drawn: Draw, facts: ChunkFacts) -> ReviewItem:
    texts, segment = [own.text for own in facts.segments], facts.segments[drawn.segment]
    label, candidates = segment.text.strip(), candidates_of(facts, drawn.segment)
    return ReviewItem(
        id=id_of_draw(drawn),
        number=number,
        recording=drawn.recording,
        start_s=segment.start_s,
        end_s=segment.end_s,
        label=label,
        before="".join(texts[: drawn.segment]).strip(),
        after="".join(texts[drawn.segment + 1 :]).strip(),
        stops=stops_of(label, candidates),
        candidates=[
            ReviewCandidate(
                text=candidate.text,
                validators=list(candidate.validators),
                diff=[DiffStep(**asdict(step)) for step in candidate.steps],
            )
            for candidate in candidates
        ],
        audio=f"v1/segments/{id_of_draw(drawn)}/audio",
    )


# ---- reviews ------------------------------------------------------------------------------------------------------


def store_review(lake: Lake, request: ReviewRequest, *, reviewer: str, at: str = "") -> Review:
    """Store what somebody says of a segment; the same request again stores nothing.

        store_review(lake, ReviewRequest(id="…", segment="4f…-00003.002", verdict="right"), reviewer="ada")

    Args:
        at: when it was said, as ISO 8601; empty: now.

    Raises:
        BadRequest: a text without `text` as the verdict, or the other way round.
        Conflict: the id is another review's.
        NotFound: no such segment, or its label is gone.
        StoreError
    """
    if (request.verdict is ReviewVerdict.TEXT) != (request.reference is not None):
        raise BadRequest("`reference` belongs to the verdict `text`, and to no other", hint="what is said there")
    label_key, chunk, segment, label = _label_of(lake, request.segment)
    reference = " ".join((request.reference or "").split())
    is_text = request.verdict is ReviewVerdict.TEXT
    review = Review(
        id=request.id,
        label_key=label_key,
        chunk=chunk,
        segment=segment,
        label=label,
        verdict=ReviewVerdict.NOTHING if is_text and not reference else request.verdict,
        reference=reference or None,
        reviewer=reviewer,
        at=at,
        draw=request.draw,
        seconds=None if request.seconds is None else round(request.seconds, 3),
    )
    return lake.reviews.put(review)


def describe_reviews(reviews: Sequence[Review]) -> list[ReviewDocument]:
    """Reviews as the API shows them; `reviews` are all of their segments'."""
    counted = {review.id for review in current(reviews)}
    return [
        ReviewDocument(
            id=review.id,
            segment=review_segment(review),
            label=review.label,
            verdict=review.verdict,
            reference=review.reference,
            reviewer=review.reviewer,
            at=review.at,
            draw=review.draw,
            seconds=review.seconds,
            counts=review.id in counted,
        )
        for review in reviews
    ]


def _label_of(lake: Lake, segment_id: str) -> tuple[str, int, int, str]:
    """Label key, chunk, segment and text of a segment, by its id."""
    place = place_of(segment_id)
    if place.segment is not None and lake.facts.has(place.facts_key):
        label_key = lake.facts.label_key(place.facts_key)
        for chunk, _ in lake.labels.read(label_key, only=frozenset((place.chunk,))):
            if place.segment < len(chunk.segments):
                return label_key, place.chunk, place.segment, chunk.segments[place.segment].text.strip()
    raise NotFound(f"there is no segment {segment_id[:100]!r}", hint="its batch was deleted, or the id was changed")


# ---- progress and calibration -------------------------------------------------------------------------------------


def progress_of(
    lake: Lake, draw: StoredDraw, *, reviewer: str, target: float = 0.08, confidence: float = 0.95
) -> ReviewProgress:
    """How far the review of a draw is, what it may prove with how many more reviews, and how well reviewers agree.

        progress_of(lake, open_draw(lake, "d_0123456789abcdef"), reviewer="ada").best.more  # 140

    Raises:
        StoreError
    """
    found = reviews_of(lake, draw)
    rows = judged_rows(draw, found)
    draws, holes = until(rows, draw.head.draws)
    claims: list[ClaimOutlook] = []
    if draw.head.order is ReviewOrder.RANDOM and draws:
        reviewed, _, _ = table(rows, [row.risk for row in rows], draws)
        pilot = pilot_of(draw.head.draws, draw.head.policy)
        claims = outlook(reviewed, draw.hours, target=target, confidence=confidence, pilot=pilot)
    best = best_claim(claims, draw.head.draws - draws)
    reviews = [review for group in found.values() for review in group]
    seconds = [review.seconds for review in reviews if review.seconds is not None]
    return ReviewProgress(
        draw=describe_draw(lake, draw),
        reviewed=sum(row.reviewed for row in rows),
        mine=sum(review.reviewer == reviewer for review in reviews),
        right=sum(row.reviewed and error_of(row).share == 0 for row in rows),
        draws=draws,
        holes=holes,
        seconds=round(median(seconds), 1) if seconds else None,
        target=target,
        confidence=confidence,
        claims=[ClaimForecast(**asdict(claim)) for claim in claims],
        best=None if best is None else ClaimForecast(**asdict(best)),
        agreement=AgreementDocument(**asdict(agreement(reviews))),
    )


def calibrate_draw(
    lake: Lake, draw: StoredDraw, *, target: float, confidence: float, name: str, by: str
) -> CalibrationResult:
    """Calibrate by the reviews of a draw, and store what was found. The same reviews find what is there.

        calibrate_draw(lake, draw, target=0.08, confidence=0.95, name="lectures", by="ada").policy.claim

    Raises:
        BadRequest: target or confidence outside 0…1; the segments were not drawn at random.
        LabelsDeleted: facts are gone.
        DrawnBatchDeleted: a batch is gone.
        StoreError
    """
    with with_labels(lake, draw):
        rows = answered_rows(lake, draw)
        batches = [lake.batches.get(batch) for batch in draw.head.batches]
    answers = [(row.id, row.reference, row.correct) for row in rows if row.reviewed]
    calibration_id = digest("calibration", draw.id, answers, target, confidence, name)[:16]
    try:
        return read_calibration(lake, draw.id, calibration_id)
    except NotFound:
        pass
    calibration = calibrate(lake, draw.head, rows, batches, target=target, confidence=confidence, name=name)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    named: dict[str, Any] = {"id": calibration_id, "draw": draw.id, "at": at, "by": by}
    result = CalibrationResult.model_validate(named | calibration.document())
    lake.draws.put_calibration(draw.id, calibration_id, result.model_dump(mode="json", exclude_none=True))
    return result


def read_calibration(lake: Lake, draw_id: str, calibration_id: str) -> CalibrationResult:
    """Read what a calibration found.

    Raises:
        NotFound, StoreError
    """
    document = {"alpha": None, "fit": None, "reviews_needed": None} | lake.draws.calibration(draw_id, calibration_id)
    return CalibrationResult.model_validate(document)


def labels_of_batch(lake: Lake, batch: Batch) -> list[str]:
    """The keys of a batch's labels that have reviews, sorted.

    Raises:
        StoreError
    """
    own = {key for part in parts(lake, batch.id) for key in part.recordings.column("label_key")}
    return [key for key in lake.reviews.label_keys() if key in own]

"""Draws in the store, and the reviews that answer them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from k2d.corpus.calibration.draw import Draw
from k2d.corpus.calibration.outlook import KeptHours
from k2d.corpus.calibration.rates import seconds_kept
from k2d.corpus.calibration.review import choose_segments, head_of, rows_of_draws
from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow, error_of
from k2d.corpus.distinct import distinct_parts
from k2d.errors import NotFound
from k2d.filtering.policy import Policy
from k2d.keys import chunk_id, digest, segment_id
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.guard import damaged
from k2d.store.reviews import Review, ReviewOrder, ReviewVerdict, current

Place = tuple[str, int, int]  # label, chunk, segment
SAME_SEGMENTS: Final = 16  # digits of a draw's id


class LabelsDeleted(NotFound):
    """Labels of a draw were deleted: nothing more can be heard or calibrated. Its answers and calibrations are kept."""

    code = "labels_deleted"


class DrawnBatchDeleted(NotFound):
    """A batch of a draw was deleted, but no label of its segments: it is reviewed, not calibrated over that batch."""

    code = "drawn_batch_deleted"


@dataclass(frozen=True, slots=True)
class StoredDraw:
    """A draw: its head, the segments in the order of review, and the hours that each α keeps."""

    id: str
    head: ReviewHead
    segments: tuple[Draw, ...]
    hours: KeptHours

    @property
    def label_keys(self) -> list[str]:
        """The labels that its segments are parts of, each once."""
        return list(dict.fromkeys(segment.label_key for segment in self.segments))


def make_draw(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, count: int, seed: int, order: ReviewOrder
) -> StoredDraw:
    """Draw segments for review and store the draw. The same request finds the draw that is there.

        make_draw(lake, [batch], DEFAULT, count=400, seed=0, order=ReviewOrder.RANDOM).id

    Raises:
        BadRequest: too few draws, or nothing to review.
        StoreError
    """
    batches = list({batch.id: batch for batch in batches}.values())  # one may be named by its id and by its name
    segments, population = choose_segments(lake, batches, policy, count=count, seed=seed, order=order)
    head = head_of(batches, policy, segments, population, count=count, seed=seed, order=order)
    kept = seconds_kept(partial(distinct_parts, lake, batches), policy)
    alphas = [float(alpha) for alpha in kept.candidates()]
    hours = KeptHours(tuple(alphas), tuple(round(kept.at(alpha), 3) for alpha in alphas), round(kept.total, 3))
    named = head.model_dump(mode="json", exclude={"created_at"}, exclude_none=True)
    draw_id = f"d_{digest(named, [asdict(segment) for segment in segments])[:SAME_SEGMENTS]}"
    document = {
        "head": head.model_dump(mode="json", exclude_none=True),
        "segments": [asdict(segment) for segment in segments],
        "hours": asdict(hours),
    }
    if not lake.draws.put(draw_id, document):
        return open_draw(lake, draw_id)
    return StoredDraw(draw_id, head, tuple(segments), hours)


def open_draw(lake: Lake, draw_id: str) -> StoredDraw:
    """Read a draw.

    Raises:
        NotFound: there is none.
        StoreError
    """
    document = lake.draws.get(draw_id)
    try:
        head = ReviewHead.model_validate(document["head"])
        segments = tuple(_segment(fields) for fields in document["segments"])
        hours = document["hours"]
        kept = KeptHours(tuple(hours["alphas"]), tuple(hours["seconds"]), float(hours["total_s"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise damaged(f"draws/{draw_id}.json", str(error)) from error
    return StoredDraw(draw_id, head, segments, kept)


def draws_of_batches(lake: Lake, batch_ids: Collection[str] = ()) -> list[StoredDraw]:
    """The draws from any of these batches (none: all draws), newest first.

    Raises:
        StoreError
    """
    draws = lake.files.many(partial(open_draw, lake), lake.draws.ids())
    wanted = [draw for draw in draws if not batch_ids or set(draw.head.batches) & set(batch_ids)]
    return sorted(wanted, key=lambda draw: (draw.head.created_at, draw.id), reverse=True)


def deleted_batches(lake: Lake, draw: StoredDraw) -> list[str]:
    """The ids of those batches of a draw that were deleted.

    Raises:
        StoreError
    """
    return [batch for batch in draw.head.batches if lake.batches.entry(batch) is None]


def labels_are_there(lake: Lake, draw: StoredDraw) -> bool:
    """Whether a draw has the facts of all of its segments: other batches may have labels of one that was deleted.

    Raises:
        StoreError
    """
    keys = dict.fromkeys(segment.facts_key for segment in draw.segments)
    return all(lake.files.many(lake.facts.has, keys))


@contextmanager
def with_labels(lake: Lake, draw: StoredDraw) -> Iterator[None]:
    """What the block does not find of a draw's batches and facts was deleted.

        with with_labels(lake, draw):
            rows = answered_rows(lake, draw)

    Raises:
        LabelsDeleted
        DrawnBatchDeleted
    """
    try:
        yield
    except NotFound as error:
        if labels_are_there(lake, draw):
            batch = error.details.get("batch")
            if batch not in deleted_batches(lake, draw):
                raise
            raise DrawnBatchDeleted(
                f"batch {batch!r} of draw {draw.id!r} was deleted: over it nothing can be calibrated",
                hint="its labels are there, and can be heard and answered: name another batch that has the same "
                f"recordings (`k2d calibrate {draw.id} BATCH`), or draw anew with `k2d review`",
                draw=draw.id,
                batch=batch,
            ) from error
        raise LabelsDeleted(
            f"labels of draw {draw.id!r} were deleted: nothing more can be heard or calibrated",
            hint=f"answers are kept (`k2d reviews export {draw.id} FILE`) and count again once the same labels are "
            "made; `k2d review` draws anew",
            draw=draw.id,
        ) from error


def place_of_draw(segment: Draw) -> Place:
    """The label, chunk and segment of a drawn segment."""
    return segment.label_key, segment.chunk, segment.segment


def id_of_draw(segment: Draw) -> str:
    """The id of a drawn segment (`k2d.keys.segment_id`)."""
    return segment_id(chunk_id(segment.facts_key, segment.chunk), segment.segment)


def reviews_of(lake: Lake, draw: StoredDraw) -> dict[Place, list[Review]]:
    """The reviews that count of each of a draw's segments, in whichever draw they were made; oldest first.

    Raises:
        StoreError
    """
    wanted = {place_of_draw(segment) for segment in draw.segments}
    found: dict[Place, list[Review]] = {}
    for review in current(lake.reviews.of_labels(draw.label_keys)):
        if review.place in wanted:
            found.setdefault(review.place, []).append(review)
    return found


def answered_rows(lake: Lake, draw: StoredDraw) -> list[ReviewRow]:
    """The rows of a draw as a review file has them, with the answers of the store.

        rows = answered_rows(lake, open_draw(lake, "d_0123456789abcdef"))

    Raises:
        NotFound: labels of it are gone.
        StoreError
    """
    found = reviews_of(lake, draw)
    rows = rows_of_draws(lake, draw.segments)
    return [_answered(row, found.get(place_of_draw(own), [])) for row, own in zip(rows, draw.segments, strict=True)]


def known_rows(lake: Lake, draw: StoredDraw) -> list[ReviewRow]:
    """As `answered_rows`; where labels were deleted, what reviews and the draw itself know: answers, no times.

    Raises:
        StoreError
    """
    try:
        with with_labels(lake, draw):
            return answered_rows(lake, draw)
    except LabelsDeleted:
        return judged_rows(draw, reviews_of(lake, draw))


def judged_rows(draw: StoredDraw, found: dict[Place, list[Review]]) -> list[ReviewRow]:
    """The rows of a draw without what only facts have (times, hypotheses): enough to count errors.

    Labels of segments that nobody reviewed are empty.
    """
    return [_answered(_bare(segment, found), found.get(place_of_draw(segment), [])) for segment in draw.segments]


def answer_of(review: Review) -> dict[str, Any]:
    """A review as a review file has it: `reference` or `correct`."""
    if review.verdict is ReviewVerdict.RIGHT:
        return {"correct": True, "reference": None}
    if review.verdict is ReviewVerdict.NOTHING:
        return {"correct": None, "reference": ""}
    if review.verdict is ReviewVerdict.TEXT:
        return {"correct": None, "reference": review.reference or ""}
    return {"correct": False, "reference": None}


def _answered(row: ReviewRow, reviews: Sequence[Review]) -> ReviewRow:
    """The row with the answer that counts: where reviewers disagree, the one that finds most errors.

    So a claim never rests on which of two people was asked.
    """
    answers = [row.model_copy(update=answer_of(review)) for review in reviews]
    return max(answers, key=lambda answer: error_of(answer).share, default=row)


def _bare(segment: Draw, found: dict[Place, list[Review]]) -> ReviewRow:
    reviews = found.get(place_of_draw(segment), [])
    return ReviewRow(
        id=id_of_draw(segment),
        recording=segment.recording,
        start_s=0.0,
        end_s=0.0,
        label=reviews[0].label if reviews else "",
        around="",
        hypotheses=[],
        risk=segment.risk,
        size=segment.size,
        weight=segment.weight,
        draws=list(segment.draws),
        label_key=segment.label_key,
    )


def _segment(fields: dict[str, Any]) -> Draw:
    segment = Draw(**fields)
    return replace(segment, draws=tuple(segment.draws))

"""Reviews: draws of segments, the next ones for a reviewer, what reviewers say, and calibration by it."""

from typing import Annotated, Final, cast

from fastapi import APIRouter, Query, Request, Response

from k2d.corpus.calibration import desk
from k2d.corpus.calibration.draws import StoredDraw, draws_of_batches, make_draw, open_draw
from k2d.corpus.calibration.review import segment_audio
from k2d.documents import (
    CalibrationRequest,
    CalibrationResult,
    DrawItem,
    DrawList,
    DrawRequest,
    ReviewDocument,
    ReviewItems,
    ReviewList,
    ReviewProgress,
    ReviewRequests,
)
from k2d.errors import BadRequest
from k2d.store import Lake
from services.filter.chunks import FOREVER_S
from services.filter.context import InLake, InQueue
from services.filter.index_jobs import require_index
from services.filter.queue import WorkQueue
from services.web.access import Caller
from services.web.pools import QUESTIONS
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1", tags=["reviews"], responses=EVERYWHERE)

MOST_AROUND_S: Final = 5.0
PAGE_LABELS: Final = 100  # labels whose reviews are one page

Target = Annotated[float, Query(gt=0, lt=1, description="Largest label MER of what is kept.")]
Confidence = Annotated[float, Query(ge=0.5, lt=1)]


def caller_of(request: Request) -> str:
    """Who sent a request, as reviews and the audit log name them."""
    return cast(Caller, request.state.caller).name


@router.post("/draws", status_code=201, summary="Draw segments for review", responses=responses(400, 404))
async def create_draw(body: DrawRequest, lake: InLake, queue: InQueue, response: Response) -> DrawItem:
    draw = await QUESTIONS.run(_draw, body, lake, queue)
    response.headers["Location"] = f"/v1/draws/{draw.id}"
    return desk.describe_draw(lake, draw)


def _draw(body: DrawRequest, lake: Lake, queue: WorkQueue) -> StoredDraw:
    batches = [lake.batches.get(name) for name in dict.fromkeys(body.batches)]
    require_index(batches, lake, queue)
    return make_draw(lake, batches, body.policy, count=body.count, seed=body.seed, order=body.order)


@router.get("/draws", summary="Draws, newest first", responses=responses(404))
def list_draws(
    lake: InLake, batch: Annotated[str | None, Query(description="Only those from this batch, by id or name.")] = None
) -> DrawList:
    ids = [lake.batches.get(batch).id] if batch else []
    return DrawList(draws=[desk.describe_draw(lake, draw) for draw in draws_of_batches(lake, ids)])


@router.get("/draws/{draw}", summary="Progress, and what it may prove", responses=responses(404))
def get_draw(
    draw: str, request: Request, lake: InLake, target: Target = 0.08, confidence: Confidence = 0.95
) -> ReviewProgress:
    stored = open_draw(lake, draw)
    return desk.progress_of(lake, stored, reviewer=caller_of(request), target=target, confidence=confidence)


@router.get("/draws/{draw}/segments", summary="The next segments for the caller", responses=responses(404))
def next_segments(
    draw: str,
    request: Request,
    lake: InLake,
    after: Annotated[int, Query(ge=-1, description="`number` of the last segment the caller has.")] = -1,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
    second: Annotated[bool, Query(description="Segments that others reviewed and the caller did not.")] = False,
) -> ReviewItems:
    reviewer = caller_of(request)
    return desk.next_segments(lake, draw, reviewer=reviewer, after=after, limit=limit, second=second)


@router.post(
    "/draws/{draw}/calibrations",
    status_code=201,
    summary="Find the policy that keeps most hours within a label error, and prove it",
    responses=responses(400, 404),
)
async def create_calibration(
    draw: str, body: CalibrationRequest, request: Request, lake: InLake, response: Response
) -> CalibrationResult:
    result = await QUESTIONS.run(_calibrate, draw, body, lake, caller_of(request))
    response.headers["Location"] = f"/v1/draws/{draw}/calibrations/{result.id}"
    return result


def _calibrate(draw: str, body: CalibrationRequest, lake: Lake, by: str) -> CalibrationResult:
    stored = open_draw(lake, draw)
    return desk.calibrate_draw(lake, stored, target=body.target, confidence=body.confidence, name=body.name, by=by)


@router.get("/draws/{draw}/calibrations/{calibration}", summary="A calibration", responses=responses(404))
def get_calibration(draw: str, calibration: str, lake: InLake) -> CalibrationResult:
    return desk.read_calibration(lake, draw, calibration)


@router.get(
    "/segments/{segment}/audio",
    summary="A segment's audio as FLAC",
    response_class=Response,
    responses={200: {"content": {"audio/flac": {}}}, **responses(404)},
)
def get_segment_audio(
    segment: str,
    lake: InLake,
    around: Annotated[float, Query(ge=0, le=MOST_AROUND_S, description="Seconds before and after it.")] = 0.0,
) -> Response:
    headers = {"Cache-Control": f"private, max-age={FOREVER_S}, immutable"}
    return Response(segment_audio(lake, segment, around_s=around), media_type="audio/flac", headers=headers)


@router.post(
    "/reviews",
    status_code=201,
    summary="Say what is said in segments",
    responses=responses(400, 404, 409),
)
def create_reviews(body: ReviewRequests, request: Request, lake: InLake) -> ReviewList:
    """Reviews are stored one after another; those before one that is refused stay. Sent again they are stored once."""
    reviewer = caller_of(request)
    stored = [desk.store_review(lake, review, reviewer=reviewer) for review in body.reviews]
    return ReviewList(reviews=desk.describe_reviews(stored))


@router.get("/reviews", summary="Reviews of a batch or of a draw, a page at a time", responses=responses(400, 404))
def list_reviews(
    lake: InLake,
    batch: Annotated[str | None, Query(description="Id or name.")] = None,
    draw: Annotated[str | None, Query(description="Id.")] = None,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> ReviewList:
    if (batch is None) == (draw is None):
        raise BadRequest("name a batch or a draw", hint="?batch=lectures, or ?draw=d_0123456789abcdef")
    keys = open_draw(lake, draw).label_keys if draw else _labels_of_batch(lake, str(batch))
    ahead = [key for key in sorted(set(keys)) if cursor is None or key > cursor]
    reviews: list[ReviewDocument] = desk.describe_reviews(lake.reviews.of_labels(ahead[:PAGE_LABELS]))
    return ReviewList(reviews=reviews, next=ahead[PAGE_LABELS - 1] if len(ahead) > PAGE_LABELS else None)


def _labels_of_batch(lake: Lake, batch: str) -> list[str]:
    """The labels of a batch that have reviews."""
    return desk.labels_of_batch(lake, lake.batches.get(batch))

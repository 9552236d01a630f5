"""Pages of reviews: choosing what to review, reviewing, and what a calibration found."""

import asyncio
from itertools import islice
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response, StreamingResponse

from k2d.corpus.calibration import desk
from k2d.corpus.calibration import reviews as review_file
from k2d.corpus.calibration.draws import (
    StoredDraw,
    draws_of_batches,
    known_rows,
    labels_are_there,
    make_draw,
    open_draw,
)
from k2d.documents import CalibrationResult, DrawItem, ReviewProgress
from k2d.filtering.policy import DEFAULT, PRESETS, explain, to_yaml
from k2d.schema import Batch, BatchState
from k2d.store import Lake
from k2d.store.reviews import DRAW_ID, ReviewOrder
from services.filter.batches import listed_batches
from services.filter.console.asked import not_one_of
from services.filter.console.curve import curve_picture
from services.filter.console.page import PageRoute, render
from services.filter.context import InLake, InQueue
from services.filter.index_jobs import require_index
from services.filter.queue import WorkQueue
from services.filter.reviews import caller_of
from services.web.pools import QUESTIONS

router = APIRouter(include_in_schema=False, route_class=PageRoute)

MOST_BATCHES: Final = 50  # that the page offers; others are reached by their own page
MOST_DRAWS: Final = 30
CHOSEN: Final = 400  # draws, unless someone says another number

InTarget = Annotated[float, Query(ge=0.1, le=90)]  # per cent
InConfidence = Annotated[float, Query(ge=50, le=99.9)]  # per cent


@router.get("/review")
async def review_page(request: Request, lake: InLake, queue: InQueue, batch: str | None = None) -> Response:
    values = await asyncio.to_thread(_choices, lake, queue, batch)
    return render(request, "reviews.html", presets=PRESETS, chosen=CHOSEN, default=DEFAULT.name, **values)


@router.post("/review")
async def create_draw(
    request: Request,
    lake: InLake,
    queue: InQueue,
    batch: Annotated[list[str], Form(max_length=100)],
    order: Annotated[ReviewOrder, Form()] = ReviewOrder.RANDOM,
    count: Annotated[int, Form(ge=1, le=20_000)] = CHOSEN,
    policy: Annotated[str, Form(max_length=100)] = DEFAULT.name,
    seed: Annotated[int, Form(ge=0, le=2**31)] = 0,
) -> Response:
    if policy not in PRESETS:
        raise not_one_of("policy", policy, list(PRESETS))

    def draw() -> StoredDraw:
        batches = [lake.batches.get(name) for name in dict.fromkeys(batch)]
        require_index(batches, lake, queue)
        return make_draw(lake, batches, PRESETS[policy], count=count, seed=seed, order=order)

    return _go(request, f"/review/{(await QUESTIONS.run(draw)).id}")


@router.get("/review/{name}")
async def draw_page(
    request: Request,
    lake: InLake,
    name: str,
    second: bool = False,
    target: InTarget = 8.0,
    confidence: InConfidence = 95.0,
) -> Response:
    """The page where the segments of a draw are reviewed; for a batch, the page with its draws."""
    if not DRAW_ID.fullmatch(name):
        await asyncio.to_thread(lake.batches.get, name)
        return _go(request, f"/review?{urlencode({'batch': name})}")
    values = await asyncio.to_thread(_draw_values, lake, name, caller_of(request), target / 100, confidence / 100)
    return render(request, "review.html", second=second, **values)


@router.get("/review/{name}/progress")
async def progress_part(
    request: Request, lake: InLake, name: str, target: InTarget = 8.0, confidence: InConfidence = 95.0
) -> Response:
    progress = await asyncio.to_thread(_progress, lake, name, caller_of(request), target / 100, confidence / 100)
    return render(request, "review_progress.html", progress=progress, draw=progress.draw, deleted=False)


@router.get("/review/{name}/answers.jsonl")
def answers_file(lake: InLake, name: str) -> StreamingResponse:
    """The draw as a review file, with all answers: also where its labels were deleted."""
    draw = open_draw(lake, name)
    headers = {"Content-Disposition": f'attachment; filename="{draw.id}.jsonl"'}
    lines = review_file.lines(draw.head, known_rows(lake, draw))
    return StreamingResponse(lines, media_type="application/jsonl", headers=headers)


@router.post("/review/{name}/calibrations")
async def calibrate_page(
    request: Request,
    lake: InLake,
    name: str,
    target: Annotated[float, Form(ge=0.1, le=90)] = 8.0,
    confidence: Annotated[float, Form(ge=50, le=99.9)] = 95.0,
    policy: Annotated[str, Form(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "calibrated",
) -> Response:
    by = caller_of(request)

    def run() -> CalibrationResult:
        draw = open_draw(lake, name)
        return desk.calibrate_draw(
            lake, draw, target=round(target / 100, 5), confidence=round(confidence / 100, 5), name=policy, by=by
        )

    result = await QUESTIONS.run(run)
    return _go(request, f"/review/{name}/calibrations/{result.id}")


@router.get("/review/{name}/calibrations/{calibration}")
async def calibration_page(request: Request, lake: InLake, name: str, calibration: str) -> Response:
    result = await asyncio.to_thread(desk.read_calibration, lake, name, calibration)
    draw = await asyncio.to_thread(open_draw, lake, name)
    policy = result.policy.model_dump_json(exclude_none=True)
    return render(
        request,
        "calibration.html",
        result=result,
        draw=desk.describe_draw(lake, draw),
        policy=policy,
        explanation=explain(result.policy),
        picture=curve_picture(result.curve, result.target),
    )


@router.get("/review/{name}/calibrations/{calibration}/policy.yaml")
async def policy_file(lake: InLake, name: str, calibration: str) -> Response:
    result = await asyncio.to_thread(desk.read_calibration, lake, name, calibration)
    headers = {"Content-Disposition": f'attachment; filename="{result.policy.name}.yaml"'}
    return Response(to_yaml(result.policy), media_type="application/yaml", headers=headers)


def _choices(lake: Lake, queue: WorkQueue, name: str | None) -> dict[str, Any]:
    """What the page offers: one batch with its draws, or the newest batches and draws. Chosen from the start is what is
    finished: that batch, or the newest one."""
    batch = lake.batches.get(name) if name else None
    draws = [
        desk.describe_draw(lake, draw) for draw in draws_of_batches(lake, [batch.id] if batch else [])[:MOST_DRAWS]
    ]
    listed = listed_batches([batch] if batch else list(islice(lake.batches.all(), MOST_BATCHES)), lake, queue)
    finished = [item.id for item in listed if item.state is BatchState.DONE]
    return {
        "batch": batch,
        "batches": listed,
        "checked": finished[:1],
        "draws": draws,
        "names": _names(lake, draws),
    }


def _draw_values(lake: Lake, name: str, reviewer: str, target: float, confidence: float) -> dict[str, Any]:
    draw = open_draw(lake, name)
    progress = desk.progress_of(lake, draw, reviewer=reviewer, target=target, confidence=confidence)
    return {
        "progress": progress,
        "draw": progress.draw,
        "batches": _names(lake, [progress.draw]),
        "calibrations": list(lake.draws.calibrations(name)),
        "deleted": not labels_are_there(lake, draw),
    }


def _progress(lake: Lake, name: str, reviewer: str, target: float, confidence: float) -> ReviewProgress:
    return desk.progress_of(lake, open_draw(lake, name), reviewer=reviewer, target=target, confidence=confidence)


def _names(lake: Lake, draws: list[DrawItem]) -> dict[str, str | None]:
    """The names of the draws' batches by id; None for those that were deleted."""
    names: dict[str, str | None] = {}
    for batch_id in (own for draw in draws for own in draw.batches):
        if batch_id not in names:
            entry = lake.batches.entry(batch_id)
            names[batch_id] = entry.name if isinstance(entry, Batch) else None
    return names


def _go(request: Request, path: str) -> Response:
    """Send a browser to another page, whether htmx asked or the browser itself. The audit log names that page."""
    target = request.scope.get("root_path", "") + path
    if request.headers.get("hx-request"):
        return Response(headers={"HX-Redirect": target, "Location": target})
    return Response(status_code=303, headers={"Location": target})

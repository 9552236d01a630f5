"""Batches: accept audio, answer 202 at once, and report progress."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from k2d.corpus import index, views
from k2d.corpus.index import take_back_outdated
from k2d.documents import BatchItem, BatchList, BatchOptions, BatchStatus, Forecast, Jobs, ResumeResult
from k2d.errors import BadRequest, DamagedFile, described
from k2d.filtering.policy import DEFAULT, Policy
from k2d.labeling.terms import terms_left_out
from k2d.schema import Batch, BatchState
from k2d.store import Lake
from k2d.store.batches import DamagedBatch
from services.filter.context import InLake, InPolicy, InQueue, InSettings
from services.filter.index_jobs import queue_index
from services.filter.intake import OPENAPI_BODY, forecast_batch, read_body, store_batch
from services.filter.queue import WorkQueue, request_plan
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1", tags=["batches"], responses=EVERYWHERE)

EVENT_S: Final = 1.0  # between looks at a batch for its events
PING_S: Final = 15  # between comments that keep proxies from closing an idle stream

ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": BatchStatus | Forecast, "description": "The same batch was there already; or a forecast"},
    202: {"model": BatchStatus, "description": "Queued"},
}


@router.post(
    "/batches",
    status_code=202,
    summary="Label recordings: files in the request, or URIs the service fetches",
    openapi_extra=OPENAPI_BODY,
    response_model=None,
    responses={**ACCEPTED, **responses(400, 403, 404, 409, 413, 415)},
)
async def create_batch(
    request: Request,
    response: Response,
    lake: InLake,
    queue: InQueue,
    settings: InSettings,
    dry_run: Annotated[bool, Query(description="Answer with a forecast; store and queue nothing.")] = False,
) -> BatchStatus | Forecast:
    async with read_body(request) as body:
        if dry_run:
            response.status_code = 200
            return await asyncio.to_thread(forecast_batch, body, lake, settings)
        batch = await asyncio.to_thread(store_batch, body, lake, settings)
    if not await asyncio.to_thread(_queue_missing, batch, lake, queue):
        response.status_code = 200
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    left_out = await asyncio.to_thread(
        terms_left_out, body if isinstance(body, BatchOptions) else body.options, settings
    )
    status = await asyncio.to_thread(_status, batch, lake, queue)
    return status.model_copy(update={"terms_left_out": left_out})


@router.get("/batches", summary="All batches, newest first", responses=responses(400))
def list_batches(
    lake: InLake, queue: InQueue, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: str | None = None
) -> BatchList:
    ids = lake.batches.ids()
    if cursor is not None and cursor not in ids:
        raise BadRequest("the cursor names no batch", hint="use `next` of the page before as it is")
    start = ids.index(cursor) + 1 if cursor is not None else 0
    page = ids[start : start + limit]
    entries = [entry for entry in map(lake.batches.entry, page) if entry is not None]
    return BatchList(
        batches=_listed(entries, lake, queue),
        next=page[-1] if start + limit < len(ids) else None,
    )


@router.get("/batches/{batch}", summary="State, ledger, quarantined recordings", responses=responses(404))
def get_batch(batch: str, lake: InLake, queue: InQueue, policy: InPolicy) -> BatchStatus:
    return _status(lake.batches.get(batch), lake, queue, policy)


@router.delete(
    "/batches/{batch}",
    status_code=202,
    summary="Cancel: nothing new is begun, what is done stays",
    responses=responses(404),
)
def cancel_batch(batch: str, lake: InLake, queue: InQueue) -> BatchStatus:
    stored = lake.batches.get(batch)
    lake.batches.cancel(stored.id)
    return _status(stored, lake, queue)


@router.post(
    "/batches/{batch}/retry",
    status_code=202,
    summary="Do what is missing, and try the quarantined recordings again",
    responses=responses(404),
)
def retry_batch(batch: str, lake: InLake, queue: InQueue) -> BatchStatus:
    stored = lake.batches.get(batch)
    index.retry(lake, stored)
    queue.forget(stored.id)
    request_plan(queue, stored.id)
    return _status(stored, lake, queue)


@router.post(
    "/resume",
    status_code=202,
    summary="Queue again exactly what is missing, after Redis was lost",
)
def resume(lake: InLake, queue: InQueue) -> ResumeResult:
    missing: dict[str, int] = {}
    failed: dict[str, str] = {}
    for batch in lake.batches.entries():
        if isinstance(batch, DamagedBatch):
            failed[batch.id] = described(batch.error)
            continue
        try:
            take_back_outdated(lake, batch, search=True)
            if not lake.batches.is_cancelled(batch.id) and (count := _queue_missing(batch, lake, queue)):
                missing[batch.id] = count
        except DamagedFile as error:  # the other batches go on
            failed[batch.id] = described(error)
    if not failed:
        lake.mark_current()
    return ResumeResult(batches=missing, failed=failed)


@router.get(
    "/batches/{batch}/events",
    summary="Server-sent events: `status` while it goes on, `end` when nothing more will happen",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **responses(404)},
)
async def batch_events(batch: str, lake: InLake, queue: InQueue) -> EventSourceResponse:
    stored = await asyncio.to_thread(lake.batches.get, batch)
    stopping = anyio.Event()  # set when the server stops
    events = _events(stored, lake, queue, stopping)
    grace_s = 2 * EVENT_S  # without it the response would be cut off in the middle
    return EventSourceResponse(events, sep="\n", ping=PING_S, shutdown_event=stopping, shutdown_grace_period=grace_s)


async def _events(batch: Batch, lake: Lake, queue: WorkQueue, stopping: anyio.Event) -> AsyncIterator[ServerSentEvent]:
    """A batch's status as often as it changes, until it is done or cancelled, or the server stops."""
    sent = ""
    while not stopping.is_set():
        status = await asyncio.to_thread(_status, batch, lake, queue)
        ended = status.state in (BatchState.DONE, BatchState.CANCELLED)
        text = status.model_dump_json(by_alias=True)
        if text != sent or ended:
            yield ServerSentEvent(text, event="end" if ended else "status", sep="\n")
            sent = text
        if ended:
            return
        await asyncio.sleep(EVENT_S)


def _queue_missing(batch: Batch, lake: Lake, queue: WorkQueue) -> int:
    """Queue the planning of a batch unless every recording has a result; returns how many have none."""
    missing = len(batch.sources) - len(lake.batches.result_positions(batch.id))
    if missing:
        request_plan(queue, batch.id)
    return missing


def _status(batch: Batch, lake: Lake, queue: WorkQueue, policy: Policy = DEFAULT) -> BatchStatus:
    make = queue_index(batch, lake, queue) == 0
    return views.status(lake, batch, policy, jobs=queue.live(batch.id), make=make)


def _listed(entries: Sequence[Batch | DamagedBatch], lake: Lake, queue: WorkQueue) -> list[BatchItem]:
    """Batches for a list; Redis is asked once, about those whose state depends on it."""
    items = [
        views.listed_damaged(entry) if isinstance(entry, DamagedBatch) else views.listed(lake, entry)
        for entry in entries
    ]
    waiting = {item.id for item in items if item.state is BatchState.STALLED}
    jobs = queue.live_many(sorted(waiting)) if waiting else {}
    return [_with_jobs(item, lake, jobs.get(item.id)) if item.id in waiting else item for item in items]


def _with_jobs(item: BatchItem, lake: Lake, jobs: Jobs | None) -> BatchItem:
    state = views.state(lake, lake.batches.get(item.id), pending=item.pending, jobs=jobs)
    return item.model_copy(update={"state": state})

"""Batches: accept audio, answer 202 at once, and report progress."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sse_starlette import EventSourceResponse

from k2d.corpus import views
from k2d.corpus.index import take_back_outdated
from k2d.documents import (
    BatchByReference,
    BatchItem,
    BatchList,
    BatchOptions,
    BatchStatus,
    Forecast,
    OpenBatch,
    ResumeResult,
)
from k2d.errors import BadRequest, DamagedFile, NotFound, described
from k2d.filtering.policy import DEFAULT, Policy
from k2d.labeling.terms import terms_left_out
from k2d.schema import Batch, BatchState
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.batches import DamagedBatch
from k2d.store.drafts import Draft
from services.filter.context import InFeeds, InLake, InPolicy, InQueue, InSettings
from services.filter.events import BatchEvents
from services.filter.filling import IN_THE_REQUEST, draft_status, open_draft, reference_draft
from services.filter.intake import OPENAPI_BODY, forecast_batch, read_body, read_options, store_batch
from services.filter.queue import WorkQueue, request_descriptions, request_plan
from services.web.access import ANONYMOUS
from services.web.pools import FOREIGN, STORE
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1", tags=["batches"], responses=EVERYWHERE)

ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": BatchStatus | Forecast, "description": "The same batch was there already; or a forecast"},
    201: {"model": OpenBatch, "description": "Open (`open=true`): send files"},
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
    open_: Annotated[
        bool,
        Query(alias="open", description="Take files by PUT …/sources/NAME until POST …/close; body: options."),
    ] = False,
    add: Annotated[bool, Query(description="Add what is new to the batch of that name, if there is one.")] = False,
) -> BatchStatus | Forecast | OpenBatch:
    if open_:
        draft = await STORE.run(open_draft, await read_options(request), lake, settings, adds=add)
        response.status_code = 201
        response.headers["Location"] = f"/v1/batches/{draft.id}"
        return OpenBatch(id=draft.id, name=draft.name)
    async with read_body(request, lake) as body:
        if isinstance(body, BatchByReference) and not dry_run and (add or len(body.sources) > IN_THE_REQUEST):
            status = await STORE.run(_refer, body, lake, queue, settings, adds=add)
            response.headers["Location"] = f"/v1/batches/{status.id}"
            return status
        pool = FOREIGN if isinstance(body, BatchByReference) else STORE
        if dry_run:
            response.status_code = 200
            return await pool.run(forecast_batch, body, lake, settings)
        batch = await pool.run(store_batch, body, lake, settings, adds=add)
    if not await STORE.run(queue_missing, batch, lake, queue):
        response.status_code = 200
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    left_out = await STORE.run(terms_left_out, body if isinstance(body, BatchOptions) else body.options, settings)
    status = await STORE.run(batch_status, batch, lake, queue)
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
    return BatchList(
        batches=[_listed(entry, lake, queue) for entry in map(lake.batches.entry, page) if entry is not None],
        next=page[-1] if start + limit < len(ids) else None,
    )


@router.get("/batches/{batch}", summary="State, ledger, quarantined recordings", responses=responses(404))
def get_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings, policy: InPolicy) -> BatchStatus:
    try:
        return batch_status(lake.batches.get(batch), lake, queue, policy)
    except NotFound:
        draft, batch_id = _draft(batch, lake)
        if draft is None:
            raise
    if batch_id is not None:
        return batch_status(lake.batches.get(batch_id), lake, queue, policy)
    return draft_status(draft, lake, settings, queue.live(draft.id))


@router.delete(
    "/batches/{batch}",
    status_code=202,
    summary="Cancel: nothing new is begun, what is done stays",
    responses=responses(404),
)
def cancel_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> BatchStatus:
    try:
        stored = lake.batches.get(batch)
    except NotFound:
        draft, batch_id = _draft(batch, lake)
        if draft is None:
            raise
        if batch_id is None:
            status = draft_status(draft, lake, settings, None)
            lake.drafts.remove(draft.id)
            return status.model_copy(update={"state": BatchState.CANCELLED})
        stored = lake.batches.get(batch_id)
    lake.batches.cancel(stored.id)
    return batch_status(stored, lake, queue)


@router.post(
    "/batches/{batch}/retry",
    status_code=202,
    summary="Do what is missing, and try the quarantined recordings again",
    responses=responses(404),
)
def retry_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> BatchStatus:
    try:
        stored = lake.batches.get(batch)
    except NotFound:
        draft, batch_id = _draft(batch, lake)
        if draft is None:
            raise
        if batch_id is None:
            _request_missing(draft, lake, queue)
            return draft_status(draft, lake, settings, queue.live(draft.id))
        stored = lake.batches.get(batch_id)
    lake.batches.retry(stored.id)
    queue.forget(stored.id)
    request_plan(queue, stored.id)
    return batch_status(stored, lake, queue)


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
            if not lake.batches.is_cancelled(batch.id) and (count := queue_missing(batch, lake, queue)):
                missing[batch.id] = count
        except (DamagedFile, NotFound) as error:  # the other batches go on
            failed[batch.id] = described(error)
    for draft in lake.drafts.unfinished():
        _request_missing(draft, lake, queue)
        missing[draft.id] = draft.count
    if not failed:
        lake.mark_current()
    return ResumeResult(batches=missing, failed=failed)


@router.get(
    "/batches/{batch}/events",
    summary="Server-sent events: `status` while it goes on, `end` when nothing more will happen",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **responses(404, 429)},
)
async def batch_events(batch: str, request: Request, lake: InLake, feeds: InFeeds) -> BatchEvents:
    stored = await STORE.run(lake.batches.get, batch)
    caller = getattr(request.state, "caller", ANONYMOUS)
    return BatchEvents(feeds.listen(stored, caller.name))


def _refer(body: BatchByReference, lake: Lake, queue: WorkQueue, settings: Settings, *, adds: bool) -> BatchStatus:
    """Store the URIs as a draft, and queue that they are looked at."""
    draft = reference_draft(body, lake, settings, adds=adds)
    request_descriptions(queue, draft.id, range(draft.parts))
    return draft_status(draft, lake, settings, queue.live(draft.id))


def _request_missing(draft: Draft, lake: Lake, queue: WorkQueue) -> None:
    """Queue the describing of the parts that are not described; of a draft with none, what makes the batch of it."""
    parts = set(range(draft.parts)) - lake.drafts.described_parts(draft.id) or {draft.parts - 1}
    if draft.parts:
        request_descriptions(queue, draft.id, sorted(parts))


def _draft(id_or_name: str, lake: Lake) -> tuple[Draft | None, str | None]:
    """The draft of this id or name, and the batch that it became."""
    try:
        draft = lake.drafts.get(id_or_name)
    except NotFound:
        return None, None
    return draft, lake.drafts.closed(draft.id)


def queue_missing(batch: Batch, lake: Lake, queue: WorkQueue) -> int:
    """Queue the planning of a batch unless every recording has a result; returns how many have none."""
    missing = len(batch.sources) - len(lake.batches.result_positions(batch.id))
    if missing:
        request_plan(queue, batch.id)
    return missing


def batch_status(batch: Batch, lake: Lake, queue: WorkQueue, policy: Policy = DEFAULT) -> BatchStatus:
    return views.status(lake, batch, policy, jobs=queue.live(batch.id))


def _listed(batch: Batch | DamagedBatch, lake: Lake, queue: WorkQueue) -> BatchItem:
    """A batch for a list; Redis is asked only about those whose state depends on it."""
    if isinstance(batch, DamagedBatch):
        return views.listed_damaged(batch)
    listed = views.listed(lake, batch)
    if listed.state is not BatchState.STALLED:
        return listed
    state = views.state(lake, batch, pending=listed.pending, jobs=queue.live(batch.id))
    return listed.model_copy(update={"state": state})

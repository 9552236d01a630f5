"""Batches: accept audio, answer 202 at once, and report progress."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sse_starlette import EventSourceResponse

from k2d.corpus import index, views
from k2d.corpus.batch_index import BatchIndex
from k2d.corpus.index import take_back_outdated
from k2d.documents import (
    BatchByReference,
    BatchItem,
    BatchList,
    BatchOptions,
    BatchStatus,
    Forecast,
    Jobs,
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
from k2d.store.heartbeats import Heartbeat
from services.filter.context import InFeeds, InLake, InPolicy, InQueue, InSettings
from services.filter.events import BatchEvents
from services.filter.filling import IN_THE_REQUEST, draft_status, open_draft, reference_draft
from services.filter.index_jobs import queue_unmade
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
            return await pool.run(forecast_batch, body, lake, settings, adds=add)
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
        hint = "use `next` of the page before as it is"
        raise BadRequest("the cursor names no batch", hint=hint, parameter="cursor", value=cursor[:100])
    start = ids.index(cursor) + 1 if cursor is not None else 0
    page = ids[start : start + limit]
    entries = [entry for entry in map(lake.batches.entry, page) if entry is not None]
    return BatchList(
        batches=listed_batches(entries, lake, queue),
        next=page[-1] if start + limit < len(ids) else None,
    )


@router.get("/batches/{batch}", summary="State, ledger, quarantined recordings", responses=responses(404))
def get_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings, policy: InPolicy) -> BatchStatus:
    stored = _batch_or_draft(batch, lake)
    if isinstance(stored, Draft):
        return draft_status(stored, lake, settings, queue.live(stored.id))
    return batch_status(stored, lake, queue, policy)


@router.delete(
    "/batches/{batch}",
    status_code=202,
    summary="Cancel: nothing new is begun, what is done stays",
    responses=responses(404),
)
def cancel_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> BatchStatus:
    stored = _batch_or_draft(batch, lake)
    if isinstance(stored, Draft):
        status = draft_status(stored, lake, settings, None)
        lake.drafts.remove(stored.id)
        return status.model_copy(update={"state": BatchState.CANCELLED})
    lake.batches.cancel(stored.id)
    return batch_status(stored, lake, queue)


@router.post(
    "/batches/{batch}/retry",
    status_code=202,
    summary="Do what is missing, and try the quarantined recordings again",
    responses=responses(404),
)
def retry_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> BatchStatus:
    stored = _batch_or_draft(batch, lake)
    if isinstance(stored, Draft):
        _request_missing(stored, lake, queue)
        return draft_status(stored, lake, settings, queue.live(stored.id))
    index.retry(lake, stored)
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
    at_work: dict[str, str] = {}
    for batch in lake.batches.entries():
        if isinstance(batch, DamagedBatch):
            failed[batch.id] = described(batch.error)
            continue
        try:
            take_back_outdated(lake, batch, search=True)
            if lake.batches.is_cancelled(batch.id) or not _missing(batch, lake):
                continue
            if (other := _at_work_without_job(batch, lake, queue)) is not None:
                at_work[batch.id] = str(other)
            else:
                missing[batch.id] = queue_missing(batch, lake, queue)
        except (DamagedFile, NotFound) as error:  # the other batches go on
            failed[batch.id] = described(error)
    for draft in lake.drafts.unfinished():
        _request_missing(draft, lake, queue)
        missing[draft.id] = draft.count
    if not failed and not at_work:
        lake.mark_current()
    return ResumeResult(batches=missing, failed=failed, at_work=at_work)


def _at_work_without_job(batch: Batch, lake: Lake, queue: WorkQueue) -> Heartbeat | None:
    """A process that labels the batch without a job, as `k2d label` does; None if there is none, or a job runs."""
    others = [beat for beat in lake.heartbeats.of(batch.id) if not beat.has_job]
    jobs = queue.live(batch.id) if others else None
    return others[0] if others and not (jobs and jobs.jobs_running) else None


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


def _batch_or_draft(id_or_name: str, lake: Lake) -> Batch | Draft:
    """The batch of this id or name, or that a draft of this id became; else the draft.

    Raises:
        NotFound: there is neither.
    """
    try:
        return lake.batches.get(id_or_name)
    except NotFound as error:
        no_batch = error
    try:
        draft = lake.drafts.get(id_or_name)
    except NotFound:
        raise no_batch from None
    batch_id = lake.drafts.closed(draft.id)
    return draft if batch_id is None else lake.batches.get(batch_id)


def queue_missing(batch: Batch, lake: Lake, queue: WorkQueue) -> int:
    """Queue the planning of a batch unless every recording has a result; returns how many have none."""
    missing = _missing(batch, lake)
    if missing:
        request_plan(queue, batch.id)
    return missing


def _missing(batch: Batch, lake: Lake) -> int:
    return len(batch.sources) - len(lake.batches.result_positions(batch.id))


def batch_status(batch: Batch, lake: Lake, queue: WorkQueue, policy: Policy = DEFAULT) -> BatchStatus:
    jobs = queue.live(batch.id)  # before the index: what a job finishes in between counts as done, not as stalled
    stored = BatchIndex(lake, batch)
    make = not queue_unmade(stored, batch, queue)
    if not make:
        jobs = queue.live(batch.id)
    return views.status(lake, batch, policy, jobs=jobs, index=stored, make=make)


def listed_batches(entries: Sequence[Batch | DamagedBatch], lake: Lake, queue: WorkQueue) -> list[BatchItem]:
    """Batches for a list; Redis is asked once, about those whose state depends on it."""
    items = [
        views.listed_damaged(entry) if isinstance(entry, DamagedBatch) else views.listed(lake, entry)
        for entry in entries
    ]
    waiting = {item.id for item in items if item.state in (BatchState.STALLED, BatchState.RUNNING)}
    jobs = queue.live_many(sorted(waiting)) if waiting else {}
    return [_with_jobs(item, lake, jobs.get(item.id)) if item.id in waiting else item for item in items]


def _with_jobs(item: BatchItem, lake: Lake, jobs: Jobs | None) -> BatchItem:
    state = views.state(lake, lake.batches.get(item.id), pending=item.pending, jobs=jobs)
    return item.model_copy(update={"state": state})

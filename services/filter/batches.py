"""Batches: accept audio, answer 202 at once, and report progress."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from k2d import audio, sources
from k2d.corpus import views
from k2d.corpus.index import take_back_outdated
from k2d.documents import (
    BatchByReference,
    BatchList,
    BatchOptions,
    BatchStatus,
    BatchUpload,
    Forecast,
    Resumed,
)
from k2d.errors import AudioError, BadRequest, K2DError
from k2d.filtering.policy import DEFAULT, Policy
from k2d.keys import digest
from k2d.labeling.forecast import forecast
from k2d.labeling.request import make_batch
from k2d.schema import Batch, BatchState, Outcome, Source
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.context import InLake, InPolicy, InQueue, InSettings
from services.filter.queue import WorkQueue, request_plan
from services.web.problems import responses

router = APIRouter(prefix="/v1", tags=["batches"])

Options = TypeVar("Options", bound=BatchOptions)

MAX_FILES = 10_000  # in one request; larger corpora come by reference or in several batches
EVENT_S = 1.0  # between looks at a batch for its events
PING_S = 15  # between comments that keep proxies from closing an idle stream

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": BatchUpload.model_json_schema()},
            "application/json": {"schema": BatchByReference.model_json_schema()},
        },
    }
}


@router.post(
    "/batches",
    status_code=202,
    summary="Label recordings: files in the request, or URIs the service fetches",
    openapi_extra=BODY,
    responses={
        200: {"model": BatchStatus | Forecast, "description": "The same batch was there already; or a forecast"},
        202: {"model": BatchStatus, "description": "Queued"},
        **responses(400, 403, 404, 409, 413, 415, 422, 503),
    },
)
async def create_batch(
    request: Request,
    lake: InLake,
    queue: InQueue,
    settings: InSettings,
    dry_run: Annotated[bool, Query(description="Answer with a forecast; store and queue nothing.")] = False,
) -> Response:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=MAX_FILES, max_fields=50) as form:
                return await asyncio.to_thread(_from_form, form, lake, queue, settings, dry_run)
        if kind == "application/json":
            body = _checked(BatchByReference, await request.body())
            return await asyncio.to_thread(_by_reference, body, lake, queue, settings, dry_run)
    except ClientDisconnect as error:
        raise BadRequest("the connection closed before the body was complete", hint="nothing was stored") from error
    raise UnsupportedBody(f"cannot read a body of type {kind or '(none)'!r}")


class UnsupportedBody(K2DError):
    """The body is neither multipart nor JSON."""

    code = "unsupported_media_type"
    status = 415
    hint = "send multipart/form-data with `files`, or application/json with `sources`"


def _from_form(form: FormData, lake: Lake, queue: WorkQueue, settings: Settings, dry_run: bool) -> Response:
    uploads = [part for part in form.getlist("files") if isinstance(part, UploadFile)]
    if len(uploads) != len(form.getlist("files")):
        raise BadRequest("`files` parts must be files", hint="give each part a file name")
    fields = {key: value for key, value in form.items() if key != "files"}
    options = _checked(BatchOptions, json.dumps(fields, default=str).encode())
    if dry_run:
        durations = [_header_duration(upload) for upload in uploads]
        make_batch([Source("x", "x", "x")] * bool(uploads), options, settings)  # the options are checked too
        return JSONResponse(forecast(durations, lake).as_json())
    uploaded = []
    for upload in uploads:
        name = _file_name(upload)
        uri, sha256, size = lake.uploads.put(upload.file)
        uploaded.append(Source(name=name, uri=uri, key=digest("upload", sha256), size_bytes=size))
    return _accept(make_batch(uploaded, options, settings), lake, queue)


def _by_reference(body: BatchByReference, lake: Lake, queue: WorkQueue, settings: Settings, dry_run: bool) -> Response:
    for uri in body.sources:
        sources.check_allowed(uri, settings.allowed_sources)
    described = [sources.describe(uri, allowed=settings.allowed_sources) for uri in body.sources]
    batch = make_batch(described, body, settings)
    if not dry_run:
        return _accept(batch, lake, queue)
    durations: list[float | None] = []
    for source in batch.sources:
        duration = None
        opened = partial(sources.open_source, source, lake.open, allowed=settings.allowed_sources)
        with suppress(AudioError, OSError), opened() as file:
            duration = audio.probe_duration_s(file)
        durations.append(duration)
    return JSONResponse(forecast(durations, lake).as_json())


def _accept(batch: Batch, lake: Lake, queue: WorkQueue) -> Response:
    """Store the batch, then queue its planning; a batch that is there already is answered as it stands."""
    lake.batches.put(batch)
    stored = lake.batches.get(batch.id)
    take_back_outdated(lake, stored)
    if len(lake.batches.result_positions(stored.id)) < len(stored.sources):
        request_plan(queue, stored.id)
        code = 202
    else:
        code = 200
    return JSONResponse(
        _status(stored, lake, queue).as_json(), status_code=code, headers={"Location": f"/v1/batches/{stored.id}"}
    )


def _file_name(upload: UploadFile) -> str:
    """The name as the client's user saw it: HTML's form encoding escapes quotes and line breaks, and only these."""
    name = upload.filename or "unnamed"
    for escaped, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        name = name.replace(escaped, character)
    return name


def _header_duration(upload: UploadFile) -> float | None:
    with suppress(AudioError, OSError):
        return audio.probe_duration_s(upload.file)
    return None


def _checked(model: type[Options], body: bytes) -> Options:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [{"where": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{item['where'] or 'body'}: {item['message']}" for item in problems)
        raise BadRequest(detail, hint="see /docs for what is expected", errors=problems) from error


def _status(batch: Batch, lake: Lake, queue: WorkQueue, policy: Policy = DEFAULT) -> BatchStatus:
    return views.status(lake, batch, policy, jobs=queue.live(batch.id))


@router.get("/batches", summary="All batches, newest first", responses=responses(400, 422))
def list_batches(
    lake: InLake, queue: InQueue, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: str | None = None
) -> BatchList:
    ids = lake.batches.ids()
    if cursor is not None and cursor not in ids:
        raise BadRequest("the cursor names no batch", hint="use `next` of the page before as it is")
    after = ids.index(cursor) + 1 if cursor is not None else 0
    page = ids[after : after + limit]
    listed = [views.listed(lake, batch, jobs=queue.live(batch.id)) for batch in map(lake.batches.get, page)]
    return BatchList(batches=listed, next=page[-1] if after + limit < len(ids) else None)


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
    responses=responses(404, 503),
)
def retry_batch(batch: str, lake: InLake, queue: InQueue) -> BatchStatus:
    stored = lake.batches.get(batch)
    lake.batches.uncancel(stored.id)
    for result in list(lake.batches.results(stored.id)):
        if result.outcome == Outcome.QUARANTINED:
            lake.batches.delete_result(stored.id, result.position)
    queue.forget(stored.id)
    request_plan(queue, stored.id)
    return _status(stored, lake, queue)


@router.post(
    "/resume",
    status_code=202,
    summary="Queue again exactly what is missing, after Redis was lost",
    responses=responses(503),
)
def resume(lake: InLake, queue: InQueue) -> Resumed:
    missing = {}
    for batch in lake.batches.all():
        take_back_outdated(lake, batch)
        left = len(batch.sources) - len(lake.batches.result_positions(batch.id))
        if left and not lake.batches.is_cancelled(batch.id):
            request_plan(queue, batch.id)
            missing[batch.id] = left
    lake.mark_current()
    return Resumed(batches=missing)


@router.get(
    "/batches/{batch}/events",
    summary="Server-sent events: `status` while it goes on, `end` when nothing more will happen",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **responses(404)},
)
async def batch_events(batch: str, lake: InLake, queue: InQueue) -> EventSourceResponse:
    stored = await asyncio.to_thread(lake.batches.get, batch)

    async def events() -> AsyncIterator[ServerSentEvent]:
        sent = ""
        while True:
            status = await asyncio.to_thread(_status, stored, lake, queue)
            ended = status.state in (BatchState.DONE, BatchState.CANCELLED)
            text = status.model_dump_json(by_alias=True)
            if text != sent or ended:
                yield ServerSentEvent(text, event="end" if ended else "status", sep="\n")
                sent = text
            if ended:
                return
            await asyncio.sleep(EVENT_S)

    return EventSourceResponse(events(), sep="\n", ping=PING_S)

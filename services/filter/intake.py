"""Reads the body of POST /v1/batches, a form with files or JSON with URIs, and stores the batch or forecasts it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from k2d import sources
from k2d.audio.isolated import DecodeLimits
from k2d.corpus.index import take_back_outdated
from k2d.documents import BatchByReference, BatchOptions, BatchUpload, Forecast
from k2d.errors import BadRequest, K2DError
from k2d.labeling.accept import accept, batch_before, batch_with_all, count_channels, split_stored
from k2d.labeling.forecast import Header, forecast, probe_header
from k2d.labeling.request import check_choice, make_batch, split_channels
from k2d.schema import Batch, Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.uploads import StagedUpload
from services.filter.filling import source_of
from services.web.forms import Form, FormReader
from services.web.limits import JSON
from services.web.pools import STORE

Options = TypeVar("Options", bound=BatchOptions)

MAX_FILES: Final = 10_000  # in one request; larger corpora come by reference or in several batches
MAX_FIELDS: Final = 50  # of a form beside its files; more than there are options

OPENAPI_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": BatchUpload.model_json_schema()},
            "application/json": {"schema": BatchByReference.model_json_schema()},
        },
    }
}


class UnsupportedBody(K2DError):
    """The body is neither multipart nor JSON."""

    code = "unsupported_media_type"
    status = 415
    hint = "send multipart/form-data with `files`, or application/json with `sources`"


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A recording of a form: received and hashed, not in the lake yet."""

    name: str
    staged: StagedUpload

    @property
    def source(self) -> Source:
        """As it is when it is in the lake."""
        return source_of(self.name, self.staged.sha256, self.staged.size)


@dataclass(frozen=True, slots=True)
class UploadedFiles:
    """The recordings of a form, and its other fields."""

    files: list[UploadedFile]
    options: BatchOptions


@asynccontextmanager
async def read_body(request: Request, lake: Lake) -> AsyncIterator[UploadedFiles | BatchByReference]:
    """The body of a request, checked. Its files exist inside the `async with` only, unless they are committed there.

    Raises:
        UnsupportedBody: another content type.
        BadRequest: something in it is wrong, or the client left before it had sent all of it.
        StoreError: there is no room for the files.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == JSON:
            yield _parse(BatchByReference, await request.body())
        elif kind == "multipart/form-data":
            reader = FormReader(lake.uploads.stage, max_files=MAX_FILES, max_fields=MAX_FIELDS)
            try:
                yield _uploaded(await reader.read(request))
            finally:
                await STORE.run(_discard, reader.form)
        else:
            raise UnsupportedBody(f"cannot read a body of type {kind or '(none)'!r}")
    except ClientDisconnect as error:
        raise BadRequest("the connection closed before the body was complete", hint="nothing was stored") from error


async def read_options(request: Request) -> BatchOptions:
    """The options of a batch that is opened: a JSON body, or none.

    Raises:
        UnsupportedBody: a body of another type.
        BadRequest: not options.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind != JSON:
            async for block in request.stream():
                if block:
                    raise UnsupportedBody("the options of a batch are JSON", hint="send application/json, or no body")
            return BatchOptions()
        body = await request.body()
    except ClientDisconnect as error:
        raise BadRequest("the connection closed before the body was complete", hint="nothing was stored") from error
    return _parse(BatchOptions, body or b"{}")


def _discard(form: Form[StagedUpload]) -> None:
    for file in form.files:
        file.sink.discard()


def store_batch(body: UploadedFiles | BatchByReference, lake: Lake, settings: Settings, *, adds: bool = False) -> Batch:
    """Store the files, then the batch; returns it as it is stored: one that was there already stays as it was.

    With `adds`, what is new is added to the batch of that name. A batch that is refused leaves no file. Results that
    an earlier version wrote are taken away, so that those recordings are done again.

    Raises:
        BadRequest: the options make no sense.
        ModelRefused: a model that clients may not choose.
        SourceRefused: a URI is outside the allowed prefixes.
        NotFound: there is nothing at a URI.
        Conflict: the name belongs to another batch.
        StoreError
    """
    options = body.options if isinstance(body, UploadedFiles) else body
    check_choice(options, settings)
    if isinstance(body, UploadedFiles):
        files = _received(body, settings)
        batch = make_batch(files, options, settings)
        if not (adds and options.name and lake.batches.find(options.name)) and batch_with_all(batch, lake) is None:
            lake.batches.refuse_taken(batch)
        for file in body.files:
            file.staged.commit()
    else:
        files = _referenced(body, lake, settings)
    stored = lake.batches.get(accept(files, options, lake, settings, adds=adds).id)
    take_back_outdated(lake, stored)
    return stored


def forecast_batch(
    body: UploadedFiles | BatchByReference, lake: Lake, settings: Settings, *, adds: bool = False
) -> Forecast:
    """Estimate what the batch would cost, or what is added to one; nothing is stored. Errors as for `store_batch`."""
    options = body.options if isinstance(body, UploadedFiles) else body
    check_choice(options, settings)
    staged: dict[str, Callable[[], BinaryIO]] = {}
    if isinstance(body, UploadedFiles):
        files = _received(body, settings)
        staged |= {file.staged.uri: file.staged.open for file in body.files}
    else:
        files = _referenced(body, lake, settings)
    batch = make_batch(files, options, settings)
    before = batch_before(files, options, lake, settings) if adds else None

    def header_of(source: Source) -> Header:
        stored = partial(sources.open_source, source, lake.open, allowed=settings.allowed_sources)
        opened = staged.get(source.uri, stored)
        asks = batch.audio.channel is not None
        return probe_header(source.name, opened, DecodeLimits.of(settings), counts_channels=asks)

    return forecast(batch.sources, lake, before or batch, header_of=header_of)


def _received(body: UploadedFiles, settings: Settings) -> list[Source]:
    """The sources of uploaded files, which are not in the lake yet."""
    opened = {file.staged.uri: file.staged.open for file in body.files}

    def channels_of(source: Source) -> int | None:
        return count_channels(opened[source.uri], settings)

    files = [file.source for file in body.files]
    return split_channels(files, body.options, settings, channels_of=channels_of)


def _referenced(body: BatchByReference, lake: Lake, settings: Settings) -> list[Source]:
    for uri in body.sources:
        sources.check_allowed(uri, settings.allowed_sources)
    described = [sources.describe(uri, allowed=settings.allowed_sources) for uri in body.sources]
    return split_stored(described, body, lake, settings, allowed=settings.allowed_sources)


def _uploaded(form: Form[StagedUpload]) -> UploadedFiles:
    if any(name == "files" for name, _ in form.fields):
        raise BadRequest("`files` parts must be files", hint="give each part a file name")
    others = sorted({file.field for file in form.files} - {"files"})
    if others:
        raise BadRequest(f"unknown file field: {', '.join(others)[:200]}", hint="send recordings as `files`")
    files = [UploadedFile(file.name, file.sink) for file in form.files]
    return UploadedFiles(files, _parse(BatchOptions, json.dumps(dict(form.fields)).encode()))


def _parse(model: type[Options], body: bytes) -> Options:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [{"where": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{item['where'] or 'body'}: {item['message']}" for item in problems)
        raise BadRequest(detail, hint="see /docs for what is expected", errors=problems) from error

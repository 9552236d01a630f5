"""Reads the body of POST /v1/batches, a form with files or JSON with URIs, and stores the batch or forecasts it."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from k2d import sources
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.corpus.index import take_back_outdated
from k2d.documents import BatchByReference, BatchOptions, BatchUpload, Forecast
from k2d.errors import AudioError, BadRequest, K2DError
from k2d.labeling.forecast import Header, forecast, probe_header
from k2d.labeling.request import check_choice, make_batch, split_channels
from k2d.schema import EACH, Batch, Source
from k2d.settings import Settings
from k2d.store import Lake
from services.web.plain_forms import read_form

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
class UploadedFiles:
    """The recordings of a form, and its other fields."""

    files: list[UploadFile]
    options: BatchOptions


@asynccontextmanager
async def read_body(request: Request) -> AsyncIterator[UploadedFiles | BatchByReference]:
    """The body of a request, checked; its files are open inside the `async with` only.

    Raises:
        UnsupportedBody: another content type.
        BadRequest: something in it is wrong, or the client left before it had sent all of it.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "application/json":
            yield _parse(BatchByReference, await request.body())
        elif kind == "multipart/form-data":
            form = await read_form(request, max_files=MAX_FILES, max_fields=MAX_FIELDS)
            try:
                yield _uploaded(form)
            finally:
                await form.close()
        else:
            raise UnsupportedBody(f"cannot read a body of type {kind or '(none)'!r}")
    except ClientDisconnect as error:
        raise BadRequest("the connection closed before the body was complete", hint="nothing was stored") from error


def store_batch(body: UploadedFiles | BatchByReference, lake: Lake, settings: Settings) -> Batch:
    """Store the files, then the batch; returns it as it is stored: one that was there already stays as it was.

    Results that an earlier version wrote are taken away, so that those recordings are done again.

    Raises:
        BadRequest: the options make no sense.
        ModelRefused: a model that clients may not choose.
        SourceRefused: a URI is outside the allowed prefixes.
        NotFound: there is nothing at a URI.
        Conflict: the name belongs to another batch.
        StoreError
    """
    check_choice(body.options if isinstance(body, UploadedFiles) else body, settings)
    if isinstance(body, UploadedFiles):
        stored_files = [_store_file(file, lake) for file in body.files]
        batch = make_batch(_split(stored_files, body.options, lake, settings), body.options, settings)
    else:
        batch = _referenced(body, lake, settings)
    lake.batches.put(batch)
    stored = lake.batches.get(batch.id)
    take_back_outdated(lake, stored)
    return stored


def forecast_batch(body: UploadedFiles | BatchByReference, lake: Lake, settings: Settings) -> Forecast:
    """Estimate what the batch would cost; nothing is stored. Errors as for `store_batch`."""
    check_choice(body.options if isinstance(body, UploadedFiles) else body, settings)
    limits = DecodeLimits.of(settings)
    if isinstance(body, UploadedFiles):
        placeholder = [Source("x", "x", "x")] * bool(body.files)
        # files get their keys when they are stored
        batch = make_batch(placeholder, body.options, settings)
        each = (body.options.channels or settings.channels) == EACH
        headers: list[Header] = []
        for file in body.files:
            channels = _header_channels(file, limits) if each else 1  # before the next line, which closes the file
            headers += [probe_header(_file_name(file), partial(_content, file), limits)] * channels
        return forecast(headers, lake, batch)
    batch = _referenced(body, lake, settings)
    opened = partial(sources.open_source, lake_open=lake.open, allowed=settings.allowed_sources)
    headers = [probe_header(source.name, partial(opened, source), limits) for source in batch.sources]
    return forecast(headers, lake, batch)


def _referenced(body: BatchByReference, lake: Lake, settings: Settings) -> Batch:
    for uri in body.sources:
        sources.check_allowed(uri, settings.allowed_sources)
    described = [sources.describe(uri, allowed=settings.allowed_sources) for uri in body.sources]
    return make_batch(_split(described, body, lake, settings), body, settings)


def _split(files: Sequence[Source], options: BatchOptions, lake: Lake, settings: Settings) -> list[Source]:
    def channels_of(source: Source) -> int | None:
        # uploads lie in the lake, where the allow-list does not apply
        with (
            suppress(AudioError, OSError),
            sources.open_source(source, lake.open, allowed=settings.allowed_sources) as file,
        ):
            return isolated.probe_channels(file, limits=DecodeLimits.of(settings))
        return None

    return split_channels(files, options, settings, channels_of=channels_of)


def _uploaded(form: FormData) -> UploadedFiles:
    files = [part for part in form.getlist("files") if isinstance(part, UploadFile)]
    if len(files) != len(form.getlist("files")):
        raise BadRequest("`files` parts must be files", hint="give each part a file name")
    fields = {key: value for key, value in form.items() if key != "files"}
    return UploadedFiles(files, _parse(BatchOptions, json.dumps(fields, default=str).encode()))


def _store_file(file: UploadFile, lake: Lake) -> Source:
    uri, sha256, size = lake.uploads.put(file.file)
    return Source(name=_file_name(file), uri=uri, key=sources.content_key(sha256), size_bytes=size, sha256=sha256)


def _file_name(file: UploadFile) -> str:
    """The name as the client's user saw it: HTML's form encoding escapes quotes and line breaks, and only these."""
    name = file.filename or "unnamed"
    for escaped, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        name = name.replace(escaped, character)
    return name


def _content(file: UploadFile) -> BinaryIO:
    return file.file


def _header_channels(file: UploadFile, limits: DecodeLimits) -> int:
    with suppress(AudioError, OSError):
        return isolated.probe_channels(file.file, limits=limits) or 1
    return 1


def _parse(model: type[Options], body: bytes) -> Options:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [{"where": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{item['where'] or 'body'}: {item['message']}" for item in problems)
        raise BadRequest(detail, hint="see /docs for what is expected", errors=problems) from error

"""The files of an open batch: declared, sent one by one, gone on with where a connection broke.

The headers are those of "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload): `Upload-Offset`,
`Upload-Complete`; and `Repr-Digest` of RFC 9530. docs/adr/0012 says why not all of that draft.
"""

import base64
import binascii
import re
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.requests import ClientDisconnect

from k2d.documents import BatchStatus, MissingSources, SourceDeclarations, UploadedSource
from k2d.errors import BadRequest, Conflict, NotFound
from k2d.store import Lake
from k2d.store.drafts import Draft
from k2d.store.uploads import StagedUpload
from services.filter.batches import batch_status, queue_missing
from services.filter.context import InLake, InQueue, InSettings
from services.filter.filling import close_draft, declare, require_open, source_of, upload_key
from services.web.forms import FLUSH_BYTES, MAX_NAME_CHARACTERS
from services.web.pools import STORE
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=EVERYWHERE)

_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,100}):")
_OFFSET: Final = re.compile(r"[0-9]{1,15}")
BODY: Final[dict[str, Any]] = {
    "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class WrongOffset(Conflict):
    """The bytes that were sent do not follow those that are there."""

    code = "wrong_offset"
    hint = "GET this address for how many bytes are there, and send those that follow"


class ContentDiffers(Conflict):
    """The file that arrived has another hash than was announced."""

    code = "content_differs"
    hint = "it changed while it was sent: send it again"


@router.post(
    "/{batch}/sources",
    summary="Declare files by name and hash: which have to be sent?",
    responses=responses(404),
)
def declare_sources(batch: str, body: SourceDeclarations, lake: InLake) -> MissingSources:
    return declare(lake.drafts.get(batch), body.sources, lake)


@router.get(
    "/{batch}/sources/{source:path}",
    summary="How much of a file of an open batch is there",
    responses=responses(400, 404),
)
@router.head("/{batch}/sources/{source:path}", include_in_schema=False)
def get_source(
    batch: str,
    source: str,
    response: Response,
    lake: InLake,
    repr_digest: Annotated[str | None, Header(description="`sha-256=:…:` of the file, if it was sent with it.")] = None,
) -> UploadedSource:
    draft = lake.drafts.get(batch)
    sha256 = _sha256(repr_digest)
    offset = lake.partial.offset(upload_key(draft, source, sha256))
    found = _complete(draft, source, sha256, lake) if not offset else None
    if found is None and not offset:
        raise NotFound(f"nothing of {source[:200]!r} is there", hint="send it with PUT")
    document = found or UploadedSource(name=source, offset=offset, complete=False)
    _set_headers(response, document)
    return document


@router.put(
    "/{batch}/sources/{source:path}",
    status_code=201,
    summary="Send a file to an open batch, or the rest of it",
    openapi_extra=BODY,
    responses={201: {"model": UploadedSource}, **responses(400, 404, 409, 413)},
)
async def put_source(
    batch: str,
    source: str,
    request: Request,
    response: Response,
    lake: InLake,
    upload_offset: Annotated[str | None, Header(description="Where the bytes begin; default: 0.")] = None,
    upload_complete: Annotated[str, Header(description="`?0`: more follows in another request.")] = "?1",
    repr_digest: Annotated[str | None, Header(description="`sha-256=:…:` of the whole file.")] = None,
    declared: Annotated[bool, Query(description="The file was declared: only its bytes are new.")] = False,
) -> UploadedSource:
    draft = await STORE.run(lake.drafts.get, batch)
    await STORE.run(require_open, draft, lake)
    if len(source) > MAX_NAME_CHARACTERS:
        raise BadRequest(f"a file name has {len(source)} characters", hint=f"at most {MAX_NAME_CHARACTERS}")
    sha256, offset, complete = _sha256(repr_digest), _offset(upload_offset), _flag(upload_complete)
    key = upload_key(draft, source, sha256)
    there = await STORE.run(lake.partial.offset, key)
    if upload_offset is not None and offset != there:
        raise WrongOffset(f"{there} bytes of {source[:200]!r} are there, not {offset}", offset=there)
    if upload_offset is None and there:
        await STORE.run(lake.partial.remove, key)
    part = await STORE.run(lake.uploads.stage)
    try:
        if not await _receive(request, part, lake, key=key, offset=offset, complete=complete):
            document = UploadedSource(name=source, offset=offset + part.size, complete=False)
        else:
            document = await STORE.run(
                _finish, lake, draft, source, part, key=key, offset=offset, sha256=sha256, declared=declared
            )
    finally:
        await STORE.run(part.discard)
    _set_headers(response, document)
    return document


@router.post(
    "/{batch}/close",
    status_code=202,
    summary="No more files follow: label those that are there",
    responses={200: {"model": BatchStatus, "description": "Nothing is left to do"}, **responses(400, 404, 409)},
)
def close_batch(batch: str, lake: InLake, queue: InQueue, settings: InSettings, response: Response) -> BatchStatus:
    stored = close_draft(lake.drafts.get(batch), lake, settings)
    if not queue_missing(stored, lake, queue):
        response.status_code = 200
    response.headers["Location"] = f"/v1/batches/{stored.id}"
    return batch_status(stored, lake, queue)


async def _receive(request: Request, part: StagedUpload, lake: Lake, *, key: str, offset: int, complete: bool) -> bool:
    """Write the body to `part`; returns whether it is the last of the file. What arrived of a body that breaks off, and
    a body after which more follows, is kept for later."""
    buffer = bytearray()
    whole = False
    try:
        async for block in request.stream():
            buffer += block
            if len(buffer) >= FLUSH_BYTES:
                await STORE.run(part.write, bytes(buffer))
                buffer.clear()
        whole = True
    except ClientDisconnect as error:
        raise BadRequest("the connection closed before the file was complete", hint="send the rest later") from error
    finally:
        if buffer:
            part.write(bytes(buffer))  # in this thread: a request that is cancelled waits for no other
        part.finish()
        if not (whole and complete) and part.size:
            lake.partial.append(key, offset, part)
    return complete


def _finish(
    lake: Lake,
    draft: Draft,
    name: str,
    part: StagedUpload,
    *,
    key: str,
    offset: int,
    sha256: str | None,
    declared: bool,
) -> UploadedSource:
    """Store a file whose last part has arrived."""
    with lake.uploads.stage() as joined:
        if offset:
            for block in lake.partial.read(key):
                joined.write(block)
            with part.open() as file:
                while block := file.read(1 << 20):
                    joined.write(block)
        joined.finish()
        staged = joined if offset else part
        if sha256 is not None and staged.sha256 != sha256:
            lake.partial.remove(key)
            raise ContentDiffers(f"{name[:200]!r} has another hash than was announced", sha256=staged.sha256)
        if not declared:
            _refuse_other(lake, draft, name, staged.sha256)
        staged.commit()
        if not declared:
            lake.drafts.add(draft.id, [source_of(name, staged.sha256, staged.size)])
        lake.partial.remove(key)
        return UploadedSource(name=name, offset=staged.size, complete=True, sha256=staged.sha256)


def _refuse_other(lake: Lake, draft: Draft, name: str, sha256: str) -> None:
    for known in lake.drafts.sources(draft.id):
        if known.name == name and known.sha256 != sha256:
            raise Conflict(
                f"batch {draft.name!r} has another file called {name[:200]!r}", hint="send it under a name of its own"
            )


def _complete(draft: Draft, name: str, sha256: str | None, lake: Lake) -> UploadedSource | None:
    for known in lake.drafts.sources(draft.id):
        if known.name == name and sha256 in (None, known.sha256) and lake.uploads.has(known.sha256 or ""):
            return UploadedSource(name=name, offset=known.size_bytes or 0, complete=True, sha256=known.sha256)
    return None


def _set_headers(response: Response, document: UploadedSource) -> None:
    response.headers["Upload-Offset"] = str(document.offset)
    response.headers["Upload-Complete"] = "?1" if document.complete else "?0"


def _sha256(header: str | None) -> str | None:
    """The SHA-256 of a Repr-Digest header, in hex; None without the header."""
    if header is None:
        return None
    match = _DIGEST.search(header)
    with suppress(binascii.Error):
        raw = base64.b64decode(match[1], validate=True) if match else b""
        if len(raw) == 32:
            return raw.hex()
    raise BadRequest("Repr-Digest names no SHA-256", hint="Repr-Digest: sha-256=:BASE64:, as RFC 9530 has it")


def _offset(header: str | None) -> int:
    if header is None:
        return 0
    if not _OFFSET.fullmatch(header):
        raise BadRequest("Upload-Offset is not a number of bytes", hint="the offset that GET says")
    return int(header)


def _flag(header: str) -> bool:
    if header not in ("?0", "?1"):
        raise BadRequest("Upload-Complete is neither ?0 nor ?1", hint="?1: this is the last of the file")
    return header == "?1"

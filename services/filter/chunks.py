"""Chunks: lists, details, and their audio."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from pydantic import ConfigDict, Field

from k2d.corpus import chunk, chunk_pages
from k2d.documents import ChunkDetail, ChunkFilter, ChunkList
from k2d.errors import K2DError
from services.filter.context import InLake, InPolicy, InQueue
from services.filter.index_jobs import require_index
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/chunks", tags=["chunks"], responses=EVERYWHERE)

RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")  # one range; a header with several is answered with the whole
RangeHeader = Annotated[str | None, Header(alias="Range")]
FOREVER_S: Final = 31536000  # a year: a chunk's id names its audio for ever


class ChunkQuery(ChunkFilter):
    """The query of a list of chunks."""

    model_config = ConfigDict(extra="ignore")  # the policy's parameters are read by InPolicy

    batch: str = Field(description="Batch id or name.")
    limit: int = Field(100, ge=1, le=chunk_pages.MAX_PAGE)
    cursor: str | None = Field(None, description="`next` of the page before.")


class RangeNotSatisfiable(K2DError):
    """The bytes that were asked for lie outside the file."""

    code = "range_not_satisfiable"
    status = 416


@router.get("", summary="A batch's chunks, filtered, a page at a time", responses=responses(400, 404))
def list_chunks(query: Annotated[ChunkQuery, Query()], lake: InLake, queue: InQueue, policy: InPolicy) -> ChunkList:
    batch = lake.batches.get(query.batch)
    require_index([batch], lake, queue)
    return chunk_pages.page(lake, batch, policy, where=query, limit=query.limit, cursor=query.cursor)


@router.get(
    "/{chunk_id}", summary="Hypotheses with the aligned diff, evidence, verdicts and why", responses=responses(404)
)
def get_chunk(chunk_id: str, lake: InLake, policy: InPolicy) -> ChunkDetail:
    return chunk.detail(lake, chunk_id, policy)


@router.get(
    "/{chunk_id}/audio",
    summary="The chunk's audio as FLAC, cut to its label",
    response_class=Response,
    responses={200: {"content": {"audio/flac": {}}}, 206: {"content": {"audio/flac": {}}}, **responses(404, 416)},
)
def get_audio(chunk_id: str, lake: InLake, range_: RangeHeader = None) -> Response:
    return ranged(lake.chunk_audio(chunk.find_chunk(lake, chunk_id).id), range_)


def ranged(flac: bytes, header: str | None) -> Response:
    """The whole file, or the bytes that a Range header asks for: players read the end first, or go on in the middle."""
    headers = {"Accept-Ranges": "bytes", "Cache-Control": f"private, max-age={FOREVER_S}, immutable"}
    asked = RANGE.fullmatch(header or "")
    if asked is None or not (asked[1] or asked[2]):
        return Response(flac, media_type="audio/flac", headers=headers)
    start = int(asked[1]) if asked[1] else max(0, len(flac) - int(asked[2]))
    stop = min(int(asked[2]) + 1, len(flac)) if asked[1] and asked[2] else len(flac)
    if start >= stop:
        raise RangeNotSatisfiable(f"the audio has {len(flac)} bytes", hint="ask for bytes among them")
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(flac)}"
    return Response(flac[start:stop], status_code=206, media_type="audio/flac", headers=headers)

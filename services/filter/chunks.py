"""Chunks: lists, details, and their audio."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from k2d.corpus import chunk, chunk_pages
from k2d.documents import ChunkDetail, ChunkFilter, ChunkList
from services.filter.context import InLake, InPolicy
from services.web.problems import problem, responses

router = APIRouter(prefix="/v1/chunks", tags=["chunks"])

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@router.get("", summary="A batch's chunks, filtered, a page at a time", responses=responses(400, 404, 422))
def list_chunks(
    lake: InLake,
    policy: InPolicy,
    batch: Annotated[str, Query(description="Batch id or name.")],
    where: Annotated[ChunkFilter, Depends()],
    limit: Annotated[int, Query(ge=1, le=chunk_pages.MAX_PAGE)] = 100,
    cursor: str | None = None,
) -> ChunkList:
    return chunk_pages.page(lake, lake.batches.get(batch), policy, where=where, limit=limit, cursor=cursor)


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
def get_audio(chunk_id: str, lake: InLake, range_: Annotated[str | None, Header(alias="Range")] = None) -> Response:
    facts = chunk.find_chunk(lake, chunk_id)
    flac = lake.chunk_audio(facts.id)
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=31536000, immutable"}
    wanted = RANGE.fullmatch(range_ or "")
    if wanted is None or not (wanted[1] or wanted[2]):
        return Response(flac, media_type="audio/flac", headers=headers)
    start = int(wanted[1]) if wanted[1] else max(0, len(flac) - int(wanted[2]))
    stop = min(int(wanted[2]) + 1, len(flac)) if wanted[1] and wanted[2] else len(flac)
    if start >= stop:
        return problem(416, "range_not_satisfiable", f"the audio has {len(flac)} bytes", hint="ask within them")
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(flac)}"
    return Response(flac[start:stop], status_code=206, media_type="audio/flac", headers=headers)

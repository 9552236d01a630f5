"""Pages of batches: the list, a new one, one while it goes on, and its labels as files."""

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from k2d.corpus import views
from k2d.corpus.transcripts import SUBTITLES, chunk_table, subtitle_files
from k2d.documents import BatchItem, BatchStatus, ChunkFilter
from k2d.errors import K2DError
from k2d.filtering.policy import DEFAULT
from k2d.keys import digest
from k2d.schema import AUTO, MIXED, BatchState, Status
from k2d.store import Lake
from k2d.tarstream import tar_of
from services.filter.batches import cancel_batch, get_batch, list_batches, retry_batch
from services.filter.console.page import PageRoute, render
from services.filter.console.progress import progress_of
from services.filter.console.quarantine import REASONS, translated
from services.filter.context import InLake, InQueue, InSettings
from services.filter.index_jobs import require_index
from services.filter.intake import MAX_FILES

router = APIRouter(include_in_schema=False, route_class=PageRoute)

PAGE: Final = 50  # batches on a page
MOST_READ: Final = 1024  # recordings of a batch up to which its results are read for a list
LIST_POLL_S: Final = 10
FIRST_WAIT_S: Final = 2.0  # between two looks at a batch in which something has changed
LONGEST_WAIT_S: Final = 30.0
WAIT_GROWTH: Final = 1.5  # where nothing has changed
ENDED: Final = (BatchState.DONE, BatchState.CANCELLED, BatchState.DAMAGED)
FORECAST_BYTES: Final = 200_000_000  # of files that are sent for a forecast; of more, a sample


@router.get("/")
async def batches_page(
    request: Request, lake: InLake, queue: InQueue, cursor: str | None = None, hours: bool = False
) -> Response:
    """The list. With `hours`, the length of each batch: asked for once the page is shown, since that reads results."""
    page = await asyncio.to_thread(list_batches, lake, queue, PAGE, cursor)
    lengths = await asyncio.to_thread(_lengths, lake, page.batches) if hours else {}
    is_moving = any(item.state in (BatchState.QUEUED, BatchState.RUNNING) for item in page.batches)
    return render(
        request,
        "batches.html",
        page=page,
        cursor=cursor,
        lengths=lengths,
        trigger="load" if not hours else f"every {LIST_POLL_S}s" if is_moving else None,
    )


@router.get("/batches")
def batches_address(request: Request) -> Response:
    return RedirectResponse(request.scope.get("root_path", "") + "/", 307)


@router.get("/batches/new")
def new_batch_page(request: Request, lake: InLake, settings: InSettings, add: str | None = None) -> Response:
    """With `add`, recordings for the batch of this name or id, which has its options already."""
    return render(
        request,
        "batch_new.html",
        extended=lake.batches.get(add) if add else None,
        settings=settings,
        codes=(MIXED, "zh", "en", AUTO),
        models=sorted({*settings.allowed_models, settings.teacher}),
        limits={"bytes": settings.max_upload_bytes, "files": MAX_FILES, "forecast": FORECAST_BYTES},
    )


@router.get("/batches/{batch}")
def batch_page(request: Request, batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> Response:
    status = get_batch(batch, lake, queue, settings, DEFAULT)
    return render(request, "batch.html", **_shown(lake, status), subtitles=list(SUBTITLES))


@router.get("/batches/{batch}/progress")
def batch_progress(
    request: Request,
    batch: str,
    lake: InLake,
    queue: InQueue,
    settings: InSettings,
    seen: str = "",
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = FIRST_WAIT_S,
) -> Response:
    """The part of the page that changes. `seen` is the digest of what is shown: while it is the same, waits grow."""
    status = get_batch(batch, lake, queue, settings, DEFAULT)
    return render(request, "batch_progress.html", **_shown(lake, status, seen, wait))


@router.post("/batches/{batch}/cancel")
def cancel(request: Request, batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> Response:
    return render(request, "batch_progress.html", **_shown(lake, cancel_batch(batch, lake, queue, settings)))


@router.post("/batches/{batch}/retry")
def retry(request: Request, batch: str, lake: InLake, queue: InQueue, settings: InSettings) -> Response:
    return render(request, "batch_progress.html", **_shown(lake, retry_batch(batch, lake, queue, settings)))


@router.get("/batches/{batch}/subtitles/{form}")
def subtitles(batch: str, form: str, lake: InLake) -> StreamingResponse:
    """The subtitles of all recordings as one tar."""
    stored = lake.batches.get(batch)
    return _download(tar_of(subtitle_files(lake, stored, form)), "application/x-tar", f"{stored.id}-{form}.tar")


@router.get("/batches/{batch}/chunks.csv")
def chunks_csv(batch: str, lake: InLake, queue: InQueue, verdict: Status | None = None) -> StreamingResponse:
    """The chunks with both texts and their verdicts, or those of one verdict."""
    stored = lake.batches.get(batch)
    require_index([stored], lake, queue)
    table = chunk_table(lake, stored, DEFAULT, ChunkFilter(verdict=verdict))
    return _download(table, "text/csv; charset=utf-8", f"{stored.id}-{verdict or 'chunks'}.csv")


def _download(blocks: Iterator[bytes], media_type: str, name: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(blocks, media_type=media_type, headers=headers)


def _shown(lake: Lake, status: BatchStatus, seen: str = "", wait: float = FIRST_WAIT_S) -> dict[str, Any]:
    now = digest("status", status.model_dump_json())
    next_wait = FIRST_WAIT_S if now != seen else min(LONGEST_WAIT_S, wait * WAIT_GROWTH)
    return {
        "batch": status,
        "progress": progress_of(status),
        "quarantine_reasons": REASONS,
        "translated": translated,
        "seen": now,
        "wait": round(next_wait, 1),
        "is_polled": status.state not in ENDED,
    }


def _lengths(lake: Lake, items: list[BatchItem]) -> dict[str, float]:
    """Seconds of the finished recordings of batches, by id; not of those for which that would take long."""
    lengths = {}
    for item in items:
        if item.state is BatchState.DAMAGED or item.recordings > MOST_READ:
            continue
        try:
            read = _done_length if item.state is BatchState.DONE else _length
            lengths[item.id] = read(lake, item.id)
        except K2DError:  # its own page says what is wrong with it
            continue
    return lengths


def _length(lake: Lake, batch_id: str) -> float:
    return views.input_seconds(lake, lake.batches.get(batch_id))


# a recording has the same length when it is tried again
_done_length = lru_cache(maxsize=2000)(_length)

"""Pages of datasets: what they are made of, some rows to listen to, downloads."""

import random
from contextlib import suppress
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from k2d.datasets.browse import random_rows, row_audio
from k2d.datasets.catalog import list_datasets
from k2d.datasets.formats import FORMATS
from k2d.datasets.stream import stream_export
from k2d.errors import K2DError, NotFound, QueueError
from services.filter.chunks import RangeHeader, ranged
from services.filter.console.page import PageRoute, render
from services.filter.console.progress import ledger_bar, share_of
from services.filter.console.verdicts import origin_name
from services.filter.context import InLake, InQueue
from services.filter.datasets import get_dataset, remove_dataset
from services.filter.fleet import function_of
from services.filter.queue import CONTROL, WorkQueue

router = APIRouter(include_in_schema=False, route_class=PageRoute)

ROWS: Final = 6  # to listen to at once
MOST_SEED: Final = 10**6


@router.get("/datasets")
def datasets_page(request: Request, lake: InLake, queue: InQueue) -> Response:
    datasets = list_datasets(lake)
    known = {item.name for item in datasets}
    on_the_way = []
    for name in _freezing(queue):
        with suppress(NotFound):  # an earlier failure of one that was frozen and deleted since
            on_the_way += [get_dataset(name, lake, queue)] if name not in known else []
    return render(request, "datasets.html", datasets=datasets, on_the_way=on_the_way)


@router.get("/datasets/{name}")
def dataset_page(request: Request, name: str, lake: InLake, queue: InQueue, seed: int | None = None) -> Response:
    state = get_dataset(name, lake, queue)
    drawn = _drawn(seed)
    rows, rows_error = [], None
    if state.manifest is not None:
        try:
            rows = random_rows(lake, name, ROWS, drawn)
        except K2DError as error:  # the card is still worth reading
            rows_error = error.message
    bar = ledger_bar(state.manifest.seconds, 0.0)[:-1] if state.manifest else ()  # of what is pending it has nothing
    return render(
        request,
        "dataset.html",
        dataset=state,
        manifest=state.manifest,
        bar=bar,
        kept_share=share_of(*(part for part in bar if part.name in ("accepted", "salvaged"))),
        rows=rows,
        rows_error=rows_error,
        next_seed=(drawn + 1) % MOST_SEED,
        formats=list(FORMATS),
        origin_name=origin_name,
    )


@router.get("/datasets/{name}/rows/{shard}/{row}")
def audio(name: str, shard: int, row: int, lake: InLake, range_: RangeHeader = None) -> Response:
    """The audio of a row. A name always has the same rows until it is deleted, so nothing is kept for long."""
    response = ranged(row_audio(lake, name, shard, row), range_)
    response.headers["Cache-Control"] = "private, max-age=600"
    return response


@router.get("/datasets/{name}/export/{format}")
def export(name: str, format: str, lake: InLake) -> StreamingResponse:
    """The dataset in a format of another toolkit, as a tar that is made while it is sent."""
    blocks = stream_export(lake, name, format)
    headers = {"Content-Disposition": f'attachment; filename="{name}-{format}.tar"'}
    return StreamingResponse(blocks, media_type="application/x-tar", headers=headers)


@router.post("/datasets/{name}/delete")
def delete(request: Request, name: str, lake: InLake) -> Response:
    remove_dataset(name, lake)
    return Response(headers={"HX-Redirect": request.scope.get("root_path", "") + "/datasets"})


def _drawn(seed: int | None) -> int:
    return seed % MOST_SEED if seed is not None else random.randrange(MOST_SEED)


def _freezing(queue: WorkQueue) -> list[str]:
    """Names of datasets that are being frozen, or could not be; [] when Redis does not answer."""
    try:
        jobs = queue.jobs(queue.job_ids(CONTROL)).values()
    except QueueError:
        return []
    return sorted({str(job.args[0]) for job in jobs if function_of(job) == "freeze_dataset" and job.args})

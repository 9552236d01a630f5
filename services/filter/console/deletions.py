"""Deleting a batch: a page that says what would be freed, and the deletion itself."""

from contextlib import suppress

from fastapi import APIRouter, Request
from fastapi.responses import Response

from k2d.corpus.deletion import Deletion, delete_batch, plan_deletion, refuse_while_at_work
from k2d.errors import K2DError
from k2d.keys import digest
from k2d.schema import Batch
from k2d.store import Lake
from services.filter.console.asked import text_of
from services.filter.console.page import PageRoute, render
from services.filter.context import InLake, InQueue
from services.filter.queue import WorkQueue
from services.web.pools import STORE

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/batches/{batch}/delete")
async def deletion_page(request: Request, batch: str, lake: InLake, queue: InQueue) -> Response:
    deletion, datasets = await STORE.run(_planned, lake, queue, batch)
    return _page(request, deletion, datasets, is_other=False)


@router.post("/batches/{batch}/delete")
async def delete(request: Request, batch: str, lake: InLake, queue: InQueue) -> Response:
    """Delete the batch if what it frees is what the page showed; else show the page again."""
    shown = text_of(await request.form(max_files=0), "plan")
    deletion, datasets = await STORE.run(_planned, lake, queue, batch)
    if shown != _key(deletion):
        return _page(request, deletion, datasets, is_other=True)
    await STORE.run(delete_batch, lake, deletion)
    root = request.scope.get("root_path", "")
    return Response(
        headers={"HX-Redirect": f"{root}/", "Location": f"/batches/{deletion.batch.id}"}
    )  # for the audit log


def _planned(lake: Lake, queue: WorkQueue, batch: str) -> tuple[Deletion, list[str]]:
    """What goes with a batch, and the datasets that were made of it.

    Raises:
        BatchUnfinished: it is not cancelled.
        BatchAtWork: a worker may still be at it.
    """
    stored = lake.batches.get(batch)
    deletion = plan_deletion(lake, stored)
    if len(lake.batches.result_positions(stored.id)) < len(stored.sources):
        refuse_while_at_work(stored, queue.live(stored.id))
    return deletion, _datasets_of(lake, stored)


def _datasets_of(lake: Lake, batch: Batch) -> list[str]:
    names = []
    for name in lake.datasets.names():
        with suppress(K2DError):  # a damaged one; its own page says so
            names += [name] if batch.id in lake.datasets.manifest(name).batches else []
    return names


def _page(request: Request, deletion: Deletion, datasets: list[str], *, is_other: bool) -> Response:
    return render(
        request,
        "batch_delete.html",
        batch=deletion.batch,
        files={folder: len(paths) for folder, paths in deletion.paths.items() if paths},
        size=deletion.bytes,
        plan=_key(deletion),
        datasets=datasets,
        draws=deletion.draws,
        is_other=is_other,
    )


def _key(deletion: Deletion) -> str:
    return digest("deletion", deletion.batch.id, deletion.paths)

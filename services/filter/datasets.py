"""Datasets: freeze, list, and hand out shards, so that a trainer elsewhere needs nothing but the API."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse

from k2d.datasets.revoked import revoked
from k2d.errors import Conflict, NotFound
from k2d.labeling.request import check_name
from k2d.store import Lake
from services.filter.context import InLake, InQueue
from services.filter.models import DatasetList, DatasetRequest, DatasetState
from services.filter.queue import CONTROL, WorkQueue
from services.web.problems import responses

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

BLOCK_BYTES = 1024 * 1024


@router.post(
    "",
    status_code=202,
    summary="Freeze what a policy keeps of these batches under a name",
    responses={200: {"model": DatasetState}, 202: {"model": DatasetState}, **responses(400, 404, 409, 422, 503)},
)
def create_dataset(body: DatasetRequest, lake: InLake, queue: InQueue) -> Response:
    check_name(body.name)
    batches = [lake.batches.get(name).id for name in dict.fromkeys(body.batches)]
    policy, gone = body.policy.model_dump(mode="json"), revoked(body.without)
    if body.name in lake.datasets.names():
        manifest = lake.datasets.manifest(body.name)
        left_out = (manifest["without"] or {}).get("hash")
        if (manifest["policy"], manifest["batches"], left_out) != (policy, batches, gone.hash if gone.ids else None):
            raise Conflict(
                f"dataset {body.name!r} exists with other content", hint="datasets never change: take a new name"
            )
    else:
        args, slot = [body.name, batches, policy, list(gone.ids)], _slot(body.name)
        there = queue.occupant(slot)
        if there is not None and there.live and there.args != args:
            raise Conflict(f"dataset {body.name!r} is being frozen with other content", hint="take another name")
        queue.enqueue(CONTROL, "freeze_dataset", args, slot=slot)
    return JSONResponse(
        _state(body.name, lake, queue), status_code=202, headers={"Location": f"/v1/datasets/{body.name}"}
    )


@router.get("", summary="All datasets")
def list_datasets(lake: InLake) -> DatasetList:
    shown = ("name", "created_at", "digest", "counts", "seconds")
    found = [lake.datasets.manifest(name) for name in lake.datasets.names()]
    return DatasetList(datasets=[{key: manifest[key] for key in shown} for manifest in found])


@router.get("/{name}", summary="State and manifest", responses=responses(404))
def get_dataset(name: str, lake: InLake, queue: InQueue) -> DatasetState:
    return DatasetState.model_validate(_state(name, lake, queue))


@router.get(
    "/{name}/shards/{number}",
    summary="One Parquet shard",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/vnd.apache.parquet": {}}}, **responses(404)},
)
def get_shard(name: str, number: int, lake: InLake) -> StreamingResponse:
    manifest = lake.datasets.manifest(name)
    if not 0 <= number < len(manifest["shards"]):
        raise NotFound(f"dataset {name!r} has shards 0…{len(manifest['shards']) - 1}, not {number}")
    shard = manifest["shards"][number]
    file = lake.datasets.open_shard(name, number)

    def blocks() -> Iterator[bytes]:
        with file:
            while block := file.read(BLOCK_BYTES):
                yield block

    headers = {
        "Content-Length": str(shard["bytes"]),
        "ETag": f'"{shard["sha256"]}"',
        "Content-Disposition": f'attachment; filename="{name}-{number:05d}.parquet"',
    }
    return StreamingResponse(blocks(), media_type="application/vnd.apache.parquet", headers=headers)


def _slot(name: str) -> str:
    return f"freeze:{name}"


def _state(name: str, lake: Lake, queue: WorkQueue) -> dict[str, Any]:
    """A dataset's state: its manifest is the truth, the queue only says whether one is on its way."""
    if name in lake.datasets.names():
        return {"name": name, "state": "ready", "manifest": lake.datasets.manifest(name)}
    there = queue.occupant(_slot(name))
    if there is not None:
        return {"name": name, "state": "building" if there.live else "failed", "error": there.error}
    raise NotFound(f"no dataset is called {name[:100]!r}", hint="GET /v1/datasets lists them")

"""Datasets: freeze, list, delete, and download shards, so that a trainer elsewhere needs nothing but the API."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from k2d.datasets.catalog import delete_dataset, list_datasets
from k2d.datasets.reviewed import reviewed_texts
from k2d.datasets.revoked import RevokedIds, revoked
from k2d.documents import DatasetItem, DatasetList, DatasetRequest, DatasetState
from k2d.errors import Conflict, NotFound
from k2d.filtering.policy import Policy
from k2d.labeling.request import check_name
from k2d.schema import Script
from k2d.store import Lake
from k2d.store.manifest import Manifest
from services.filter.context import InLake, InQueue
from services.filter.queue import CORPUS, JobRequest, WorkQueue, freeze_slot
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], responses=EVERYWHERE)

BLOCK_BYTES: Final = 1024 * 1024  # of a shard, read and sent at once


@router.post(
    "",
    status_code=202,
    summary="Freeze what a policy keeps of these batches under a name",
    responses=responses(400, 404, 409),
)
def create_dataset(body: DatasetRequest, lake: InLake, queue: InQueue, response: Response) -> DatasetState:
    check_name(body.name)
    batches = [lake.batches.get(name).id for name in dict.fromkeys(body.batches)]
    without = revoked(body.without)
    reviews = reviewed_texts(lake, map(lake.batches.get, batches)).hash if body.gold else None
    if body.name in lake.datasets.names():
        _check_same(lake.datasets.manifest(body.name), batches, body.policy, without, body.script, reviews)
    else:
        _enqueue(queue, body, batches, without)
        if body.name in lake.datasets.names():  # made by a job that ended since
            _check_same(lake.datasets.manifest(body.name), batches, body.policy, without, body.script, reviews)
    response.headers["Location"] = f"/v1/datasets/{body.name}"
    return _state(body.name, lake, queue)


@router.get("", summary="All datasets")
def get_datasets(lake: InLake) -> DatasetList:
    return DatasetList(datasets=list_datasets(lake))


@router.get("/{name}", summary="State and manifest", responses=responses(404))
def get_dataset(name: str, lake: InLake, queue: InQueue) -> DatasetState:
    return _state(name, lake, queue)


@router.delete("/{name}", summary="Delete a dataset and its shards; labels stay", responses=responses(404))
def remove_dataset(name: str, lake: InLake) -> DatasetItem:
    return delete_dataset(lake, name)


@router.get(
    "/{name}/shards/{number}",
    summary="One Parquet shard",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/vnd.apache.parquet": {}}}, **responses(404, 503)},
)
def get_shard(name: str, number: int, lake: InLake) -> StreamingResponse:
    manifest = lake.datasets.manifest(name)
    if not 0 <= number < len(manifest.shards):
        raise NotFound(f"dataset {name!r} has shards 0…{len(manifest.shards) - 1}, not {number}")
    shard = manifest.shards[number]
    headers = {
        "Content-Length": str(shard.bytes),
        "ETag": f'"{shard.sha256}"',
        "Content-Disposition": f'attachment; filename="{name}-{number:05d}.parquet"',
    }
    file = lake.datasets.open_shard(name, number, manifest=manifest)  # a damaged one is 503, not a short body
    return StreamingResponse(_blocks(file), media_type="application/vnd.apache.parquet", headers=headers)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _check_same(
    manifest: Manifest, batches: list[str], policy: Policy, without: RevokedIds, script: Script, reviews: str | None
) -> None:
    """Raise Conflict when a dataset of this name was frozen from something else."""
    left_out = manifest.without.hash if manifest.without else None
    own = manifest.script.name if manifest.script else Script.AS_HEARD
    used = manifest.reviews.hash if manifest.reviews else None
    asked = (policy, batches, without.hash if without.ids else None, script, reviews)
    if (Policy.model_validate(manifest.policy), manifest.batches, left_out, own, used) != asked:
        raise Conflict(
            f"dataset {manifest.name!r} exists with other content",
            hint="datasets never change: take a new name",
            dataset=manifest.name,
        )


def _enqueue(queue: WorkQueue, body: DatasetRequest, batches: list[str], without: RevokedIds) -> None:
    args: list[Any] = [body.name, batches, body.policy.model_dump(mode="json"), list(without.ids), str(body.script)]
    args += [body.allow_mixed, True] if body.gold else [True] if body.allow_mixed else []
    slot = freeze_slot(body.name)
    live = queue.live(slot)
    writing = live is not None and live.jobs_queued + live.jobs_running > 0
    job = queue.latest(slot)
    if writing and job is not None and job.args != args:
        raise _other_content(body.name)
    if not writing:
        queue.drop_jobs(slot)  # of an earlier freeze that failed
    # of several requests at once one gets the slot; the others see what it asks for
    if not queue.enqueue(CORPUS, JobRequest("freeze_dataset", args, slot=slot), batch=slot):
        job = queue.latest(slot)
        if job is not None and job.args != args:
            raise _other_content(body.name)


def _other_content(name: str) -> Conflict:
    return Conflict(f"dataset {name!r} is being frozen with other content", hint="take another name", dataset=name)


def _state(name: str, lake: Lake, queue: WorkQueue) -> DatasetState:
    """A dataset's state: a manifest means that it is ready; the queue only tells whether one is on its way."""
    if name not in lake.datasets.names():
        jobs, planning = queue.live(freeze_slot(name)), queue.latest(freeze_slot(name))
        if jobs is not None and jobs.jobs_queued + jobs.jobs_running:
            return DatasetState(name=name, state="building", error=jobs.last_error)
        if planning is not None and (not planning.finished or (jobs is not None and jobs.jobs_failed)):
            error = planning.error or (jobs.last_error if jobs is not None else None)
            return DatasetState(name=name, state="building" if planning.live else "failed", error=error)
    # jobs that finished have written the manifest by now, unless the dataset was deleted since
    return DatasetState(name=name, state="ready", manifest=lake.datasets.manifest(name))

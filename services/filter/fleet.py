"""What works on the batches now: queues, workers, model servers, errors; for the console's page Fleet."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rq import Worker
from rq.job import Job, JobStatus

from k2d.errors import K2DError, QueueError
from k2d.inference.address import GRPC, is_address, plain, scheme, split
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators import models_of
from services.filter.queue import QUEUES, WorkQueue

SERVER_S: Final = 1.5  # that a model server may take to answer; chosen: the page is for a look
MOST_ANSWER_BYTES: Final = 1_000_000  # of a server's metrics
SLOW_S: Final = 600.0  # a job that waits longer than this deserves a look
MOST_KINDS: Final = 20  # of errors shown

Health = Literal["good", "attention", "bad"]


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """One queue."""

    name: str
    waiting: int
    started: int  # or to be tried again
    failed: int  # of the last 7 days
    oldest_s: float


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """One worker and what it has in hand."""

    name: str
    host: str
    state: str  # RQ's: "busy", "idle", "suspended" …
    job: str | None  # the function
    target: str | None  # batch or dataset
    job_s: float | None  # since when it has it
    recordings: int | None  # of its group
    done: int
    failed: int
    seen_s: float | None  # since its last sign of life


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """One model server."""

    role: str
    address: str
    is_up: bool
    detail: str  # the model, or why it is not ready
    batch_size: float | None = None  # mean windows in an engine call
    real_time: float | None = None  # seconds of audio for each second of the engine
    waiting: int | None = None  # windows
    refused: tuple[tuple[str, int], ...] = ()  # by error code


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Failed jobs, or jobs that are tried again, with one error."""

    job: str
    message: str
    count: int
    latest: str | None  # ISO 8601


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything, and one sentence about it: `summary` with `values` to put into it."""

    health: Health
    summary: str
    values: dict[str, object]
    queues: tuple[QueueLoad, ...]
    workers: tuple[WorkerEntry, ...]
    servers: tuple[ServerEntry, ...]
    errors: tuple[ErrorKind, ...]
    store_error: str | None
    queue_error: str | None
    in_process: tuple[tuple[str, str], ...]  # role and model, where workers hold the weights themselves


async def look(settings: Settings, lake: Lake, queue: WorkQueue) -> Fleet:
    """Ask Redis, the store and every model server at the same time; each answers within seconds or counts as down.

    (await look(settings, lake, queue)).summary
    """
    models = [("teacher", plain(settings.teacher))]
    models += [("validator", plain(name)) for name in models_of(settings.validator)]
    addresses = [(role, one) for role, name in models if is_address(name) for one in split(name)]
    in_redis, store_error, servers = await asyncio.gather(
        asyncio.to_thread(_in_redis, queue),
        asyncio.to_thread(_store_error, lake),
        asyncio.gather(*(_server(role, address) for role, address in addresses)),
    )
    in_process = tuple((role, name) for role, name in models if not is_address(name))
    health, summary, values = judge(in_redis, servers, store_error)
    return Fleet(
        health=health,
        summary=summary,
        values=values,
        queues=in_redis.queues,
        workers=in_redis.workers,
        servers=tuple(servers),
        errors=in_redis.errors,
        store_error=store_error,
        queue_error=in_redis.error,
        in_process=in_process,
    )


# ---- the sentence ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InRedis:
    """What Redis says."""

    queues: tuple[QueueLoad, ...] = ()
    workers: tuple[WorkerEntry, ...] = ()
    errors: tuple[ErrorKind, ...] = ()
    error: str | None = None


def judge(
    in_redis: InRedis, servers: Sequence[ServerEntry], store_error: str | None
) -> tuple[Health, str, dict[str, object]]:
    """Whether all is well, in one sentence: the gravest finding. The sentence is a key of the console's words. Pure."""
    waiting = sum(load.waiting for load in in_redis.queues)
    oldest_s = max((load.oldest_s for load in in_redis.queues), default=0.0)
    workers, busy = len(in_redis.workers), sum(worker.state == "busy" for worker in in_redis.workers)
    down = [server.address for server in servers if not server.is_up]
    count: dict[str, object] = {
        "workers": workers,
        "busy": busy,
        "waiting": waiting,
        "minutes": round(oldest_s / 60),
    }
    if store_error is not None:
        return "bad", "The store cannot be written: nothing can be labeled.", {}
    if in_redis.error is not None:
        return "bad", "Redis does not answer: no job can be queued or run.", {}
    if not workers and waiting:
        return "bad", "No worker is running, and {waiting} jobs wait.", count
    if down and len(down) == len(servers):
        return "bad", "No model server is ready.", {}
    if down:
        return "attention", "A model server is not ready: {address}.", {"address": down[0]}
    if oldest_s > SLOW_S:
        return "attention", "The oldest job has waited for {minutes} min: {busy} of {workers} workers are busy.", count
    if not workers:
        return "attention", "No worker is running. Nothing waits.", {}
    if in_redis.errors:
        return (
            "attention",
            "{busy} of {workers} workers are busy, {waiting} jobs wait; jobs have failed: see below.",
            count,
        )
    if busy or waiting:
        return "good", "All is well: {busy} of {workers} workers are busy, {waiting} jobs wait.", count
    return "good", "All is well: {workers} workers are ready, nothing waits.", count


# ---- Redis -----------------------------------------------------------------------------------------------------------


def _in_redis(queue: WorkQueue) -> InRedis:
    try:
        queue.ping()
        queues = tuple(
            QueueLoad(name, queue.depth(name), queue.started(name), queue.failed(name), queue.oldest_s(name))
            for name in QUEUES
        )
        jobs = queue.jobs([job_id for name in QUEUES for job_id in queue.job_ids(name)])
        workers = queue.workers()
        in_hand = queue.jobs([job_id for worker in workers if (job_id := worker.get_current_job_id())])
    except QueueError as error:
        return InRedis(error=error.message)
    return InRedis(
        queues=queues,
        workers=tuple(_worker(worker, in_hand) for worker in workers),
        errors=_error_kinds(list(jobs.values())),
    )


def _worker(worker: Worker, jobs: dict[str, Job]) -> WorkerEntry:
    job = jobs.get(worker.get_current_job_id() or "")
    now = time.time()
    group = job.args[2] if job is not None and function_of(job) == "label_group" and len(job.args) > 2 else None
    return WorkerEntry(
        name=str(worker.name),
        host=str(worker.hostname or ""),
        state=str(worker.get_state()),
        job=function_of(job) if job is not None else None,
        target=str(job.args[0]) if job is not None and job.args else None,
        job_s=max(0.0, now - job.started_at.timestamp()) if job is not None and job.started_at else None,
        recordings=len(group) if isinstance(group, list) else None,
        done=worker.successful_job_count,
        failed=worker.failed_job_count,
        seen_s=max(0.0, now - worker.last_heartbeat.timestamp()) if worker.last_heartbeat else None,
    )


def _error_kinds(jobs: Sequence[Job]) -> tuple[ErrorKind, ...]:
    """Errors of jobs by function and first line, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    latest: dict[tuple[str, str], str] = {}
    for job in jobs:
        message = job.meta.get("error")
        if message is None and job.get_status(refresh=False) != JobStatus.FAILED:
            continue
        kind = (function_of(job), str(message or "the worker died").splitlines()[0][:300])
        counts[kind] += 1
        if job.ended_at is not None:
            latest[kind] = max(latest.get(kind, ""), job.ended_at.isoformat(timespec="seconds"))
    return tuple(
        ErrorKind(function, message, count, latest.get((function, message)))
        for (function, message), count in counts.most_common(MOST_KINDS)
    )


def function_of(job: Job) -> str:
    """The function that a job calls, without its module."""
    return str(job.func_name or "?").rpartition(".")[2]


# ---- the store and model servers -------------------------------------------------------------------------------------


def _store_error(lake: Lake) -> str | None:
    try:
        lake.check()
    except K2DError as error:
        return error.message
    return None


async def _server(role: str, address: str) -> ServerEntry:
    if scheme(address) in GRPC:
        return await _triton(role, address)
    try:
        async with asyncio.timeout(SERVER_S), httpx.AsyncClient(timeout=SERVER_S, trust_env=False) as client:
            ready = await client.get(f"{address}/readyz")
            metrics = await _text(client, f"{address}/metrics")
    except (httpx.HTTPError, TimeoutError) as error:
        return ServerEntry(role, address, False, f"no answer ({type(error).__name__})")
    return entry_of(role, address, ready, metrics)


async def _text(client: httpx.AsyncClient, url: str) -> str:
    async with client.stream("GET", url) as answer:
        data = b""
        async for block in answer.aiter_bytes():
            data += block
            if len(data) > MOST_ANSWER_BYTES:
                return ""
    return data.decode("utf-8", "replace")


async def _triton(role: str, address: str) -> ServerEntry:
    """Whether the port of a Triton server takes connections; its figures are on another port, for Prometheus."""
    parts = urlsplit(address)
    try:
        async with asyncio.timeout(SERVER_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
    except (OSError, TimeoutError) as error:
        return ServerEntry(role, address, False, f"no answer ({type(error).__name__})")
    return ServerEntry(role, address, True, "Triton takes connections; its figures are in Prometheus")


def entry_of(role: str, address: str, ready: httpx.Response, metrics: str) -> ServerEntry:
    """A server by its answers; figures that it does not give stay None."""
    try:
        document = ready.json()
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    model = document.get("model")
    reference = model.get("reference") if isinstance(model, dict) else None
    detail = str(reference or document.get("detail") or f"HTTP {ready.status_code}")[:300]
    figures = _figures(metrics)
    calls, engine_s = figures.get("k2d_batch_size_count", 0.0), figures.get("k2d_engine_seconds_sum", 0.0)
    return ServerEntry(
        role=role,
        address=address,
        is_up=ready.status_code == httpx.codes.OK,
        detail=detail,
        batch_size=figures.get("k2d_batch_size_sum", 0.0) / calls if calls else None,
        real_time=figures.get("k2d_audio_seconds_total", 0.0) / engine_s if engine_s else None,
        waiting=int(figures["k2d_waiting"]) if "k2d_waiting" in figures else None,
        refused=tuple(
            (name.partition(":")[2], int(value))
            for name, value in sorted(figures.items())
            if name.startswith("refused:") and value
        ),
    )


def _figures(metrics: str) -> dict[str, float]:
    """Samples without labels by name, and refusals by reason; {} for text that is not Prometheus' format."""
    figures: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name == "k2d_refused_total":
                    figures[f"refused:{sample.labels.get('reason', '?')}"] = sample.value
                elif "le" not in sample.labels:
                    figures[sample.name] = figures.get(sample.name, 0.0) + sample.value
    except ValueError:
        return {}
    return figures

"""The jobs that workers run: plan a batch, label a group of recordings, freeze a dataset.

Each may be run any number of times: what is already in the lake is not done again.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import structlog
from redis.exceptions import RedisError
from rq import get_current_job

from k2d import sources
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.corpus.index import parts_of, settle
from k2d.datasets.freeze import plan_freeze
from k2d.datasets.slices import FreezePlan, Slice, SliceWriter, finish, read_plan
from k2d.errors import AudioError, DamagedFile, K2DError, NotFound, StoreError
from k2d.filtering.policy import Policy
from k2d.inference.model_cache import ModelCache
from k2d.labeling.group import RecordingGroup
from k2d.labeling.open_models import open_models
from k2d.labeling.recording import Labeler, Progress, Stage
from k2d.schema import Batch, RecordingResult, Script, Source
from k2d.settings import Settings, load
from k2d.store import Lake
from k2d.store.manifest import Manifest
from services.filter.filling import close_draft, describe_uris
from services.filter.project_job import ProjectJob
from services.filter.queue import CORPUS, LABEL, AttemptsInRedis, JobRequest, WorkQueue, freeze_slot, request_plan

log = structlog.get_logger()

STOP_GRACE_S: Final = 8.0  # after SIGTERM, what recordings in flight get to finish; Docker kills after 10
SLICES_IN_PLAN: Final = 2  # of a dataset, that the job which plans it writes by itself; chosen: a few seconds each
MOST_JOBS: Final = 512  # of a dataset; chosen: more workers than anyone has
POLL_S: Final = 1.0  # between checks for a stop, a cancelled batch, and the worker having died
STORE_RETRIES: Final = 3  # attempts that a job has left after the store took no writes: the next is in 30 s (RETRY_S)
BYTES_PER_S: Final = 16_000  # assumed of a source whose header does not tell its length (128 kbit/s)


def describe_part(draft_id: str, part: int) -> int:
    """Find out the sizes and change marks of a part of a draft's URIs; returns how many those are.

    The last part makes the batch of the draft, and enqueues its planning. A storage that does not answer is asked again
    by RQ's retries; after the last one, what it does not show is left to labeling.
    """
    settings = load()
    lake, queue = Lake(settings.store), WorkQueue(settings)
    with _errors_in_job():
        draft = lake.drafts.get(draft_id)
        job = get_current_job()
        patient = job is not None and bool(job.retries_left)
        if part not in lake.drafts.described_parts(draft.id):
            lake.drafts.put_described(
                draft.id, part, describe_uris(lake.drafts.uris(draft.id, part), settings, patient)
            )
        if len(lake.drafts.described_parts(draft.id)) == draft.parts:
            batch = close_draft(draft, lake, settings)
            request_plan(queue, batch.id)
        return part


def plan_batch(batch_id: str) -> int:
    """Cut a batch's missing recordings into groups and enqueue them; returns how many groups were enqueued.

    Groups are cut the same way every time, so a group that is already queued or running is not enqueued twice.
    """
    settings = load()
    lake, queue = Lake(settings.store), WorkQueue(settings)
    with _errors_in_job():
        batch = lake.batches.get(batch_id)
        if lake.batches.is_cancelled(batch.id):
            return 0
        done = lake.batches.result_positions(batch.id)
        seconds = _lengths(batch, lake, settings)
        with suppress(RedisError):  # only for the time that is left
            queue.planned(batch.id, sum(seconds))
        groups = enumerate(_groups(seconds, settings))
        missing = [_label_request(batch.id, index, group) for index, group in groups if not done.issuperset(group)]
        enqueued = queue.enqueue_many(LABEL, missing, batch=batch.id)
        log.info("batch planned", batch=batch.id, recordings=len(batch.sources), done=len(done), groups=enqueued)
        return enqueued


def _label_request(batch_id: str, index: int, positions: Sequence[int]) -> JobRequest:
    return JobRequest("label_group", [batch_id, index, list(positions)], slot=f"label:{batch_id}:{index}")


def _lengths(batch: Batch, lake: Lake, settings: Settings) -> list[float]:
    """Seconds of each recording, by its header or else estimated from its size; headers are read by a few threads."""
    allowed = None if batch.trusted else settings.allowed_sources
    limits = DecodeLimits.of(settings)

    def duration(source: Source) -> float:
        with suppress(AudioError, OSError), sources.open_source(source, lake.open, allowed=allowed) as file:
            return isolated.probe_duration_s(file, limits=limits) or 0.0
        return 0.0

    remote = any(source.uri.startswith("https://") for source in batch.sources)  # opening those downloads them
    with ThreadPoolExecutor(8) as pool:
        known = [0.0] * len(batch.sources) if remote else list(pool.map(duration, batch.sources))
    sizes = ((source.size_bytes or 0) / BYTES_PER_S for source in batch.sources)
    return [length or estimated for length, estimated in zip(known, sizes, strict=True)]


def _groups(seconds: Sequence[float], settings: Settings) -> list[list[int]]:
    """Positions in groups of about `group_s` seconds of audio."""
    groups: list[list[int]] = [[]]
    filled_s = 0.0
    for position, length in enumerate(seconds):
        if groups[-1] and filled_s + length > settings.group_s:
            groups.append([])
            filled_s = 0.0
        groups[-1].append(position)
        filled_s += length
    return groups


def label_group(batch_id: str, index: int, positions: list[int]) -> int:
    """Label a group's missing recordings; returns how many were finished.

    When the batch is cancelled the rest is left; on SIGUSR1 it is queued again.
    """
    settings = load()
    lake, queue = Lake(settings.store), WorkQueue(settings)
    finished = 0
    with _errors_in_job():
        batch = lake.batches.get(batch_id)
        with lake.heartbeats.beating(batch.id, has_job=True):
            # until nothing is missing: `retry` may take results away while this job runs
            while missing := sorted(set(positions) - lake.batches.result_positions(batch.id)):
                if lake.batches.is_cancelled(batch.id):
                    break
                run = GroupRun(lake=lake, queue=queue, batch=batch, settings=settings, kept=_kept_models())
                asyncio.run(run.run(missing))
                finished += len(run.finished)
                if run.stopping:
                    if not run.finished.issuperset(missing):
                        queue.enqueue(LABEL, _label_request(batch.id, index, positions), batch=batch.id, force=True)
                        log.info("group put back", batch=batch.id, recordings=len(missing) - len(run.finished))
                    break
            settle(lake, batch, parts_of(positions))
    return finished


def _kept_models() -> ModelCache | None:
    """The models of the work horse that runs this job; None outside of one."""
    job = get_current_job()
    return job.models if isinstance(job, ProjectJob) else None


class GroupRun:
    """One run of a group in a work horse: reports progress to Redis, writes results to the lake, stops on a signal."""

    def __init__(
        self, *, lake: Lake, queue: WorkQueue, batch: Batch, settings: Settings, kept: ModelCache | None = None
    ) -> None:
        self.lake, self.queue, self.batch, self.settings = lake, queue, batch, settings
        self.kept = kept  # models that outlast the run
        self.finished: set[int] = set()
        self.stopping = False
        self.cancelled = False
        self._reported_at: dict[int, float] = {}

    async def run(self, positions: Sequence[int]) -> None:
        """Label `positions`, or as many as can be finished before a stop or cancel."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._stop)
        with suppress(RedisError):
            self.queue.begin(self.batch.id)
        worker = os.getppid()
        async with open_models(self.settings, self.batch, self.lake, kept=self.kept) as (teacher, validators):
            labeler = Labeler(
                self.lake,
                teacher=teacher,
                validators=validators,
                batch=self.batch,
                settings=self.settings,
                on_progress=self._on_progress,
            )
            group = RecordingGroup(
                labeler=labeler,
                attempts=AttemptsInRedis(self.queue.redis, self.batch.id),
                on_result=self._on_result,
                concurrency=self.settings.concurrency,
                should_stop=lambda: self.stopping or self.cancelled,
            )
            work = asyncio.create_task(group.run(positions))
            watch = asyncio.create_task(self._watch(work.cancel, worker))
            with suppress(asyncio.CancelledError):  # only _watch cancels the work
                await work
            watch.cancel()

    def _stop(self) -> None:
        self.stopping = True

    async def _watch(self, cancel: Callable[[], object], worker: int) -> None:
        """Cancel the work when the batch is cancelled or the grace after a stop is over; end when the worker died.

        `worker`: its process id.
        """
        stop_at: float | None = None
        while True:
            await asyncio.sleep(POLL_S)
            if os.getppid() != worker:
                os._exit(1)  # the worker was killed: its job goes to another worker, and only one may work on it
            self.cancelled = self.cancelled or await asyncio.to_thread(self.lake.batches.is_cancelled, self.batch.id)
            if self.stopping and stop_at is None:
                stop_at = time.monotonic() + STOP_GRACE_S
            if self.cancelled or (stop_at is not None and time.monotonic() >= stop_at):
                cancel()
                return

    def _on_progress(self, step: Progress) -> None:
        now = time.monotonic()
        if step.stage == Stage.LABEL and now - self._reported_at.get(step.position, 0.0) >= 1.0:
            self._reported_at[step.position] = now
            with suppress(RedisError):  # only live progress; labeling goes on without it
                self.queue.progress(self.batch.id, step.position, step.seconds, known_s=step.known_s)

    def _on_result(self, result: RecordingResult) -> None:
        self.lake.batches.put_result(self.batch.id, result)
        self.finished.add(result.position)
        with suppress(RedisError):
            self.queue.finished(self.batch.id, result.position, result.worked_s or 0.0)


def index_part(batch_id: str, number: int) -> None:
    """Store one part of a batch's index, if all its recordings have a result."""
    lake = Lake(load().store)
    with _errors_in_job():
        settle(lake, lake.batches.get(batch_id), [number])


def freeze_dataset(
    name: str,
    batches: list[str],
    policy: dict[str, Any],
    without: list[str] | None = None,
    script: str = Script.AS_HEARD,
    allow_mixed: bool = False,
    gold: bool = False,
) -> str:
    """Plan a dataset in one script, without the chunks and segments of these ids, and queue its slices; returns its
    digest. A small one is written at once.
    """
    settings = load()
    lake, queue = Lake(settings.store), WorkQueue(settings)
    with _errors_in_job():
        plan = plan_freeze(
            lake,
            name=name,
            batches=batches,
            policy=Policy.model_validate(policy),
            without=without or (),
            script=Script(script),
            allow_mixed=allow_mixed,
            gold=gold,
        )
        if isinstance(plan, Manifest):
            return plan.digest
        missing = plan.missing(lake)
        if len(missing) <= SLICES_IN_PLAN:
            _write_slices(lake, plan, missing)
        else:
            size = -(-len(missing) // MOST_JOBS)
            runs = [missing[start : start + size] for start in range(0, len(missing), size)]
            queue.enqueue_many(CORPUS, [_slices_request(plan, run) for run in runs], batch=freeze_slot(name))
            log.info("dataset planned", dataset=name, slices=len(missing), jobs=len(runs))
        return plan.digest


def freeze_slices(name: str, digest: str, slices: list[list[int]]) -> int:
    """Write slices of a planned dataset, and the manifest if these were the last; returns how many there were.

    Slices that are written are left as they are, so after a kill at most one is written again.
    """
    lake = Lake(load().store)
    with _errors_in_job():
        try:
            plan = read_plan(lake, name, digest)
        except NotFound:  # finished, or given up
            return 0
        _write_slices(lake, plan, [Slice(part, number) for part, number in slices])
        return len(slices)


def _write_slices(lake: Lake, plan: FreezePlan, slices: Sequence[Slice]) -> None:
    writer = SliceWriter(lake, plan)
    for slice_ in slices:
        writer.write(slice_)
    finish(lake, plan.manifest.name, plan.digest)


def _slices_request(plan: FreezePlan, slices: Sequence[Slice]) -> JobRequest:
    name = plan.manifest.name
    first, args = slices[0], [name, plan.digest, [list(slice_) for slice_ in slices]]
    return JobRequest("freeze_slices", args, slot=f"{freeze_slot(name)}:{plan.digest}:{first.key}")


@contextmanager
def _errors_in_job() -> Iterator[None]:
    """Record an error in the job's meta, from which the API shows it; RQ then retries, except after a bad request.

    A store that is full, read-only or away is waited for: such attempts do not count.
    """
    try:
        yield
    except BaseException as error:
        job = get_current_job()
        waits = isinstance(error, StoreError) and not isinstance(error, DamagedFile)
        if job is not None:
            hint = f" ({error.hint})" if isinstance(error, K2DError) and error.hint else ""
            with suppress(RedisError):
                job.meta["error"] = f"{error}{hint}"[:2000]
                job.meta["waits"] = waits
                job.save_meta()  # type: ignore[no-untyped-call]
            if isinstance(error, K2DError) and error.status < 500:
                job.retries_left = 0  # another attempt would fail in the same way
            if waits:
                job.retries_left = max(job.retries_left or 0, STORE_RETRIES)
        raise

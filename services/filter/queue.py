"""The queue in Redis: jobs by name, and live progress.

The lake is the truth: Redis may be flushed at any time, and POST /v1/resume queues again what is missing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.queue import EnqueueData
from rq.registry import BaseRegistry, FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from k2d.documents import Jobs
from k2d.errors import QueueError, described
from k2d.settings import Settings
from services.filter.live_jobs import AT, AUDIO, DONE, KNOWN, LIVE, SINCE, jobs_key, live_jobs, live_key
from services.filter.project_job import ProjectJob, job_name
from services.filter.redis_url import connect, queue_error
from services.filter.server_time import server_time

CONTROL: Final = "k2d-control"  # planning of batches: short, served first
CORPUS: Final = "k2d-corpus"  # steps over a corpus, a part or less each: the index, datasets
LABEL: Final = "k2d-label"  # groups of recordings
QUEUES: Final = (CONTROL, CORPUS, LABEL)

KEEP_S: Final = 7 * 24 * 3600  # keys of live progress, after their last change
FINISHED_S: Final = 3600  # how long a finished job stays visible
# Seconds a job of CORPUS may take. Chosen: its few gigabytes take minutes, and an hour in a slow object store.
PART_TIMEOUT_S: Final = 2 * 3600
IDLE_S: Final = 900.0  # without progress, after which the speed of a batch is measured anew; chosen
MAX_TRANSACTION: Final = 1000  # jobs enqueued at once: other clients of Redis wait meanwhile


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A call of `services.filter.jobs.<function>(*args)` to be queued, unless a job of the same slot is live."""

    function: str
    args: list[Any]  # JSON values
    slot: str  # names the piece of work


@dataclass(frozen=True, slots=True)
class SlotJob:
    """The latest job of a slot, as far as Redis still has it."""

    live: bool  # waiting, running, or to be tried again
    finished: bool  # ended without an error
    args: list[Any]
    error: str | None


class WorkQueue:
    """Enqueues jobs by name with JSON arguments, one live job for one piece of work, and keeps live progress.

    queue = WorkQueue(load())
    request_plan(queue, batch.id)
    queue.live(batch.id).jobs_queued
    """

    def __init__(self, settings: Settings, connection: redis.Redis | None = None) -> None:
        self.settings = settings
        self.redis = connection or connect(settings)
        self._oldest: dict[str, tuple[str, float]] = {}  # by queue: the oldest job, and since when it is

    def ping(self) -> None:
        """Raise QueueError when Redis does not answer."""
        try:
            self.redis.ping()
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    def check(self) -> None:
        """Raise QueueError when Redis does not answer, or takes no writes."""
        try:
            self.redis.set("k2d:check", 1, ex=60)
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    # ---- jobs -----------------------------------------------------------------------------------------------------

    def enqueue(self, queue: str, request: JobRequest, *, batch: str | None = None, force: bool = False) -> bool:
        """Enqueue a job unless its slot has a live one; returns whether it was enqueued. A live one that waits for its
        next attempt begins it at once.

        `force` ignores the live one: a job that is stopping puts its own remainder back.

        Raises:
            QueueError: Redis does not answer.
        """
        return self.enqueue_many(queue, [request], batch=batch, force=force) == 1

    def enqueue_many(
        self, queue: str, requests: Sequence[JobRequest], *, batch: str | None = None, force: bool = False
    ) -> int:
        """Enqueue each job whose slot has no live one; returns how many those were. Errors as for `enqueue`."""
        try:
            return sum(
                self._enqueue(queue, requests[start : start + MAX_TRANSACTION], batch=batch, force=force)
                for start in range(0, len(requests), MAX_TRANSACTION)
            )
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    def _enqueue(self, queue: str, requests: Sequence[JobRequest], *, batch: str | None, force: bool) -> int:
        """Jobs and their slots are written in one transaction, which starts again when a slot changed meanwhile: of
        two callers only one enqueues."""
        slots = [_slot_key(request.slot) for request in requests]

        def add(pipe: Pipeline) -> int:
            live = {} if force else self._live_jobs(slots)
            free = [(slot, request) for slot, request in zip(slots, requests, strict=True) if slot not in live]
            pipe.multi()
            for job in live.values():
                if job.get_status(refresh=False) == JobStatus.SCHEDULED:
                    pipe.zadd(self._scheduled(job).key, {job.id: 0}, xx=True)  # due at once
            if not free:
                return 0
            timeout_s = PART_TIMEOUT_S if queue == CORPUS else self.settings.job_timeout_s
            data = [self._job_data(request, timeout_s=timeout_s) for _, request in free]
            jobs = self._queue(queue).enqueue_many(data, pipeline=pipe)
            for (slot, _), job in zip(free, jobs, strict=True):
                pipe.set(slot, job.id, ex=KEEP_S)
            if batch is not None:
                pipe.sadd(jobs_key(batch), *(job.id for job in jobs))
                pipe.expire(jobs_key(batch), KEEP_S)
            return len(jobs)

        # redis-py's annotation leaves `value_from_callable` out
        return cast(int, self.redis.transaction(add, *slots, value_from_callable=True))  # type: ignore[arg-type]

    def _job_data(self, request: JobRequest, *, timeout_s: int) -> EnqueueData:
        return Queue.prepare_data(
            job_name(request.function),
            args=request.args,
            timeout=timeout_s,
            retry=Retry(max=len(self.settings.retry_s), interval=list(self.settings.retry_s)),
            result_ttl=FINISHED_S,
            failure_ttl=KEEP_S,
        )

    def _live_jobs(self, slots: Sequence[str]) -> dict[str, Job]:
        """The live jobs of these slots. One that was to be scheduled and is not, because a worker died, is none."""
        ids = cast(list[bytes | None], self.redis.mget(slots))
        slot_of = {job_id.decode(): slot for slot, job_id in zip(slots, ids, strict=True) if job_id is not None}
        live = [job for job in self._fetch(list(slot_of)) if job.get_status(refresh=False) in LIVE]
        scheduled = [job for job in live if job.get_status(refresh=False) == JobStatus.SCHEDULED]
        with self.redis.pipeline(transaction=False) as pipe:
            for job in scheduled:
                pipe.zscore(self._scheduled(job).key, job.id)
            scores = pipe.execute() if scheduled else []
        lost = {job.id for job, score in zip(scheduled, scores, strict=True) if score is None}
        return {slot_of[job.id]: job for job in live if job.id not in lost}

    def _scheduled(self, job: Job) -> ScheduledJobRegistry:
        return ScheduledJobRegistry(job.origin, connection=self.redis, serializer=JSONSerializer)  # type: ignore[no-untyped-call]

    def latest(self, slot: str) -> SlotJob | None:
        """The latest job of a slot; None when it had none, or Redis has forgotten it.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            job_id = cast(bytes | None, self.redis.get(_slot_key(slot)))
            job = next(self._fetch([job_id.decode()]), None) if job_id is not None else None
        except RedisError as error:
            raise queue_error(error, self.settings) from error
        if job is None:
            return None
        status = job.get_status(refresh=False)
        return SlotJob(
            live=status in LIVE,
            finished=status == JobStatus.FINISHED,
            args=list(job.args),
            error=job.meta.get("error"),
        )

    def _fetch(self, ids: Sequence[str]) -> Iterator[Job]:
        """The jobs that Redis still has, in one round trip."""
        try:
            jobs = Job.fetch_many(ids, connection=self.redis, serializer=JSONSerializer) if ids else []
        except NoSuchJobError:
            # A worker's heartbeat for a job that was flushed leaves a hash with nothing else in it, and RQ refuses all
            # jobs for one such. It counts as gone.
            jobs = [job for job_id in ids if len(ids) > 1 for job in self._fetch([job_id])]
        return (job for job in jobs if job is not None)

    def _queue(self, name: str) -> Queue:
        return Queue(name, connection=self.redis, serializer=JSONSerializer)

    # ---- live progress --------------------------------------------------------------------------------------------

    def progress(self, batch: str, position: int, seconds: float, *, known_s: float = 0.0) -> None:
        """Record how far the teacher is in an unfinished recording, and how much of that was there already."""
        values = {str(position): seconds, f"{KNOWN}{position}": known_s, AT: time.time()}
        self.redis.hset(live_key(batch), mapping=values)  # type: ignore[arg-type]
        self.redis.expire(live_key(batch), KEEP_S)

    def planned(self, batch: str, audio_s: float) -> None:
        """Record how much audio a batch has, by the headers of its files."""
        self.redis.hset(live_key(batch), AUDIO, str(round(audio_s, 3)))
        self.redis.expire(live_key(batch), KEEP_S)

    def finished(self, batch: str, position: int, seconds: float = 0.0) -> None:
        """Drop a recording's live progress: its result is in the lake. `seconds`: those that were worked on, for the
        speed."""
        with self.redis.pipeline() as pipe:
            pipe.hdel(live_key(batch), str(position), f"{KNOWN}{position}")
            pipe.hincrbyfloat(live_key(batch), DONE, seconds)
            pipe.hset(live_key(batch), AT, str(time.time()))
            pipe.expire(live_key(batch), KEEP_S)
            pipe.execute()

    def begin(self, batch: str) -> None:
        """Begin to measure the speed of a batch, unless some worker is at it already."""
        at = cast(bytes | None, self.redis.hget(live_key(batch), AT))
        now = time.time()
        if at is None or now - float(at) > IDLE_S:
            self.redis.hset(live_key(batch), mapping={SINCE: now, DONE: 0.0, AT: now})
            self.redis.expire(live_key(batch), KEEP_S)

    def live(self, batch: str) -> Jobs | None:
        """What Redis knows of the batch; None when Redis does not answer. A few round trips for any batch."""
        return self.live_many([batch])[batch]

    def live_many(self, batches: Sequence[str]) -> dict[str, Jobs | None]:
        """What Redis knows of several batches, in as many round trips as for one."""
        try:
            return dict(live_jobs(self.redis, batches, refuses_writes=self._refuses_writes))
        except RedisError:
            return dict.fromkeys(batches)

    def _refuses_writes(self) -> str | None:
        """Why Redis takes no writes; None if it does."""
        try:
            self.check()
        except QueueError as error:
            return described(error)
        return None

    def forget(self, batch: str) -> None:
        """Drop the live progress and the counted attempts of a batch: it is tried again.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            self.redis.delete(live_key(batch), f"k2d:attempts:{batch}", f"k2d:errors:{batch}")
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    def drop_jobs(self, batch: str) -> None:
        """Forget which jobs a batch or dataset had.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            self.redis.delete(jobs_key(batch))
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    # ---- gauges ---------------------------------------------------------------------------------------------------

    def depth(self, queue: str) -> int:
        """Jobs waiting."""
        return self._queue(queue).count

    def started(self, queue: str) -> int:
        """Jobs that a worker has, or that wait for their next attempt: workers must stay until it is 0."""
        return self._registered(StartedJobRegistry, queue) + self._registered(ScheduledJobRegistry, queue)

    def failed(self, queue: str) -> int:
        """Jobs given up after all attempts and not yet forgotten (KEEP_S)."""
        return self._registered(FailedJobRegistry, queue)

    def _registered(self, registry: type[BaseRegistry], queue: str) -> int:
        # without clean-up, which is the workers' task: it runs failure handlers
        return registry(queue, connection=self.redis, serializer=JSONSerializer).get_job_count(cleanup=False)

    def waiting(self, queue: str, limit: int = 100) -> list[Job]:
        """The next jobs, oldest first."""
        return self._queue(queue).get_jobs(0, limit)

    def oldest_s(self, queue: str) -> float:
        """Age of the oldest waiting job in seconds: the gauge to scale on.

        By the server's clock; at least as long as this process has seen it wait, where the clock that enqueued it was
        ahead.
        """
        jobs = self.waiting(queue, 1)
        if not jobs or jobs[0].enqueued_at is None:
            return 0.0
        job_id, since = self._oldest.get(queue, ("", 0.0))
        if job_id != jobs[0].id:
            since = time.monotonic()
            self._oldest[queue] = (jobs[0].id, since)
        return max(time.monotonic() - since, server_time(self.redis) - jobs[0].enqueued_at.timestamp())

    # ---- for people -----------------------------------------------------------------------------------------------

    def workers(self) -> list[Worker]:
        """The workers that gave a sign of life lately, by name.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            found = Worker.all(connection=self.redis, job_class=ProjectJob, serializer=JSONSerializer)
        except RedisError as error:
            raise queue_error(error, self.settings) from error
        return sorted((cast(Worker, worker) for worker in found), key=lambda worker: str(worker.name))

    def jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        """The jobs of these ids that Redis still has.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            return {job.id: job for job in self._fetch(list(ids))}
        except RedisError as error:
            raise queue_error(error, self.settings) from error

    def job_ids(self, queue: str, limit: int = 200) -> list[str]:
        """Ids of jobs that are not done: waiting, running, to be tried again, and failed; at most `limit` of each.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            ids = list(self._queue(queue).get_job_ids(0, limit))
            for registry in (StartedJobRegistry, ScheduledJobRegistry, FailedJobRegistry):
                known = registry(queue, connection=self.redis, serializer=JSONSerializer)
                ids += known.get_job_ids(0, limit - 1, desc=True, cleanup=False)
            return ids
        except RedisError as error:
            raise queue_error(error, self.settings) from error


class AttemptsInRedis:
    """Starts that never ended, shared by all workers (see k2d.labeling.group.Attempts)."""

    def __init__(self, connection: redis.Redis, batch: str) -> None:
        self.redis = connection
        self.starts = f"k2d:attempts:{batch}"
        self.errors = f"k2d:errors:{batch}"

    def unfinished(self, position: int) -> int:
        return int(cast(bytes | None, self.redis.hget(self.starts, str(position))) or 0)

    def begin(self, position: int) -> None:
        self.redis.hincrby(self.starts, str(position), 1)
        self.redis.expire(self.starts, KEEP_S)

    def end(self, position: int) -> None:
        self.redis.hdel(self.starts, str(position))

    def fail(self, position: int, message: str) -> None:
        self.redis.hset(self.errors, str(position), message[:2000])
        self.redis.expire(self.errors, KEEP_S)

    def last_error(self, position: int) -> str | None:
        message = cast(bytes | None, self.redis.hget(self.errors, str(position)))
        return message.decode() if message else None


def request_plan(queue: WorkQueue, batch_id: str) -> bool:
    """Enqueue the planning of a batch; returns False where it is queued already."""
    return queue.enqueue(CONTROL, JobRequest("plan_batch", [batch_id], slot=f"plan:{batch_id}"), batch=batch_id)


def request_descriptions(queue: WorkQueue, draft_id: str, parts: Iterable[int]) -> int:
    """Enqueue the describing of parts of a draft's URIs; returns how many were not queued already."""
    requests = [JobRequest("describe_part", [draft_id, part], slot=f"describe:{draft_id}:{part}") for part in parts]
    return queue.enqueue_many(CONTROL, requests, batch=draft_id)


def freeze_slot(dataset: str) -> str:
    """The slot of the job that plans a dataset; also names the set of the jobs that write it."""
    return f"freeze:{dataset}"


def _slot_key(slot: str) -> str:
    """The key of the id of a slot's latest job."""
    return f"k2d:slot:{slot}"

"""The queue in Redis: jobs by name, and live progress.

The lake is the truth: Redis may be flushed at any time, and POST /v1/resume queues again what is missing.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.queue import EnqueueData
from rq.registry import BaseRegistry, FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from k2d.documents import Jobs
from k2d.errors import QueueError
from k2d.settings import Settings
from services.filter.project_job import job_name

CONTROL: Final = "k2d-control"  # planning of batches: short, served first
CORPUS: Final = "k2d-corpus"  # steps over a corpus, a part or less each: the index, datasets
LABEL: Final = "k2d-label"  # groups of recordings
QUEUES: Final = (CONTROL, CORPUS, LABEL)

_JOB: Final = "rq:job:"  # begins the keys of RQ's jobs
AT, SINCE, DONE = "at", "since", "done"  # beside positions, in the hash of a batch's live progress
LIVE: Final = frozenset({JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED})
_MAY_HAVE_FAILED: Final = frozenset(status.value.encode() for status in LIVE | {JobStatus.FAILED})
RETRIES: Final = [5, 15, 30, 60, 120]  # seconds between attempts
KEEP_S: Final = 7 * 24 * 3600  # keys of live progress, after their last change
FINISHED_S: Final = 3600  # how long a finished job stays visible
# Seconds a job of CORPUS may take. Chosen: its few gigabytes take minutes, and an hour in a slow object store.
PART_TIMEOUT_S: Final = 2 * 3600
IDLE_S: Final = 900.0  # without progress, after which the speed of a batch is measured anew; chosen
ERRORS_READ: Final = 20  # jobs whose meta is read for the last error
MAX_TRANSACTION: Final = 1000  # jobs enqueued at once: other clients of Redis wait meanwhile


def connect(settings: Settings) -> redis.Redis:
    """Open a connection; nothing is sent yet. Time-outs are short: a hanging Redis must not hang the API."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_connect_timeout=3, socket_timeout=10, health_check_interval=30
    )


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

    def ping(self) -> None:
        """Raise QueueError when Redis does not answer."""
        try:
            self.redis.ping()
        except RedisError as error:
            raise _unreachable(error) from error

    # ---- jobs -----------------------------------------------------------------------------------------------------

    def enqueue(self, queue: str, request: JobRequest, *, batch: str | None = None, force: bool = False) -> bool:
        """Enqueue a job unless its slot has a live one; returns whether it was enqueued.

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
            raise _unreachable(error) from error

    def _enqueue(self, queue: str, requests: Sequence[JobRequest], *, batch: str | None, force: bool) -> int:
        """Jobs and their slots are written in one transaction, which starts again when a slot changed meanwhile: of
        two callers only one enqueues."""
        slots = [_slot_key(request.slot) for request in requests]

        def add(pipe: Pipeline) -> int:
            live = set() if force else self._live_slots(slots)
            free = [(slot, request) for slot, request in zip(slots, requests, strict=True) if slot not in live]
            pipe.multi()
            if not free:
                return 0
            timeout_s = PART_TIMEOUT_S if queue == CORPUS else self.settings.job_timeout_s
            data = [_job_data(request, timeout_s=timeout_s) for _, request in free]
            jobs = self._queue(queue).enqueue_many(data, pipeline=pipe)
            for (slot, _), job in zip(free, jobs, strict=True):
                pipe.set(slot, job.id, ex=KEEP_S)
            if batch is not None:
                pipe.sadd(_jobs_key(batch), *(job.id for job in jobs))
                pipe.expire(_jobs_key(batch), KEEP_S)
            return len(jobs)

        # redis-py's annotation leaves `value_from_callable` out
        return cast(int, self.redis.transaction(add, *slots, value_from_callable=True))  # type: ignore[arg-type]

    def _live_slots(self, slots: Sequence[str]) -> set[str]:
        ids = cast(list[bytes | None], self.redis.mget(slots))
        slot_of = {job_id.decode(): slot for slot, job_id in zip(slots, ids, strict=True) if job_id is not None}
        return {slot_of[job.id] for job in self._fetch(list(slot_of)) if job.get_status(refresh=False) in LIVE}

    def latest(self, slot: str) -> SlotJob | None:
        """The latest job of a slot; None when it had none, or Redis has forgotten it.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            job_id = cast(bytes | None, self.redis.get(_slot_key(slot)))
            job = next(self._fetch([job_id.decode()]), None) if job_id is not None else None
        except RedisError as error:
            raise _unreachable(error) from error
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

    def progress(self, batch: str, position: int, seconds: float) -> None:
        """Record how far the teacher is in an unfinished recording."""
        self.redis.hset(_live_key(batch), mapping={str(position): seconds, AT: time.time()})
        self.redis.expire(_live_key(batch), KEEP_S)

    def finished(self, batch: str, position: int, seconds: float = 0.0) -> None:
        """Drop a recording's live progress: its result is in the lake. `seconds`: its length, for the speed."""
        with self.redis.pipeline() as pipe:
            pipe.hdel(_live_key(batch), str(position))
            pipe.hincrbyfloat(_live_key(batch), DONE, seconds)
            pipe.hset(_live_key(batch), AT, str(time.time()))
            pipe.expire(_live_key(batch), KEEP_S)
            pipe.execute()

    def begin(self, batch: str) -> None:
        """Begin to measure the speed of a batch, unless some worker is at it already."""
        at = cast(bytes | None, self.redis.hget(_live_key(batch), AT))
        now = time.time()
        if at is None or now - float(at) > IDLE_S:
            self.redis.hset(_live_key(batch), mapping={SINCE: now, DONE: 0.0, AT: now})
            self.redis.expire(_live_key(batch), KEEP_S)

    def live(self, batch: str) -> Jobs | None:
        """What Redis knows of the batch; None when Redis does not answer. Two or three round trips for any batch."""
        return self.live_many([batch])[batch]

    def live_many(self, batches: Sequence[str]) -> dict[str, Jobs | None]:
        """What Redis knows of several batches, in as many round trips as for one."""
        try:
            with self.redis.pipeline(transaction=False) as pipe:
                for batch in batches:
                    pipe.sort(_jobs_key(batch), by="nosort", get=["#", f"{_JOB}*->status"])
                    pipe.hgetall(_live_key(batch))
                answers = pipe.execute()
            states = {
                batch: dict(zip(ids[::2], ids[1::2], strict=True))
                for batch, ids in zip(batches, answers[::2], strict=True)
            }
            self._forget_gone(
                {batch: [i for i, status in jobs.items() if not status] for batch, jobs in states.items()}
            )
            errors = self._last_errors(states)
        except RedisError:
            return dict.fromkeys(batches)
        return {
            batch: _jobs(Counter(states[batch].values()), fields, errors.get(batch))
            for batch, fields in zip(batches, answers[1::2], strict=True)
        }

    def _forget_gone(self, gone: Mapping[str, Sequence[bytes]]) -> None:
        """Take jobs that Redis lost out of the sets of their batches. A heartbeat for one leaves a hash without a
        status."""
        for batch, ids in gone.items():
            if ids:
                self.redis.srem(_jobs_key(batch), *ids)

    def _last_errors(self, states: Mapping[str, Mapping[bytes, bytes | None]]) -> dict[str, str]:
        """The last error of each batch, from the jobs that failed or wait, in one round trip."""
        asked = [
            (batch, job_id)
            for batch, jobs in states.items()
            for job_id in sorted(
                (i for i, status in jobs.items() if status in _MAY_HAVE_FAILED), key=_failed_first(jobs)
            )[:ERRORS_READ]
        ]
        if not asked:
            return {}
        with self.redis.pipeline(transaction=False) as pipe:
            for _, job_id in asked:
                pipe.hget(_JOB + job_id.decode(), "meta")
            metas = pipe.execute()
        errors: dict[str, str] = {}
        for (batch, _), meta in zip(asked, metas, strict=True):
            error = json.loads(meta).get("error") if meta else None
            if error:
                errors.setdefault(batch, str(error))
        return errors

    def forget(self, batch: str) -> None:
        """Drop the live progress and the counted attempts of a batch: it is tried again.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            self.redis.delete(_live_key(batch), f"k2d:attempts:{batch}", f"k2d:errors:{batch}")
        except RedisError as error:
            raise _unreachable(error) from error

    def drop_jobs(self, batch: str) -> None:
        """Forget which jobs a batch or dataset had.

        Raises:
            QueueError: Redis does not answer.
        """
        try:
            self.redis.delete(_jobs_key(batch))
        except RedisError as error:
            raise _unreachable(error) from error

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
        """Age of the oldest waiting job in seconds: the gauge to scale on."""
        jobs = self.waiting(queue, 1)
        if not jobs or jobs[0].enqueued_at is None:
            return 0.0
        return max(0.0, time.time() - jobs[0].enqueued_at.timestamp())


def _job_data(request: JobRequest, *, timeout_s: int) -> EnqueueData:
    return Queue.prepare_data(
        job_name(request.function),
        args=request.args,
        timeout=timeout_s,
        retry=Retry(max=len(RETRIES), interval=RETRIES),
        result_ttl=FINISHED_S,
        failure_ttl=KEEP_S,
    )


def _failed_first(jobs: Mapping[bytes, bytes | None]) -> Callable[[bytes], tuple[bool, bytes]]:
    """Order job ids so that those that failed come first."""
    return lambda job_id: (jobs[job_id] != JobStatus.FAILED.value.encode(), job_id)


def _jobs(counts: Counter[bytes | None], fields: dict[bytes, bytes], error: str | None) -> Jobs:
    by_status = {status: counts[status.value.encode()] for status in JobStatus}
    at, since, done = (fields.pop(name.encode(), None) for name in (AT, SINCE, DONE))
    in_flight_s = sum(float(value) for value in fields.values())
    elapsed_s = float(at) - float(since) if at and since else 0.0
    return Jobs(
        jobs_queued=sum(by_status[status] for status in LIVE - {JobStatus.STARTED}),
        jobs_running=by_status[JobStatus.STARTED],
        jobs_failed=by_status[JobStatus.FAILED],
        last_error=error,
        seconds_in_flight=round(in_flight_s, 3),
        times_real_time=round((float(done or 0) + in_flight_s) / elapsed_s, 2) if elapsed_s > 0 else None,
        updated_at=float(at) if at else None,
    )


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


def freeze_slot(dataset: str) -> str:
    """The slot of the job that plans a dataset; also names the set of the jobs that write it."""
    return f"freeze:{dataset}"


def _slot_key(slot: str) -> str:
    """The key of the id of a slot's latest job."""
    return f"k2d:slot:{slot}"


def _jobs_key(batch: str) -> str:
    """The key of the set of ids of a batch's jobs."""
    return f"k2d:jobs:{batch}"


def _live_key(batch: str) -> str:
    """The key of a hash: seconds transcribed in each unfinished recording of a batch, when that was (`at`), and since
    when (`since`) how many seconds were finished (`done`)."""
    return f"k2d:live:{batch}"


def _unreachable(error: RedisError) -> QueueError:
    return QueueError(
        f"Redis does not answer: {error}", hint="is it running? check K2D_REDIS_URL; `k2d doctor` says more"
    )

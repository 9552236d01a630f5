"""Redis: jobs by name and live progress. The lake is the truth: Redis may be flushed, `resume` enqueues what is missing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.queue import EnqueueData
from rq.registry import BaseRegistry, FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from k2d.documents import Jobs
from k2d.errors import QueueError
from k2d.settings import Settings

CONTROL = "k2d-control"  # planning and freezing: short, served first
LABEL = "k2d-label"  # groups of recordings
QUEUES = (CONTROL, LABEL)

LIVE = frozenset({JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED})
RETRIES = [5, 15, 30, 60, 120]  # seconds between attempts
KEEP_S = 7 * 24 * 3600  # live keys of batches nobody looks at any more
FINISHED_S = 3600  # how long a finished job stays visible


def connect(settings: Settings) -> redis.Redis:
    """Open a connection; nothing is sent yet. Time-outs are short: a hanging Redis must not hang the API."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_connect_timeout=3, socket_timeout=10, health_check_interval=30
    )


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work: `services.filter.jobs.<function>(*args)`. While the job of its `slot` is live it is not queued
    again."""

    function: str
    args: list[Any]  # JSON values
    slot: str


@dataclass(frozen=True, slots=True)
class Occupant:
    """The job that holds a slot, or held it last."""

    live: bool
    args: list[Any]
    error: str | None


class WorkQueue:
    """Enqueues jobs by name with JSON arguments, one live job for one piece of work, and keeps live progress."""

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

    def enqueue(self, queue: str, work: Work, *, batch: str | None = None, force: bool = False) -> bool:
        """Enqueue a piece of work unless its slot's job is live; returns whether something was enqueued.

        `force` ignores a live job: a job that is stopping puts its own remainder back.

        Raises:
            QueueError: Redis does not answer.
        """
        return self.enqueue_many(queue, [work], batch=batch, force=force) == 1

    def enqueue_many(self, queue: str, works: Sequence[Work], *, batch: str | None = None, force: bool = False) -> int:
        """Enqueue every piece of work whose slot's job is not live, in one round trip; returns how many those were."""
        try:
            live = set() if force else self._live_slots([work.slot for work in works])
            wanted = [work for work in works if work.slot not in live]
            jobs = self._queue(queue).enqueue_many([self._prepared(work) for work in wanted])
            with self.redis.pipeline() as pipe:
                for work, job in zip(wanted, jobs, strict=True):
                    pipe.set(_slot_key(work.slot), job.id, ex=KEEP_S)
                if batch is not None and jobs:
                    pipe.sadd(_jobs_key(batch), *(job.id for job in jobs))
                    pipe.expire(_jobs_key(batch), KEEP_S)
                pipe.execute()
        except RedisError as error:
            raise _unreachable(error) from error
        return len(wanted)

    def _prepared(self, work: Work) -> EnqueueData:
        return Queue.prepare_data(
            f"services.filter.jobs.{work.function}",
            args=work.args,
            timeout=self.settings.job_timeout_s,
            retry=Retry(max=len(RETRIES), interval=RETRIES),
            result_ttl=FINISHED_S,
            failure_ttl=KEEP_S,
        )

    def _live_slots(self, slots: Sequence[str]) -> set[str]:
        ids = cast(list[bytes | None], self.redis.mget([_slot_key(slot) for slot in slots])) if slots else []
        of_job = {job_id.decode(): slot for slot, job_id in zip(slots, ids, strict=True) if job_id is not None}
        return {of_job[job.id] for job in self._fetch(list(of_job)) if job.get_status(refresh=False) in LIVE}

    def occupant(self, slot: str) -> Occupant | None:
        """The latest job of a slot; None when it had none, or the job is forgotten."""
        try:
            job_id = cast(bytes | None, self.redis.get(_slot_key(slot)))
            job = next(iter(self._fetch([job_id.decode()])), None) if job_id is not None else None
        except RedisError as error:
            raise _unreachable(error) from error
        if job is None:
            return None
        live = job.get_status(refresh=False) in LIVE
        return Occupant(live=live, args=list(job.args), error=job.meta.get("error"))

    def _fetch(self, ids: Sequence[str]) -> list[Job]:
        """Jobs that are still known, by their ids, in one round trip."""
        if not ids:
            return []
        jobs = Job.fetch_many(ids, connection=self.redis, serializer=JSONSerializer)
        return [job for job in jobs if job is not None]

    def _queue(self, name: str) -> Queue:
        return Queue(name, connection=self.redis, serializer=JSONSerializer)

    # ---- live progress --------------------------------------------------------------------------------------------

    def progress(self, batch: str, position: int, seconds: float) -> None:
        """Record how far the teacher is in an unfinished recording."""
        self.redis.hset(_live_key(batch), mapping={str(position): seconds, "at": time.time()})
        self.redis.expire(_live_key(batch), KEEP_S)

    def finished(self, batch: str, position: int) -> None:
        """Drop a recording's live progress: its result is in the lake."""
        self.redis.hdel(_live_key(batch), str(position))
        self.redis.hset(_live_key(batch), "at", str(time.time()))

    def live(self, batch: str) -> Jobs | None:
        """What Redis knows of the batch; None when Redis does not answer."""
        try:
            ids = [job_id.decode() for job_id in cast(set[bytes], self.redis.smembers(_jobs_key(batch)))]
            jobs = self._fetch(ids)
            if gone := set(ids) - {job.id for job in jobs}:
                self.redis.srem(_jobs_key(batch), *gone)
            fields = cast(dict[bytes, bytes], self.redis.hgetall(_live_key(batch)))
        except RedisError:
            return None
        states = [job.get_status(refresh=False) for job in jobs]
        at = fields.pop(b"at", None)
        return Jobs(
            jobs_queued=sum(state in LIVE and state != JobStatus.STARTED for state in states),
            jobs_running=states.count(JobStatus.STARTED),
            jobs_failed=states.count(JobStatus.FAILED),
            last_error=next((job.meta["error"] for job in jobs if job.meta.get("error")), None),
            seconds_in_flight=round(sum(float(value) for value in fields.values()), 3),
            updated_at=float(at) if at else None,
        )

    def forget(self, batch: str) -> None:
        """Drop everything live of a batch (cancelled, retried)."""
        self.redis.delete(_live_key(batch), f"k2d:attempts:{batch}", f"k2d:errors:{batch}")

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
        found = registry(queue, connection=self.redis, serializer=JSONSerializer)
        return found.get_job_count(cleanup=False)

    def waiting(self, queue: str, most: int = 100) -> list[Job]:
        """The next jobs, oldest first."""
        return self._queue(queue).get_jobs(0, most)

    def oldest_s(self, queue: str) -> float:
        """Age of the oldest waiting job in seconds: the gauge to scale on."""
        jobs = self.waiting(queue, 1)
        if not jobs or jobs[0].enqueued_at is None:
            return 0.0
        return max(0.0, time.time() - jobs[0].enqueued_at.timestamp())


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
        found = cast(bytes | None, self.redis.hget(self.errors, str(position)))
        return found.decode() if found else None


def request_plan(queue: WorkQueue, batch_id: str) -> bool:
    """Enqueue the planning of a batch; returns False where it is queued already."""
    return queue.enqueue(CONTROL, Work("plan_batch", [batch_id], slot=f"plan:{batch_id}"), batch=batch_id)


def _slot_key(slot: str) -> str:
    """Where the id of a slot's latest job is."""
    return f"k2d:slot:{slot}"


def _jobs_key(batch: str) -> str:
    """The set of ids of a batch's jobs."""
    return f"k2d:jobs:{batch}"


def _live_key(batch: str) -> str:
    """The hash of seconds transcribed in each unfinished recording of a batch, and when that was (`at`)."""
    return f"k2d:live:{batch}"


def _unreachable(error: RedisError) -> QueueError:
    return QueueError(
        f"Redis does not answer: {error}", hint="is it running? check K2D_REDIS_URL; `k2d doctor` says more"
    )

"""Redis: the queue and live progress. Never the truth: it may be flushed, and `resume` rebuilds it from the lake."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import BaseRegistry, FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

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
class Live:
    """What Redis knows of a batch right now."""

    jobs_queued: int
    jobs_running: int
    jobs_failed: int
    last_error: str | None
    seconds_in_flight: float  # seconds of unfinished recordings that the teacher has heard
    updated_at: float | None  # Unix time of the last progress


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

    def enqueue(
        self,
        queue: str,
        function: str,
        args: Iterable[Any],
        *,
        slot: str,
        batch: str | None = None,
        force: bool = False,
    ) -> bool:
        """Enqueue `services.filter.jobs.<function>(*args)` unless the slot's job is already live.

        `force` ignores a live job: a job that is stopping puts its own remainder back.
        Returns whether something was enqueued.
        """
        try:
            there = None if force else self.occupant(slot)
            if there is not None and there.live:
                return False
            job = Queue(queue, connection=self.redis, serializer=JSONSerializer).enqueue(
                f"services.filter.jobs.{function}",
                args=list(args),
                job_timeout=self.settings.job_timeout_s,
                retry=Retry(max=len(RETRIES), interval=RETRIES),
                result_ttl=FINISHED_S,
                failure_ttl=KEEP_S,
            )
            self.redis.set(f"k2d:slot:{slot}", job.id, ex=KEEP_S)
            if batch is not None:
                self.redis.sadd(f"k2d:jobs:{batch}", job.id)
                self.redis.expire(f"k2d:jobs:{batch}", KEEP_S)
        except RedisError as error:
            raise _unreachable(error) from error
        return True

    def occupant(self, slot: str) -> Occupant | None:
        """The latest job of a slot; None when it had none, or the job is forgotten."""
        try:
            job_id = cast(bytes | None, self.redis.get(f"k2d:slot:{slot}"))
            job = None if job_id is None else self._job(job_id)
        except NoSuchJobError:
            return None
        except RedisError as error:
            raise _unreachable(error) from error
        if job is None:
            return None
        live = job.get_status(refresh=False) in LIVE
        return Occupant(live=live, args=list(job.args), error=job.meta.get("error"))

    def _job(self, job_id: bytes) -> Job:
        return Job.fetch(job_id.decode(), connection=self.redis, serializer=JSONSerializer)

    # ---- live progress --------------------------------------------------------------------------------------------

    def heard(self, batch: str, position: int, seconds: float) -> None:
        """Note how far the teacher is in an unfinished recording."""
        self.redis.hset(f"k2d:live:{batch}", mapping={str(position): seconds, "at": time.time()})
        self.redis.expire(f"k2d:live:{batch}", KEEP_S)

    def finished(self, batch: str, position: int) -> None:
        """Drop a recording's live progress: its result is in the lake."""
        self.redis.hdel(f"k2d:live:{batch}", str(position))
        self.redis.hset(f"k2d:live:{batch}", "at", str(time.time()))

    def live(self, batch: str) -> Live | None:
        """What Redis knows of the batch; None when Redis does not answer."""
        queued = running = failed = 0
        last_error: str | None = None
        try:
            for job_id in cast(set[bytes], self.redis.smembers(f"k2d:jobs:{batch}")):
                try:
                    job = self._job(job_id)
                except NoSuchJobError:
                    self.redis.srem(f"k2d:jobs:{batch}", job_id)
                    continue
                status = job.get_status(refresh=False)
                running += status == JobStatus.STARTED
                queued += status in LIVE and status != JobStatus.STARTED
                failed += status == JobStatus.FAILED
                last_error = last_error or job.meta.get("error")
            fields = cast(dict[bytes, bytes], self.redis.hgetall(f"k2d:live:{batch}"))
        except RedisError:
            return None
        at = fields.pop(b"at", None)
        return Live(
            jobs_queued=queued,
            jobs_running=running,
            jobs_failed=failed,
            last_error=last_error,
            seconds_in_flight=round(sum(float(value) for value in fields.values()), 3),
            updated_at=float(at) if at else None,
        )

    def forget(self, batch: str) -> None:
        """Drop everything live of a batch (cancelled, retried)."""
        self.redis.delete(f"k2d:live:{batch}", f"k2d:attempts:{batch}", f"k2d:errors:{batch}")

    # ---- gauges ---------------------------------------------------------------------------------------------------

    def depth(self, queue: str) -> int:
        """Jobs waiting."""
        return Queue(queue, connection=self.redis, serializer=JSONSerializer).count

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
        return Queue(queue, connection=self.redis, serializer=JSONSerializer).get_jobs(0, most)

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
    return queue.enqueue(CONTROL, "plan_batch", [batch_id], slot=f"plan:{batch_id}", batch=batch_id)


def _unreachable(error: RedisError) -> QueueError:
    return QueueError(f"Redis does not answer: {error}", hint="is it running? check K2D_REDIS_URL; `k2d doctor` tells")

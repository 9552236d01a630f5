"""Puts jobs whose next attempt is due into their queues: RQ's scheduler, by the Redis server's clock.

It is a process of the worker's. A Redis that goes away is waited for.
"""

import time
from typing import Any, Final

import structlog
from redis.exceptions import RedisError
from rq.job import Job
from rq.queue import Queue
from rq.scheduler import RQScheduler

from k2d.settings import RETRY_S
from services.filter.server_time import pull_near, server_time

log = structlog.get_logger()

REACQUIRE_S: Final = 600.0  # between attempts to take over queues whose scheduler is gone, as in RQ


class Scheduler(RQScheduler):
    """RQ's scheduler with schedules by the server's clock, and its own intervals by a clock that nobody sets.

    What is scheduled further ahead than `longest_wait_s` was scheduled by a wrong clock.
    """

    def __init__(self, *arguments: Any, longest_wait_s: float = max(RETRY_S), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._longest_wait_s = longest_wait_s
        self._acquired_at = -REACQUIRE_S

    @property
    def should_reacquire_locks(self) -> bool:
        """Whether some queue is without a lock of ours and it is time to try again."""
        if self._queue_names == self.acquired_locks:
            return False
        return time.monotonic() - self._acquired_at >= REACQUIRE_S

    def acquire_locks(self, auto_start: bool = False) -> set[str]:
        """As RQ's."""
        self._acquired_at = time.monotonic()
        locks: set[str] = super().acquire_locks(auto_start)  # type: ignore[no-untyped-call]
        return locks

    def enqueue_scheduled_jobs(self) -> None:
        """Enqueue the jobs that are due. What was scheduled by a wrong clock becomes due within the longest wait."""
        self._status = self.Status.WORKING
        if not self._scheduled_job_registries and self._acquired_locks:
            self.prepare_registries()
        for registry in self._scheduled_job_registries:
            if far := pull_near(registry, at_most_s=self._longest_wait_s):
                log.warning("jobs were scheduled by a wrong clock", queue=registry.name, jobs=far)
            due = registry.get_jobs_to_schedule(int(server_time(self.connection)))
            if due:
                self._enqueue(registry, due)
        self._status = self.Status.STARTED

    def _enqueue(self, registry: Any, due: list[str]) -> None:
        queue = Queue(registry.name, connection=self.connection, serializer=self.serializer)
        with self.connection.pipeline() as pipeline:
            for job in Job.fetch_many(due, connection=self.connection, serializer=self.serializer):
                if job is not None:
                    queue._enqueue_job(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())
            for job_id in due:
                registry.remove(job_id, pipeline=pipeline)
            pipeline.execute()

    def work(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        is_away = False
        while not self._stop_requested:
            try:
                if is_away or not self.pid:
                    self.register_birth()
                if self.should_reacquire_locks or is_away:
                    self.acquire_locks()
                self.heartbeat()  # type: ignore[no-untyped-call]
                self.enqueue_scheduled_jobs()
                is_away = False
            except RedisError as error:
                if not is_away:
                    log.debug("the scheduler waits for Redis", error=str(error))  # the worker says it
                is_away = True
            time.sleep(self.interval)
        try:
            self.stop()  # type: ignore[no-untyped-call]
        except RedisError:
            return  # its locks expire

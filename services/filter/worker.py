"""The worker: RQ's, with intervals that surface a killed worker within 90 s and a SIGTERM that loses nothing.

Jobs run in a forked work horse (`services.filter.horse`), which keeps its models from one job to the next. The parent
loads none, and sees a crash at once. A Redis that goes away is waited for; times are those of its clock
(`services.filter.server_time`).
"""

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker as RQWorker
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker_registration import clean_worker_registry

from k2d.errors import K2DError, QueueError, described
from k2d.inference.model_cache import ModelCache
from k2d.logs import setup as setup_logs
from k2d.settings import RETRY_S, Settings, load
from services.filter.horse import HorseLimits, JobOrder, WorkHorse, perform_jobs
from services.filter.project_job import ProjectJob
from services.filter.project_queue import ProjectQueue
from services.filter.queue import QUEUES, WorkQueue
from services.filter.redis_url import connect
from services.filter.scheduler import Scheduler
from services.filter.server_time import Abandoned, JobsBetween, StartedJobs, pull_near, server_time

log = structlog.get_logger()

ENDS: Final = (signal.SIGTERM, signal.SIGINT)  # what ends a worker
STOP_SIGNAL: Final = signal.SIGUSR1  # from worker to horse: finish, put the rest back
WAIT_S: Final = 2.0  # between looks whether Redis is back


@dataclass(frozen=True, slots=True)
class WorkerIntervals:
    """Seconds. A killed worker's job is taken up by another within about their sum, twice `maintenance_s`, and the
    first wait of a retry."""

    heartbeat_s: int = 5  # between heartbeats while a job runs
    grace_s: int = 15  # a job whose last heartbeat is older than this and `heartbeat_s` was abandoned
    maintenance_s: int = 10  # between searches for abandoned jobs
    idle_ttl_s: int = 20  # an idle worker counts as gone after this; it waits for jobs at most 15 s less at a time


DEFAULT_INTERVALS: Final = WorkerIntervals()
DEFAULT_LIMITS: Final = HorseLimits()


class Worker(RQWorker):
    """RQ's worker with our intervals. RQ's own defaults leave a killed worker's job "started" for 400 s and more."""

    def __init__(
        self,
        connection: Redis,
        intervals: WorkerIntervals = DEFAULT_INTERVALS,
        *,
        longest_wait_s: float = max(RETRY_S),
        horse_limits: HorseLimits = DEFAULT_LIMITS,
    ) -> None:
        self._intervals = intervals
        self._horse_limits = horse_limits
        self._horse: WorkHorse | None = None
        self._models = ModelCache()  # in the horse; empty in the worker's own process
        self._longest_wait_s = longest_wait_s  # before another attempt at a job
        self._abandoned = Abandoned(renewed_s=intervals.heartbeat_s + 1)
        self._maintained_at: float | None = None  # by time.monotonic(), as the next
        self._job_started_at = 0.0  # by time.monotonic()
        self.stop_requested = False
        super().__init__(
            list(QUEUES),
            connection=connection,
            job_class=ProjectJob,
            queue_class=ProjectQueue,
            serializer=JSONSerializer,
            maintenance_interval=intervals.maintenance_s,
            job_monitoring_interval=intervals.heartbeat_s,
            worker_ttl=intervals.idle_ttl_s,
        )

    # ---- stopping -------------------------------------------------------------------------------------------------

    def note_stop(self, *_: Any) -> None:
        """On SIGTERM and SIGINT before `work` listens to them. It raises nothing: an exception in a fork is lost."""
        self.stop_requested = self._stop_requested = True

    def request_stop(self, signum: Any, frame: Any) -> None:
        """As RQ's, on SIGTERM and SIGINT."""
        self.note_stop()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """On SIGTERM signal the horse, which stops at the next recording and puts the rest of its group back."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, STOP_SIGNAL)

    # ---- heartbeats -----------------------------------------------------------------------------------------------

    def get_heartbeat_ttl(self, job: Job) -> int:
        """Seconds until a job without another heartbeat counts as abandoned (RQ adds 60, we add `grace_s`)."""
        return self._intervals.heartbeat_s + self._intervals.grace_s

    def maintain_heartbeats(self, job: Job) -> None:
        """As RQ's. Without Redis the horse goes on: what it finishes is in the store."""
        try:
            super().maintain_heartbeats(job)
        except RedisError as error:
            log.debug("no heartbeat", error=str(error))

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """As RQ's; the job is no longer between queue and worker then, from however many queues it may come."""
        super().prepare_job_execution(job, True)

    def set_current_job_working_time(self, current_job_working_time: float, pipeline: Any = None) -> None:
        """As RQ's, by a clock that nobody sets: RQ kills a horse when this exceeds the job's time-out."""
        if current_job_working_time:
            current_job_working_time = time.monotonic() - self._job_started_at
        try:
            super().set_current_job_working_time(current_job_working_time, pipeline)
        except RedisError as error:
            log.debug("no heartbeat", error=str(error))

    # ---- the horse ------------------------------------------------------------------------------------------------

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Hand the job to the horse; fork another one where there is none, or it has ended."""
        assert self.execution is not None  # RQ has just noted it
        created_at = self.execution.created_at.timestamp()
        order = JobOrder(job.id, queue.name, self.execution.id, created_at)
        self._job_started_at = time.monotonic()
        if self._horse is None or not self._horse.hand(order):
            self._end_horse()
            self._horse = self._fork_horse()
            self._horse.hand(order)
        self._horse_pid = self._horse.pid
        if self._stop_requested:  # there was no horse to signal
            self.handle_warm_shutdown_request()

    def _fork_horse(self) -> WorkHorse:
        ours, theirs = socket.socketpair()
        worker = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # the worker's handlers are not for the horse
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_horse(theirs, worker)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        theirs.close()
        self.procline(f"Forked {pid} at {time.time()}")  # type: ignore[no-untyped-call]
        return WorkHorse(pid, ours)

    def _be_horse(self, channel: socket.socket, worker: int) -> NoReturn:
        """In the horse, after the fork: perform jobs, and end the process."""
        status = 1  # an error outside of a job's own, such as a Redis that is away
        try:
            os.setpgrp()
            self.setup_work_horse_signals()  # type: ignore[no-untyped-call]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
            self._is_horse = True
            self.log = logging.getLogger("rq.worker")
            perform_jobs(channel, self._perform, worker=worker, models=self._models, limits=self._horse_limits)
            status = 0
        finally:
            os._exit(status)

    def _perform(self, order: JobOrder) -> bool:
        """In the horse: run a job; returns whether it succeeded."""
        job = ProjectJob.fetch(order.job_id, connection=self.connection, serializer=self.serializer)
        assert isinstance(job, ProjectJob)
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        job.models = self._models
        self.execution = Execution(order.execution_id, job.id, self.connection, self.name)
        self.execution.created_at = datetime.fromtimestamp(order.execution_at, UTC)
        queue = ProjectQueue(order.queue, connection=self.connection, job_class=ProjectJob, serializer=self.serializer)
        os.environ |= {"RQ_WORKER_ID": self.name, "RQ_JOB_ID": job.id}  # as RQ does
        return bool(self.perform_job(job, queue))

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait until the horse has done its job, or has ended. RQ takes status 0 for a job that was seen to."""
        if self._horse is not None and self._horse.wait_answer():
            return self._horse.pid, os.EX_OK, None
        ended: tuple[int | None, int | None, Any] = super().wait_for_horse()
        self._end_horse()
        return ended

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """As RQ's; the next job gets another one."""
        if self._horse is not None:
            self._horse.is_killed = True
        super().kill_horse(sig)

    def _end_horse(self) -> None:
        horse, self._horse = self._horse, None
        if horse is not None:
            horse.end()

    def run_maintenance_tasks(self) -> None:
        """As RQ's; a horse that had no job for long is ended."""
        horse = self._horse
        if horse and horse.idle_since and time.monotonic() - horse.idle_since > self._horse_limits.idle_s:
            self._end_horse()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def teardown(self) -> None:
        """As RQ's; the horse ends first."""
        if not self.is_horse:
            self._end_horse()
        super().teardown()  # type: ignore[no-untyped-call]

    # ---- maintenance ----------------------------------------------------------------------------------------------

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether `maintenance_s` have passed since the last search."""
        return self._maintained_at is None or time.monotonic() - self._maintained_at > self._intervals.maintenance_s

    def clean_registries(self) -> None:
        """Retry the jobs of workers that are gone, and forget old ones, by the server's clock."""
        for queue in self.queues:
            if not queue.acquire_maintenance_lock():
                continue
            started = StartedJobs(queue=queue, job_class=ProjectJob, serializer=JSONSerializer)
            pull_near(started, at_most_s=self._intervals.heartbeat_s + self._intervals.grace_s)
            if (until := self._abandoned.until(started)) >= 0:
                started.cleanup(timestamp=until, exception_handlers=self._exc_handlers)
            now = server_time(self.connection)
            for registry in (FinishedJobRegistry, FailedJobRegistry):
                registry(queue=queue, job_class=ProjectJob, serializer=JSONSerializer).cleanup(timestamp=now)
            clean_worker_registry(queue)
            JobsBetween(queue.key, connection=self.connection).cleanup(self, queue)
            queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self._maintained_at = time.monotonic()
        # RQ only asks whether there was a first search
        self.last_cleaned_at = self.last_heartbeat  # type: ignore[assignment]

    # ---- the rest -------------------------------------------------------------------------------------------------

    def _start_scheduler(self, burst: bool = False, *_: Any, **__: Any) -> None:
        self.scheduler = Scheduler(
            self.queues,
            connection=self.connection,
            logging_level="WARNING",
            serializer=self.serializer,
            longest_wait_s=self._longest_wait_s,
        )
        if not self.scheduler.acquire_locks():
            return
        if not burst:
            self.scheduler.start()  # type: ignore[no-untyped-call]
            return
        try:
            self.scheduler.register_birth()
            self.scheduler.enqueue_scheduled_jobs()
        finally:
            self.scheduler.release_locks()  # type: ignore[no-untyped-call]
            self.scheduler.register_death()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log what ended a job: an error that was raised on purpose in a sentence, another one with its traceback."""
        error = exc_info[1]
        if isinstance(error, K2DError):
            log.error("job failed", job=str(job.func_name).rpartition(".")[2], error=described(error))
        elif isinstance(error, RedisError):
            log.error("job failed", job=str(job.func_name).rpartition(".")[2], error=str(error))
        else:
            super().handle_exception(job, *exc_info)


class _LostRedis(logging.Filter):
    """Takes the traceback from what RQ logs of a Redis that went away, and remembers an error of another kind."""

    failed = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            if isinstance(record.exc_info[1], RedisError):
                return False  # `run` says it
            self.failed = True
        return True


def run(settings: Settings, intervals: WorkerIntervals) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code. A Redis that is away, or takes no writes, is waited for."""
    lost = _LostRedis()
    logging.getLogger("rq.worker").addFilter(lost)
    while True:
        _wait_for_redis(settings)
        worker = None
        try:
            worker = Worker(connect(settings), intervals, longest_wait_s=max(settings.retry_s))
            _on_end(worker.note_stop)
            worker.work(with_scheduler=True, logging_level="WARNING")
        except RedisError as error:
            log.debug("lost Redis", error=str(error))
        if worker is not None and worker.stop_requested:
            return 0
        if lost.failed:
            return 1  # RQ has logged it


def _on_end(handler: Callable[..., object]) -> None:
    for number in ENDS:
        signal.signal(number, handler)


def _wait_for_redis(settings: Settings) -> None:
    """Wait until Redis takes writes; what is wrong is said once."""
    _on_end(lambda *_: sys.exit(0))
    queue, said = WorkQueue(settings), ""
    while True:
        try:
            queue.check()
        except QueueError as error:
            if error.message != said:
                log.error("the worker waits for Redis", error=described(error))
                said = error.message
            time.sleep(WAIT_S)
            continue
        if said:
            log.warning("the worker goes on")
        return


def main(arguments: list[str]) -> None:
    """Run one worker until SIGTERM or SIGINT.

    python -m services.filter.worker --heartbeat-s 1 --grace-s 2
    """
    parser = argparse.ArgumentParser(prog="python -m services.filter.worker", description="Run one worker.")
    for field in fields(WorkerIntervals):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default, metavar="SECONDS")
    intervals = WorkerIntervals(**vars(parser.parse_args(arguments)))
    try:
        settings = load()
        setup_logs(settings)
        connect(settings)  # an address that cannot be read
    except K2DError as error:
        sys.exit(f"k2d worker: {error.message}\n  hint: {error.hint}")
    log.info("worker started", queues=QUEUES, store=settings.store, teacher=settings.teacher)
    sys.exit(run(settings, intervals))


if __name__ == "__main__":
    main(sys.argv[1:])

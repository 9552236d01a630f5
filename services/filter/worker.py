"""The worker: RQ's, with intervals that surface a killed worker within 90 s and a SIGTERM that loses nothing.

Each job runs in a forked work horse, so that memory goes back and a crash is seen at once by the parent.
"""

import argparse
import os
import signal
import sys
from dataclasses import dataclass, fields
from typing import Final

import structlog
from redis import Redis
from rq import Worker as RQWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from k2d.errors import K2DError
from k2d.logs import setup as setup_logs
from k2d.settings import load
from services.filter.project_job import ProjectJob
from services.filter.queue import QUEUES
from services.filter.redis_url import connect

log = structlog.get_logger()

STOP_SIGNAL: Final = signal.SIGUSR1  # from worker to horse: finish, put the rest back


@dataclass(frozen=True, slots=True)
class WorkerIntervals:
    """Seconds. A killed worker's job is taken up by another within about their sum, and the first wait of a retry."""

    heartbeat_s: int = 5  # between heartbeats while a job runs
    grace_s: int = 15  # a job whose last heartbeat is older than this and `heartbeat_s` was abandoned
    maintenance_s: int = 10  # between searches for abandoned jobs
    idle_ttl_s: int = 20  # an idle worker counts as gone after this; it waits for jobs at most 15 s less at a time


DEFAULT_INTERVALS: Final = WorkerIntervals()


class Worker(RQWorker):
    """RQ's worker with our intervals. RQ's own defaults leave a killed worker's job "started" for 400 s and more."""

    def __init__(self, connection: Redis, intervals: WorkerIntervals = DEFAULT_INTERVALS) -> None:
        self._intervals = intervals
        super().__init__(
            list(QUEUES),
            connection=connection,
            job_class=ProjectJob,
            serializer=JSONSerializer,
            maintenance_interval=intervals.maintenance_s,
            job_monitoring_interval=intervals.heartbeat_s,
            worker_ttl=intervals.idle_ttl_s,
        )

    def get_heartbeat_ttl(self, job: Job) -> int:
        """Seconds until a job without another heartbeat counts as abandoned (RQ adds 60, we add `grace_s`)."""
        return self._intervals.heartbeat_s + self._intervals.grace_s

    def handle_warm_shutdown_request(self) -> None:
        """On SIGTERM signal the horse, which stops at the next recording and puts the rest of its group back."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, STOP_SIGNAL)


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
    except K2DError as error:
        sys.exit(f"k2d worker: {error.message}\n  hint: {error.hint}")
    setup_logs(settings)
    worker = Worker(connect(settings), intervals)
    log.info("worker started", queues=QUEUES, store=settings.store, teacher=settings.teacher)
    worker.work(with_scheduler=True, logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The worker: RQ's, with intervals that surface a killed worker within 90 s and a SIGTERM that loses nothing.

Each job runs in a forked work horse, so that memory goes back and a crash is seen at once by the parent.
"""

import os
import signal
import sys

import structlog
from redis import Redis
from rq import Worker as RQWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from k2d.errors import K2DError
from k2d.logs import setup as setup_logs
from k2d.settings import load
from services.filter.queue import QUEUES, connect

log = structlog.get_logger()

MONITOR_S = 5  # between heartbeats while a job runs
GRACE_S = 15  # a job whose last heartbeat is older than MONITOR_S + GRACE_S was abandoned
MAINTENANCE_S = 10  # between looks for abandoned jobs
WORKER_TTL_S = 20  # an idle worker is gone after this; also bounds how long it blocks on the queue (ttl − 15)
STOP_SIGNAL = signal.SIGUSR1  # from worker to horse: finish, put the rest back


class Worker(RQWorker):
    """RQ's worker with our intervals. RQ's own defaults leave a killed worker's job "started" for 400 s and more."""

    def __init__(self, connection: Redis) -> None:
        super().__init__(
            list(QUEUES),
            connection=connection,
            serializer=JSONSerializer,
            maintenance_interval=MAINTENANCE_S,
            job_monitoring_interval=MONITOR_S,
            worker_ttl=WORKER_TTL_S,
        )

    def get_heartbeat_ttl(self, job: Job) -> int:
        """Seconds until a job without another heartbeat counts as abandoned (RQ adds 60, we add GRACE_S)."""
        return MONITOR_S + GRACE_S

    def handle_warm_shutdown_request(self) -> None:
        """On SIGTERM tell the horse, which stops at the next recording and puts the rest of its group back."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, STOP_SIGNAL)


def main() -> None:
    """Run one worker until SIGTERM or SIGINT."""
    try:
        settings = load()
    except K2DError as error:
        sys.exit(f"k2d worker: {error.message}\n  hint: {error.hint}")
    setup_logs(settings)
    worker = Worker(connect(settings))
    log.info("worker started", queues=QUEUES, store=settings.store, teacher=settings.teacher)
    worker.work(with_scheduler=True, logging_level="WARNING")


if __name__ == "__main__":
    main()

"""The only jobs that a worker runs: the project's own functions. Who can write to Redis names no other code."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final

from redis.client import Pipeline
from rq.job import Job, JobStatus
from rq.queue import Queue

from k2d.errors import BadRequest
from k2d.inference.model_cache import ModelCache
from services.filter.server_time import StartedJobs, server_time

MODULE: Final = "services.filter.jobs"
FUNCTIONS: Final = ("describe_part", "plan_batch", "label_group", "index_part", "freeze_dataset", "freeze_slices")


def job_name(function: str) -> str:
    """The name under which a function of the project is queued.

    Raises:
        BadRequest: workers run no such function.
    """
    if function not in FUNCTIONS:
        raise BadRequest(f"not a job of k2d: {function[:100]!r}", hint=f"jobs are {', '.join(FUNCTIONS)}")
    return f"{MODULE}.{function}"


class ProjectJob(Job):
    """A job whose function is one of FUNCTIONS. RQ's own would import whatever name is in Redis, also for callbacks."""

    models: ModelCache | None = None  # of the work horse that runs the job, which keeps them for the next

    @property
    def func(self) -> Callable[..., Any]:
        """The function.

        Raises:
            BadRequest: the job names another one; it fails and is not tried again.
        """
        module, _, function = str(self.func_name).rpartition(".")
        try:
            if module != MODULE:
                raise BadRequest(f"not a job of k2d: {str(self.func_name)[:100]!r}", hint="who writes to this Redis?")
            job_name(function)
        except BadRequest:
            self.retries_left = 0
            raise
        run: Callable[..., Any] = getattr(import_module(MODULE), function)
        return run

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Schedule the next attempt by the server's clock; RQ takes that of the machine on which the job failed."""
        wait_s = self.get_retry_interval()
        self.retries_left = (self.retries_left or 1) - 1
        self.set_status(JobStatus.SCHEDULED)
        at = datetime.fromtimestamp(server_time(self.connection) + wait_s, UTC)
        queue.schedule_job(self, at, pipeline=pipeline)

    @property
    def started_job_registry(self) -> StartedJobs:
        """The registry of running jobs that the heartbeats of this one go to."""
        return StartedJobs(
            self.origin, connection=self.connection, job_class=self.__class__, serializer=self.serializer
        )

    @property
    def instance(self) -> None:
        """None: no job of the project is a method."""

    @instance.setter
    def instance(self, value: object) -> None:
        raise BadRequest("jobs of k2d are functions", hint="who writes to this Redis?")

    @property
    def success_callback(self) -> None:
        """None: jobs of the project have no callbacks."""

    @property
    def failure_callback(self) -> None:
        """None, as `success_callback`."""

    @property
    def stopped_callback(self) -> None:
        """None, as `success_callback`."""

"""The only jobs that a worker runs: the project's own functions. Who can write to Redis names no other code."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from rq.job import Job

from k2d.errors import BadRequest

MODULE: Final = "services.filter.jobs"
FUNCTIONS: Final = ("plan_batch", "label_group", "index_part", "freeze_dataset", "freeze_slices")


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

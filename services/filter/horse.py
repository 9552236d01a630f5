"""The work horse: the process of a worker in which its jobs run, one after the other, so that models are loaded once.

The worker forks it, hands it a job over a socket, and waits until the horse answers or ends. So it sees a crash at
once, and whose job it was. A horse that ends with status 0 has done its job and is to be replaced: after a job that
failed, when it has grown, and after a number of jobs.
"""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass
from typing import Final

import psutil

from k2d.inference.model_cache import ModelCache

POLL_S: Final = 1.0  # between looks of an idle horse whether its worker lives
END_S: Final = 5.0  # for an idle horse to end: it only stops its decoders; then it is killed
_ANSWER: Final = b"."


@dataclass(frozen=True, slots=True)
class HorseLimits:
    """When a horse is ended, so that the next job gets a new one. A job that failed always ends it."""

    jobs: int = 100  # about 100 hours of audio: loading models costs nothing beside it, and a slow leak goes back
    # Of resident memory, since models were last loaded. Peaks of a worker differ by 200 MB with one and sixteen
    # recordings in flight (docs/LOG.md), and a worker without weights gets 2 GB in docker-compose.yml
    grown_mb: int = 1024
    idle_s: float = 300.0  # without a job; chosen: models of a worker with nothing to do are in nobody's way for long


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job that is handed to a horse: where it is in Redis."""

    job_id: str
    queue: str
    execution_id: str
    execution_at: float  # when the execution was noted, Unix time


class WorkHorse:
    """A horse, as its worker sees it. `pid` is its process id.

    horse = WorkHorse(pid, channel)
    if horse.hand(order) and horse.wait_answer():
        horse.hand(another)
    horse.end()
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.is_killed = False  # by the worker; it may not be seen to have ended yet
        self.idle_since: float | None = None  # by time.monotonic()
        self._channel = channel
        self._handed = 0

    def hand(self, order: JobOrder) -> bool:
        """Begin a job; returns False if the horse has ended."""
        if self.is_killed or self._has_ended():
            return False
        try:
            if self._handed and self._channel.recv(1, socket.MSG_DONTWAIT) != _ANSWER:
                return False
            self._channel.sendall(json.dumps(asdict(order)).encode() + b"\n")
        except OSError:
            return False
        self._handed += 1
        self.idle_since = None
        return True

    def wait_answer(self) -> bool:
        """Wait until it has done its job; False if it ended instead. May be called again, also after an exception of a
        signal handler: the answer is not taken before the next job is handed."""
        if self.is_killed:
            return False
        try:
            has_answered = bool(self._channel.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            return False
        if has_answered:
            self.idle_since = time.monotonic()
        return has_answered

    def end(self) -> None:
        """End it, if it has not ended, and wait for that. One that has a job in hand is killed."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # also where a process forked since has a copy of it
        self._channel.close()
        deadline = time.monotonic() + (END_S if self.idle_since is not None else 0.0)
        while not self._has_ended():
            if time.monotonic() >= deadline:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _has_ended(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # somebody has waited for it already
            return True


def perform_jobs(
    channel: socket.socket,
    perform: Callable[[JobOrder], bool],
    *,
    worker: int,
    models: ModelCache,
    limits: HorseLimits,
) -> None:
    """In the horse: perform the jobs that are handed over, until the worker ends or a limit is reached.

    Args:
        perform: runs a job; returns whether it succeeded.
        worker: process id of the worker.
        models: what the jobs keep in memory.
    """
    channel.settimeout(POLL_S)
    loads, loaded_mb = -1, 0.0
    for number in range(1, limits.jobs + 1):
        order = _next_order(channel, worker)
        if order is None:
            break
        with _restored():
            succeeded = copy_context().run(perform, order)  # what a job binds to log lines ends with it
        if models.loads != loads:
            loads, loaded_mb = models.loads, resident_mb()
        if not succeeded or number == limits.jobs or resident_mb() - loaded_mb > limits.grown_mb:
            break
        with suppress(OSError):  # the worker was killed, as the next look shows
            channel.sendall(_ANSWER)
    from k2d.audio import isolated  # the worker's own process needs none of it

    isolated.stop_server()  # a horse ends without exit handlers


def _next_order(channel: socket.socket, worker: int) -> JobOrder | None:
    """The next job; None when the worker has ended, or wants the horse to."""
    line = b""
    while os.getppid() == worker:
        try:
            data = channel.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return None
        if not data:
            return None
        line += data
        if line.endswith(b"\n"):
            return JobOrder(**json.loads(line))
    return None


@contextmanager
def _restored() -> Iterator[None]:
    """Give the next job what the first one had: environment, current folder, and random numbers of its own."""
    environment = dict(os.environ)
    folder = os.open(".", os.O_RDONLY)
    random.seed()
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        os.fchdir(folder)
        os.close(folder)


def resident_mb() -> float:
    """Resident memory of this process, in MB."""
    return float(psutil.Process().memory_info().rss) / 2**20

"""One process of the stack: how to start it, whether it lives, and when it is started again."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from k2d.errors import K2DError, described
from services.local.backoff import delay_s, failures_after

log = structlog.get_logger()

LEFT_BEHIND_S: Final = 3.0  # for what a dead child left behind; RQ's scheduler looks for a signal every second


@dataclass(slots=True)
class Child:
    """A process that is started again when it ends, after waits that grow as long as it keeps ending at once.

        child = Child("api", start=lambda: subprocess.Popen(command, start_new_session=True))
        child.spawn()
        while True:
            child.look()

    `start` returns the process once it runs; it may raise a K2DError. The process leads a process group of its own.
    """

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0  # in a row
    started_at: float = 0.0  # by `clock`, as the next
    due_at: float | None = None  # of the next start, while it waits for that
    said: str = ""  # the last error of a start, which is said once
    clock: Callable[[], float] = time.monotonic

    @property
    def code(self) -> int | None:
        """The exit code of the process; None while it lives, or before the first start."""
        return None if self.process is None else self.process.poll()

    def spawn(self) -> None:
        """Start the process, after ending what the last one left behind.

        Raises:
            K2DError: `start` failed.
        """
        if self.process is not None:
            end_group(self.process.pid)
        self.process, self.due_at = None, None
        self.started_at = self.clock()
        self.process = self.start()

    def look(self) -> bool:
        """Start the process again if it has ended and its time has come; returns whether it was started."""
        now = self.clock()
        if self.due_at is None and self.process is not None and (code := self.process.poll()) is not None:
            self._wait(now, f"{self.name} ended with {_reason(code)}")
        if self.due_at is None or now < self.due_at:
            return False
        try:
            self.spawn()
        except K2DError as error:
            self._wait(self.clock(), f"{self.name} does not start: {described(error)}")
            return False
        self.said = ""
        return True

    def _wait(self, now: float, why: str) -> None:
        self.failures = failures_after(self.failures, now - self.started_at)
        self.due_at = now + delay_s(self.failures)
        if why != self.said:  # once, not at every attempt
            log.error(why, again_in_s=delay_s(self.failures))
            self.said = why

    def signal(self, number: int) -> None:
        """Send a signal, if the process lives."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, deadline: float) -> None:
        """Wait until the process ends; at `deadline` (time.monotonic()) it is killed. Ends what it left behind, too."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        end_group(self.process.pid)


def end_group(leader: int) -> None:
    """End what a child that is dead left in its process group: RQ's scheduler goes on without its worker."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + LEFT_BEHIND_S
        try:
            os.killpg(leader, number)
            while time.monotonic() < deadline:
                time.sleep(0.05)
                os.killpg(leader, 0)
        except (ProcessLookupError, PermissionError):  # nobody is left; macOS says so of zombies with the latter
            return


def _reason(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"

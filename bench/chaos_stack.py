"""The stack of a chaos run: `k2d up` as a child, its processes by what they are, and workers beside it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from chaos_up import WORKER_OPTIONS
from redis import Redis

from k2d.client.http import Client
from services.local.redis_server import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
READY_S: Final = 300.0  # on a machine that has much else to do
STOP_S: Final = 60.0
LEFT_S: Final = 8.0  # for what ends by itself after the stack: decoders see that their parent is gone

# words of a command line → what the process is
ROLES: Final = (
    ("valkey-server", "redis"),
    ("redis-server", "redis"),
    ("services.filter.app", "api"),
    ("services.filter.worker", "worker"),
    ("services.teacher", "server"),
    ("decode_server", "decoder"),
    ("chaos_up.py", "up"),
)


@dataclass(slots=True)
class ChaosStack:
    """`k2d up` and what belongs to it. Every process has `mark` as its TMPDIR, which children inherit.

    with ChaosStack(store=Path("store"), mark=Path("/tmp/x/t"), log=Path("log"), variables={…}) as stack:
        stack.client.label([...], BatchOptions())
        stack.find("worker")[0].kill()
    """

    store: Path
    mark: Path
    log: Path
    variables: Mapping[str, str]
    workers: int = 2
    preload: Mapping[str, str] = field(default_factory=dict)  # variables of `k2d up` and its children alone
    serve: bool = False  # the teacher in a server of its own
    port: int = field(default_factory=free_port)
    up: "subprocess.Popen[bytes] | None" = None
    server: "subprocess.Popen[bytes] | None" = None
    server_port: int = field(default_factory=free_port)
    beside: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    starts: int = 0  # of `k2d up`, after the first
    left: list[str] = field(default_factory=list)  # processes that outlived the end, and were killed
    client: Client = field(init=False)

    def __enter__(self) -> "ChaosStack":
        self.mark.mkdir(parents=True, exist_ok=True)
        self.client = Client(f"http://127.0.0.1:{self.port}", timeout_s=20.0)
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.left = self.end()

    def start(self) -> None:
        if self.serve:
            self.start_server()
        command = [sys.executable, str(ROOT / "bench" / "chaos_up.py"), "--workers", str(self.workers)]
        self.up = self._spawn([*command, "--port", str(self.port)], self.preload)

    def start_server(self) -> None:
        self.server = self._spawn(
            [sys.executable, "-m", "services.teacher"], {"K2D_PORT": str(self.server_port), "K2D_GOLDEN": "off"}
        )

    def start_again(self) -> bool:
        """Start `k2d up`, and the teacher's server, where they were killed: nobody in the stack does that."""
        started = False
        if self.server is not None and self.server.poll() is not None:
            self.start_server()
        if self.up is not None and self.up.poll() is not None:
            self.starts += 1
            self.start_up_only()
            started = True
        return started

    def start_up_only(self) -> None:
        serve, self.serve = self.serve, False
        try:
            self.start()
        finally:
            self.serve = serve

    def start_worker(self, code: str, variables: Mapping[str, str]) -> None:
        """Start a worker that `k2d up` does not know: `code` runs before it."""
        program = f"import sys\n{code}\nfrom services.filter.worker import main\nmain({list(WORKER_OPTIONS)!r})"
        command = [sys.executable, "-c", f"# services.filter.worker\n{program}"]
        self.beside.append(self._spawn(command, {"K2D_REDIS_URL": self.redis_url(), **variables}))

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self.client.is_up():
            assert time.monotonic() < deadline, f"the API did not answer within {READY_S:.0f} s; see {self.log}"
            assert self.up is not None
            assert self.up.poll() is None, f"k2d up ended with {self.up.returncode}; see {self.log}"
            time.sleep(0.2)

    def redis_url(self) -> str:
        """The address of the embedded Redis, as a worker was told it; empty while there is none."""
        for process in self.find("worker", "api"):
            with contextlib.suppress(psutil.Error):
                if url := process.environ().get("K2D_REDIS_URL"):
                    return url
        return ""

    def redis(self) -> Redis | None:
        url = self.redis_url()
        return Redis.from_url(url, socket_timeout=2) if url else None

    # ---- processes ------------------------------------------------------------------------------------------------

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """All live processes of the stack with what they are, orphans too."""
        return [(_role(process), process) for process in marked(self.mark)]

    def find(self, *roles: str) -> list[psutil.Process]:
        return [process for role, process in self.processes() if role in roles]

    def end(self) -> list[str]:
        """Stop everything in order; returns what was left behind then, which is killed."""
        for child in self.beside:
            _ask(child, signal.SIGTERM)
        for child in self.beside:
            _wait(child)
        if self.up is not None:
            _ask(self.up, signal.SIGINT)
            _wait(self.up)
        if self.server is not None:
            _ask(self.server, signal.SIGTERM)
            _wait(self.server)
        self.client.http.close()
        deadline = time.monotonic() + LEFT_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for _, process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return [f"{role} (pid {process.pid})" for role, process in left]

    def k2d(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a `k2d` command on the stack's store, as a person would."""
        return subprocess.run(
            [sys.executable, "-m", "k2d.cli", *arguments],
            env=self._environment({}),
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
            cwd=self.mark,
        )

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment |= {"PYTHONPATH": path, "TMPDIR": str(self.mark), "K2D_STORE": str(self.store)}
        environment.pop("XDG_RUNTIME_DIR", None)
        return environment | self.variables | variables

    def _spawn(self, command: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        teacher = {"K2D_TEACHER": f"http://127.0.0.1:{self.server_port}"} if self.serve_workers(command) else {}
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=self._environment(teacher | variables),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.mark,
            )

    def serve_workers(self, command: Sequence[str]) -> bool:
        return self.server is not None and "services.teacher" not in command


def marked(mark: Path) -> list[psutil.Process]:
    """All live processes whose TMPDIR is `mark`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("TMPDIR") == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _role(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
        role = next((role for word, role in ROLES if word in command), "other")
        if role != "worker" or os.getsid(process.pid) == process.pid:
            return role
        return "horse" if os.getpgid(process.pid) == process.pid else "scheduler"
    except (psutil.Error, OSError):
        return "gone"


def _ask(process: "subprocess.Popen[bytes]", number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""One Triton process on this machine: made from the settings, started, watched, drained and stopped."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import structlog

import k2d
from k2d.errors import BadRequest
from k2d.inference.address import plain
from k2d.schema import EngineName
from k2d.settings import Settings
from k2d.whisper.resolve import resolve
from services.local.redis_server import free_port
from services.tritonserver import environment, repository, shm
from services.tritonserver.admin import Admin
from services.tritonserver.healer import Healer, stubs
from services.tritonserver.output import Output
from services.tritonserver.runtime import Runtime, TritonFailed, nvidia

# weights are on this machine by then; reading and converting large ones to the GPU takes minutes
READY_S: Final = 600.0
DRAIN_S: Final = 20  # after SIGTERM, what is in flight gets to finish; then the server ends
KILL_S: Final = 5.0  # more, before it is killed
EMPTY_S: Final = 2.5  # without stubs: it looks at its models once a second
STUB_S: Final = 120  # importing the engine on a cold disk; Triton's own default is 30
LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 — compared with, not bound to, unless the operator set K2D_HOST so

log = structlog.get_logger()


class TritonServer:
    """tritonserver with `models`, as a context manager. Port 0 takes a free one.

        with TritonServer(load(), models=["teacher"]) as server:
            server.address("teacher")  # K2D_TEACHER of the workers

    Log lines of the server go to `log_file`, or to this process's standard error.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Sequence[str] = ("teacher",),
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log_file: Path | None = None,
        ready_s: float = READY_S,
    ) -> None:
        if not models:
            raise BadRequest("no model to serve", hint=f"models are: {', '.join(repository.MODELS)}")
        self.settings, self.models = settings, tuple(dict.fromkeys(models))
        self.grpc_port, self.http_port, self.metrics_port = (
            port or free_port() for port in (grpc_port, http_port, metrics_port)
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._log_file, self._ready_s = log_file, ready_s
        self.folder: Path | None = None  # its files while it runs
        self._output: Output | None = None
        self._healer: Healer | None = None

    @property
    def host(self) -> str:
        """The address at which clients on this machine reach it."""
        return LOOPBACK if self.settings.host == EVERYWHERE else self.settings.host

    def address(self, model: str = "teacher") -> str:
        """A model's address, as K2D_TEACHER and K2D_VALIDATOR take it."""
        return f"grpc://{self.host}:{self.grpc_port}/{model}"

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.metrics_port}/metrics"

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Install what is missing, fetch the weights, start the server, and wait until every model is ready.

        Raises:
            BadRequest: settings that cannot be served.
            ModelError: weights that cannot be had.
            TritonFailed: the server cannot be installed, or is not ready in time; the message ends with its log.
        """
        runtime = self._prepare()
        shm.sweep(shm.prefix())
        self.folder = Path(tempfile.mkdtemp(prefix="k2d-triton-"))
        try:
            admin = self._spawn(runtime, self.folder)
            self._wait_ready(admin)
        except BaseException:
            self.stop()
            raise
        self._healer = Healer(admin, self.models, repository=self.folder / "repository", load_s=self._ready_s)
        self._healer.start()

    def wait(self) -> NoReturn:
        """Block until the server ends by itself.

        Raises:
            TritonFailed: then.
        """
        code = self.process.wait() if self.process else None
        raise self._failed(f"Triton ended by itself with code {code}")

    def tail(self) -> str:
        """The last lines of the server's log."""
        return self._output.tail() if self._output else ""

    def stop(self) -> None:
        """Let what is in flight end, then stop the server and remove its files and shared memory."""
        if self._healer is not None:
            self._healer.stop()
            self._healer = None
        if self.process is not None:
            self._drain(self.process)
            self.process = None
        if self._output is not None:
            self._output.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
        shm.sweep(shm.prefix())

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the server to end and wait until it has, or until nothing is left that it could wait for.

        After a stub died with a request in its hands Triton counts its model as alive for ever, and would sit out the
        whole time-out. Stubs end when their model has answered and is unloaded: without stubs there is no work.
        """
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S + KILL_S
        empty_since: float | None = None
        while process.poll() is None:
            now = time.monotonic()
            busy = self.folder is None or any(stubs(self.folder / "repository", name) for name in self.models)
            empty_since = None if busy else empty_since or now
            if now > deadline or (empty_since is not None and now - empty_since > EMPTY_S):
                log.warning("Triton does not end by itself and is killed", work_left=busy)
                os.killpg(process.pid, signal.SIGKILL)  # its stubs are in its group
                process.wait()
            time.sleep(0.1)

    def _prepare(self) -> Runtime:
        """Check the settings, install the server and fetch the weights: what can fail without a server fails here."""
        for name in self.models:
            repository.check(self.settings, name)
        nvidia_runtime = nvidia()
        if nvidia_runtime is None and self.settings.engine != EngineName.CTRANSLATE2:
            raise BadRequest(
                f"the bundled Triton has the engine {EngineName.CTRANSLATE2} only, not {self.settings.engine}",
                hint=f"K2D_ENGINE={EngineName.CTRANSLATE2}, or `k2d serve`, which uses this environment's packages",
            )
        runtime = nvidia_runtime or environment.ensure(self.settings.cache)
        runtime.check()
        for name in self.models:
            resolve(
                plain(getattr(self.settings, name)),
                engine=self.settings.engine,
                cache=self.settings.cache,
                allow_downloads=self.settings.allow_downloads,
            )
        return runtime

    def _spawn(self, runtime: Runtime, folder: Path) -> Admin:
        admin = Admin(self.http_url)
        code = folder / "code"  # our packages, and nothing else of this environment: its numpy is not the stub's
        code.mkdir()
        packages = Path(k2d.__file__).parent.parent
        for name in ("k2d", "services"):
            (code / name).symlink_to(packages / name)
        path = [str(code), *filter(None, [runtime.site])]
        repository.write(self.settings, self.models, into=folder / "repository", path=path)
        variables = {**runtime.variables(), **self.settings.variables()}
        self._output = Output(self._log_file)
        # its own session, which Ctrl-C in a terminal does not reach: we drain it
        self.process = subprocess.Popen(
            [str(runtime.binary), *self._arguments(runtime, folder), *admin.arguments()],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._output.follow(self.process)
        return admin

    def _arguments(self, runtime: Runtime, folder: Path) -> list[str]:
        host = self.settings.host
        info = "true" if self.settings.log_level in ("debug", "info") else "false"
        return [
            f"--model-repository={folder / 'repository'}",
            f"--backend-directory={runtime.backends}",
            "--model-control-mode=explicit",  # the healer unloads and loads a model whose stub died
            *(f"--load-model={name}" for name in self.models),
            *(f"--{what}-address={host}" for what in ("http", "grpc", "metrics")),
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            f"--exit-timeout-secs={DRAIN_S}",
            f"--log-info={info}",
            "--log-warning=true",
            "--disable-auto-complete-config",
            f"--allow-gpu-metrics={'true' if Path('/dev/nvidiactl').exists() else 'false'}",
            "--pinned-memory-pool-byte-size=0",  # samples go through shared memory to the stub, never to the GPU here
            f"--backend-config=python,shm-region-prefix-name={shm.prefix()}",
            f"--backend-config=python,stub-timeout-seconds={STUB_S}",
            # clients send pings during long calls (k2d.inference.triton_endpoint); five minutes is Triton's default
            "--grpc-http2-min-recv-ping-interval-without-data=10000",
        ]

    def _wait_ready(self, admin: Admin) -> None:
        deadline = time.monotonic() + self._ready_s
        waiting = list(self.models)
        while waiting:
            if self.process is None or (code := self.process.poll()) is not None:
                raise self._failed(f"Triton ended with code {code} while starting")
            if time.monotonic() > deadline:
                raise self._failed(f"{', '.join(waiting)} did not become ready within {self._ready_s:g} s")
            waiting = [name for name in waiting if not admin.is_ready(name)]
            time.sleep(0.1 if waiting else 0)
        log.info("Triton is ready", **{name: self.address(name) for name in self.models}, metrics=self.metrics_url)

    def _failed(self, what: str) -> TritonFailed:
        if self._output is not None and self.process is not None and self.process.poll() is not None:
            self._output.close()  # read its output to the end
        return TritonFailed(f"{what}; its log ends:\n{self.tail()}", hint="K2D_LOG_LEVEL=debug logs more")

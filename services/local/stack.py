"""All of k2d on one machine: Redis, the API and workers as child processes, started, watched and stopped in order."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydantic import SecretStr

from k2d.client.http import Client
from k2d.errors import K2DError
from k2d.settings import PREFIX, Settings
from k2d.store import Lake
from services.local.redis_server import EmbeddedRedis
from services.web.access import Authenticator

log = structlog.get_logger()

READY_S: Final = 60.0  # for the API to answer; importing everything on a cold disk takes most of it
STOP_S: Final = 20.0  # a worker needs up to 8 s to put its group back
LEFT_BEHIND_S: Final = 3.0  # for what a dead child left behind; RQ's scheduler looks for a signal every second
RESTART_S: Final = 2.0  # before a child that died is started again


class StackError(K2DError):
    """A part of the stack did not start."""

    code = "stack_failed"


@dataclass(slots=True)
class Child:
    """One process of the stack and how to start it again."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None


@dataclass(slots=True)
class Stack:
    """Runs the API and `workers` workers, and a Redis unless the settings name one, as a context manager.

    The children's output goes to `log_file`, or to the terminal. `worker_options` are command-line options of
    `services.filter.worker`.

        with Stack(load(store="data"), workers=2) as stack:
            stack.client().label(["talk.m4a"], BatchOptions(), wait=True)
    """

    settings: Settings
    workers: int = 1
    log_file: Path | None = None
    worker_options: Sequence[str] = ()
    children: list[Child] = field(default_factory=list)
    redis: EmbeddedRedis | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"

    def client(self) -> Client:
        token = self.settings.api_token
        return Client(self.url, token=token.get_secret_value() if token else None)

    def __enter__(self) -> "Stack":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        if self.client().is_up():
            raise StackError(f"something answers at {self.url} already", hint="stop it, or set another K2D_PORT")
        Authenticator(self.settings)  # what the API would refuse is said here in one sentence
        if self.settings.api_token is None and Lake(self.settings.store).access.all():
            # the API needs a key, and we ask it to resume
            self.settings = self.settings.model_copy(update={"api_token": SecretStr(secrets.token_urlsafe(32))})
        if "redis_url" not in self.settings.model_fields_set:
            self.redis = EmbeddedRedis(_redis_folder(self.settings))
            self._stack.enter_context(self.redis)
        module = (sys.executable, "-m")
        host, port = self.settings.host, str(self.settings.port)
        api = [*module, "uvicorn", "services.filter.app:create_app", "--factory", "--host", host, "--port", port]
        api += ["--http", "services.web.connection:GuardedConnection"]
        self._spawn(Child("api", [*api, "--no-access-log", "--log-level", "warning"]))
        for number in range(self.workers):
            self._spawn(Child(f"worker-{number}", [*module, "services.filter.worker", *self.worker_options]))
        self._wait_ready()

    def _spawn(self, child: Child) -> None:
        if child.process is not None:
            _end_group(child.process.pid)
        output = None
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            output = self._stack.enter_context(self.log_file.open("ab"))
        # their own sessions, which Ctrl-C in the terminal does not reach: we stop them, in order
        child.process = subprocess.Popen(
            child.command, env=self._environment(), stdout=output, stderr=output, start_new_session=True
        )
        if child not in self.children:
            self.children.append(child)

    def _environment(self) -> dict[str, str]:
        """The children's environment: ours, these settings, and the address of the embedded Redis."""
        environment = os.environ | self.settings.variables()
        if self.redis is not None:
            environment[PREFIX + "REDIS_URL"] = self.redis.url
        return environment

    def _wait_ready(self) -> None:
        client = self.client()
        deadline = time.monotonic() + READY_S
        while not client.is_up():
            for child in self.children:
                if child.process is not None and (code := child.process.poll()) is not None:
                    where = f"see {self.log_file}" if self.log_file else "its output is above"
                    raise StackError(f"{child.name} ended with code {code} while starting", hint=where)
            if time.monotonic() > deadline:
                raise StackError(f"the API did not answer within {READY_S:.0f} s at {self.url}")
            time.sleep(0.1)

    def watch(self) -> None:
        """Restart children that die, until interrupted."""
        while True:
            time.sleep(RESTART_S)
            for child in self.children:
                if child.process is not None and (code := child.process.poll()) is not None:
                    log.error("child ended, restarting it", child=child.name, code=code)
                    self._spawn(child)

    def stop(self) -> None:
        """Stop workers, then the API, then Redis."""
        for child in reversed(self.children):
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for child in reversed(self.children):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            _end_group(child.process.pid)
        self.children.clear()
        self._stack.close()


def _end_group(leader: int) -> None:
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


def _redis_folder(settings: Settings) -> Path:
    """In a local store's folder; in the cache for a remote store. Its content may be lost at any time."""
    return settings.cache / "redis" if "://" in settings.store else Path(settings.store) / "redis"

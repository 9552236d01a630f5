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
from k2d.store.up import FOLDER, local_folder
from services.local import run_record
from services.local.child import Child
from services.local.health import HealthWatch
from services.local.redis_server import EmbeddedRedis
from services.local.run_record import REDIS, RUN_VARIABLE, RunRecord
from services.web import ports
from services.web.access import Authenticator

log = structlog.get_logger()

READY_S: Final = 60.0  # for the API to answer; importing everything on a cold disk takes most of it
STOP_S: Final = 20.0  # a worker needs up to 8 s to put its group back
LOOK_S: Final = 0.5  # between looks at the children


class StackError(K2DError):
    """A part of the stack did not start."""

    code = "stack_failed"


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
    _redis_child: Child | None = None
    _record: RunRecord | None = None
    _health: HealthWatch | None = None
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
        folder = local_folder(self.settings)
        run_record.clear(folder / FOLDER)
        ports.check_free(self.settings.host, self.settings.port, change="take another port with --port or K2D_PORT")
        Authenticator(self.settings)  # what the API would refuse is said here in one sentence
        lake = Lake(self.settings.store)
        lake.check()  # a full disk or a read-only store, too
        if self.settings.api_token is None and lake.access.all():
            # the API needs a key, and we ask it to resume
            self.settings = self.settings.model_copy(update={"api_token": SecretStr(secrets.token_urlsafe(32))})
        if "redis_url" not in self.settings.model_fields_set:
            self._refuse_second(folder)
        self._record = RunRecord(folder / FOLDER, url=self.url)
        if "redis_url" not in self.settings.model_fields_set:
            self._start_redis(folder / "redis")
        module = (sys.executable, "-m")
        host, port = self.settings.host, str(self.settings.port)
        api = [*module, "uvicorn", "services.filter.app:create_app", "--factory", "--host", host, "--port", port]
        api += ["--http", "services.web.connection:GuardedConnection"]
        self._add("api", [*api, "--no-access-log", "--log-level", "warning"])
        for number in range(self.workers):
            self._add(f"worker-{number}", [*module, "services.filter.worker", *self.worker_options])
        self._wait_ready()
        self._health = HealthWatch(self.client(), self.redis)

    def _refuse_second(self, folder: Path) -> None:
        """Two servers with one append-only file would damage it."""
        if (pid := run_record.running(folder / FOLDER)) is not None:
            raise run_record.AlreadyUp(
                f"`k2d up` (pid {pid}) runs for the store {self.settings.store} already",
                hint="use that one or stop it; several for one store need a Redis that all are told of",
            )

    def _start_redis(self, folder: Path) -> None:
        self.redis = EmbeddedRedis(folder, variables=self._marked())
        self._stack.callback(self.redis.stop)
        self._redis_child = Child(REDIS, start=self._launch_redis)
        self._redis_child.spawn()

    def _launch_redis(self) -> "subprocess.Popen[bytes]":
        assert self.redis is not None
        self.redis.start()
        assert self.redis.process is not None
        self._note(REDIS, self.redis.process.pid, self.redis.command)
        return self.redis.process

    def _add(self, name: str, command: Sequence[str]) -> None:
        child = Child(name, start=lambda: self._launch(name, command))
        self.children.append(child)
        child.spawn()

    def _launch(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        output = None
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            output = self._stack.enter_context(self.log_file.open("ab"))
        # their own sessions, which Ctrl-C in the terminal does not reach: we stop them, in order
        process = subprocess.Popen(
            command, env=self._environment(), stdout=output, stderr=output, start_new_session=True
        )
        self._note(name, process.pid, command)
        return process

    def _note(self, name: str, pid: int, command: Sequence[str]) -> None:
        if self._record is not None:
            self._record.add(name, pid, command)

    def _marked(self) -> dict[str, str]:
        return {} if self._record is None else {RUN_VARIABLE: self._record.id}

    def _environment(self) -> dict[str, str]:
        """The children's environment: ours, these settings, and the address of the embedded Redis."""
        environment = os.environ | self.settings.variables() | self._marked()
        if self.redis is not None:
            environment[PREFIX + "REDIS_URL"] = self.redis.url
        return environment

    def _wait_ready(self) -> None:
        client = self.client()
        deadline = time.monotonic() + READY_S
        while not client.is_up():
            for child in self.children:
                if (code := child.code) is not None:
                    where = f"see {self.log_file}" if self.log_file else "its output is above"
                    raise StackError(f"{child.name} ended with code {code} while starting", hint=where)
            if time.monotonic() > deadline:
                raise StackError(f"the API did not answer within {READY_S:.0f} s at {self.url}")
            time.sleep(0.1)

    def watch(self) -> None:
        """Restart children that die, and say what keeps work from going on, until interrupted."""
        while True:
            time.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Restart what has died and is due, and look at the stack's health. Redis first: the others need it."""
        for child in (self._redis_child, *self.children):
            if child is not None and child.look():
                log.warning("started again", child=child.name)
        if self._health is not None:
            self._health.look()

    def stop(self) -> None:
        """Stop workers, then the API, then Redis."""
        for child in reversed(self.children):
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for child in reversed(self.children):
            child.end(deadline)
        self.children.clear()
        if self._record is not None:
            redis = self.redis.process if self.redis is not None else None
            self._record.stop_rest(but=redis.pid if redis is not None else None)
        self._stack.close()
        if self._record is not None:
            self._record.close()
            self._record = None

"""Restarts stubs that died. Triton does not: it never restarts one, and its readiness stays 200.

A stub is the process that holds one instance of a model. When one is gone, each request that Triton gives it fails at
once ("Stub process … is not healthy"), and because it is always free it gets most of them. Processes are watched, not
answers: that costs the models nothing, sees one dead instance among many, and does not wait behind a long batch.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from services.tritonserver.admin import Admin
from services.tritonserver.runtime import STUB, TritonFailed

LOOK_S: Final = 0.5  # between checks of the processes
UNLOAD_S: Final = 60.0  # for the batches of the model's other instances to end
# a stub that uses no CPU for so long has answered its batch: decoding on a GPU keeps a core busy too
IDLE_S: Final = 2.0
IDLE_TICKS: Final = 2  # of the 50 in LOOK_S: a stub that only waits uses about as many
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to load a model that fails to

log = structlog.get_logger()


def stubs(repository: Path, model: str) -> frozenset[int]:
    """Process ids of the stubs that hold a model of this repository."""
    prefix = f"{repository / model}/".encode()
    pids = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if command[0].endswith(STUB.encode()) and any(part.startswith(prefix) for part in command):
            pids.add(int(process.name))
    return frozenset(pids)


class Healer:
    """A thread that unloads and loads a model when one of its stubs has died.

    healer = Healer(admin, ["teacher"], repository=folder, load_s=60)
    healer.start()
    """

    def __init__(self, admin: Admin, models: Sequence[str], *, repository: Path, load_s: float) -> None:
        self._admin, self._repository, self._load_s = admin, repository, load_s
        self._known = {model: stubs(repository, model) for model in models}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="triton-healer", daemon=True)
        self.healed = 0  # models loaded again

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a load that has begun goes on in the server."""
        self._ended.set()
        self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            for model, known in self._known.items():
                dead = {pid for pid in known if not _alive(pid)}
                if dead:
                    log.error("stub died", model=model, pids=sorted(dead), of=len(known))
                    self._heal(model)

    def _heal(self, model: str) -> None:
        """Unload and load until it works, or the launcher stops."""
        started = time.monotonic()
        for attempt, _ in enumerate(iter(self._ended.is_set, True)):
            try:
                self._admin.unload(model)
                self._wait_gone(self._known[model])
                self._admin.load(model, timeout_s=self._load_s)
            except TritonFailed as error:
                if self._ended.wait(RETRY_S[min(attempt, len(RETRY_S) - 1)]):
                    return
                log.error("model not healed yet", model=model, attempt=attempt + 1, error=error.message)
            else:
                self._known[model] = stubs(self._repository, model)
                self.healed += 1
                log.warning("model healed", model=model, seconds=round(time.monotonic() - started, 1))
                return

    def _wait_gone(self, pids: Iterable[int]) -> None:
        """Wait for the model's other stubs to end, so that the weights are not in memory twice.

        They end when their batches are answered; but once a request was lost in the dead stub, Triton keeps the old
        model, and its idle stubs, for ever. Idle ones are killed.
        """
        deadline = time.monotonic() + UNLOAD_S
        idle = dict.fromkeys(pids, 0)
        used = {pid: _cpu_ticks(pid) for pid in idle}
        while any(map(_alive, idle)) and not self._ended.wait(LOOK_S):
            for pid in filter(_alive, idle):
                ticks = _cpu_ticks(pid)
                idle[pid] = idle[pid] + 1 if ticks - used[pid] <= IDLE_TICKS else 0
                used[pid] = ticks
                if idle[pid] * LOOK_S >= IDLE_S or time.monotonic() > deadline:
                    log.warning("stub of an unloaded model killed", pid=pid)
                    os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    """Whether this process is still a stub: dead ones and zombies have no command line, others another."""
    try:
        return STUB.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _cpu_ticks(pid: int) -> int:
    """Processor time a process has used, in hundredths of a second; 0 for one that is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(after_name[11]) + int(after_name[12])

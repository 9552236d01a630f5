"""Which processes a `k2d up` started, so that the next one of the same store finds what a killed one left behind.

Each run has a record, `up/RUN.json` in the store, which it keeps locked as long as it lives: a record that nobody has
locked is of a run that was killed. Its processes are known by two things that a reused process id does not have: the
run's id in their environment (inherited by schedulers, work horses and decoders), and the time at which the process
with this id started.
"""

import fcntl
import json
import os
import shlex
import signal
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import psutil
import structlog

from k2d.errors import K2DError, StoreError
from k2d.processes import machine, start_of

log = structlog.get_logger()

RUN_VARIABLE: Final = "RUN_OF_K2D_UP"  # in every child's environment; not one of the settings, which begin with K2D_
STOP_S: Final = 20.0  # for orphans to end after SIGTERM; a worker needs up to 8 s to put its group back
REDIS: Final = "redis"  # the name of the embedded Redis in records: stopped last


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process that a killed `k2d up` left behind."""

    name: str
    process: psutil.Process
    command: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.process.pid}: {self.command})"


class AlreadyUp(K2DError):
    """Another `k2d up` runs for this store."""

    code = "already_up"
    status = 409


class RunRecord:
    """The record of this run, locked until `close`, or until the process ends in whatever way.

        record = RunRecord(Path("data/up"), url="http://127.0.0.1:8080")
        process = subprocess.Popen(command, env=os.environ | {RUN_VARIABLE: record.id})
        record.add("api", process.pid, command)

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, url: str | None = None) -> None:
        self.id = uuid.uuid4().hex
        self._head = {"up": os.getpid(), "started": start_of(os.getpid()), "machine": machine(), "url": url}
        self._processes: dict[str, dict[str, Any]] = {}
        self._path = folder / f"{self.id}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write {folder}: {error.strerror or error}", hint="`k2d up` notes there which processes it has"
            ) from error
        with suppress(OSError):  # a file system without locks: the record counts as one of a killed run, see `orphans`
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def add(self, name: str, pid: int, command: Sequence[str]) -> None:
        """Note the process that is `name` now."""
        self._processes[name] = {"pid": pid, "started": start_of(pid), "command": list(command)}
        self._write()

    def stop_rest(self, *, but: int | None) -> None:
        """End what still belongs to this run, except the process with the id `but`: the horse of a killed worker."""
        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid not in (but, os.getpid()) and _run_of(process) == self.id:
                    left.append(process)
        _stop(left)

    def close(self) -> None:
        """Remove the record: every process has ended."""
        with suppress(OSError):
            self._path.unlink()
        self._file.close()

    def _write(self) -> None:
        # in place: a file that replaced this one would not be locked. A full disk leaves the run's id, in the name
        with suppress(OSError):
            self._file.seek(0)
            self._file.truncate()
            json.dump(self._head | {"processes": self._processes}, self._file)
            self._file.flush()


def orphans(folder: Path) -> list[Orphan]:
    """The processes that killed runs left behind, workers first and Redis last. Their records stay until `clear`."""
    left: dict[int, Orphan] = {}
    for path in _abandoned(folder):
        noted = _processes_of(_read(path))
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                name, entry = noted.get(process.pid, ("", {}))
                is_noted = bool(entry) and entry.get("started") == start_of(process.pid)
                if (is_noted or _run_of(process) == path.stem) and process.status() != psutil.STATUS_ZOMBIE:
                    command = shlex.join(entry["command"] if is_noted else process.cmdline())
                    left[process.pid] = Orphan(name if is_noted else "process", process, command)
    return sorted(left.values(), key=lambda orphan: (orphan.name == REDIS, orphan.name == "api", orphan.process.pid))


def clear(folder: Path) -> None:
    """Stop what killed runs left behind, workers first and Redis last, and remove their records."""
    found = orphans(folder)
    others = [orphan for orphan in found if orphan.name != REDIS]
    for group in (others, [orphan for orphan in found if orphan.name == REDIS]):
        _stop([orphan.process for orphan in group])
    if found:
        log.warning("stopped what an earlier `k2d up` left", processes="; ".join(map(str, found)))
    for path in _abandoned(folder):
        with suppress(OSError):
            path.unlink()


def running(folder: Path) -> int | None:
    """The process id of another `k2d up` that lives and has a record in this folder; None if there is none."""
    alive = (path for path in sorted(folder.glob("*.json")) if _is_alive(path))
    return next((int(_read(path).get("up") or 0) for path in alive), None)


def _abandoned(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if not _is_alive(path)]


def _is_alive(path: Path) -> bool:
    """Whether the `k2d up` of a record lives."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # it has just ended
        return False
    except OSError:  # a file system without locks
        pass
    record = _read(path)
    pid = record.get("up")
    return isinstance(pid, int) and record.get("started") is not None and record["started"] == start_of(pid)


def _read(path: Path) -> dict[str, Any]:
    """A record; empty where it was cut off: its processes are found by the run's id."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _processes_of(record: dict[str, Any]) -> dict[int, tuple[str, dict[str, Any]]]:
    """(name, entry) of the processes of a record, by process id."""
    entries = record.get("processes")
    pairs = entries.items() if isinstance(entries, dict) else ()
    return {
        entry["pid"]: (str(name), entry)
        for name, entry in pairs
        if isinstance(entry, dict) and isinstance(entry.get("pid"), int) and isinstance(entry.get("command"), list)
    }


def _run_of(process: psutil.Process) -> str | None:
    """The run that a process belongs to, from its environment; None where that may not be read."""
    run: str | None = process.environ().get(RUN_VARIABLE)
    return run


def _stop(processes: Iterable[psutil.Process]) -> None:
    """End processes: with SIGTERM, so that workers put their groups back; what goes on after STOP_S, with SIGKILL."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(number)  # psutil refuses when the id is another process's by now
        deadline = time.monotonic() + STOP_S
        left = [process for process in left if not _ended(process, deadline)]


def _ended(process: psutil.Process, deadline: float) -> bool:
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True

"""Heartbeats: which processes are at work on which batches, whether or not a queue knows of them.

A heartbeat is a small file that its process writes again and again while it labels a batch, and removes at the end. It
helps and decides nothing: results are found by their keys, so that whoever works on a batch beside another process
only does work twice.
"""

import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from k2d.errors import DamagedFile, NotFound, StoreError, described
from k2d.processes import machine, start_of
from k2d.store.base import LakePart, safe_name

FOLDER: Final = "heartbeats"
EVERY_S: Final = 10.0  # chosen: a write every ten seconds costs nothing anywhere
STALE_S: Final = 3 * EVERY_S
LAST_WRITE_S: Final = 5.0  # for which the end of the work waits for a write that is going on

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A process that is at work on a batch."""

    host: str
    pid: int
    command: str
    since: str  # ISO 8601, by its own clock
    machine: str  # `k2d.processes.machine`
    process: str | None  # `k2d.processes.start_of`
    has_job: bool = False  # a worker's: the queue knows what it does

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host} ({self.command}), since {self.since}"


class Heartbeats(LakePart):
    """Heartbeats: heartbeats/<batch>~<id>.json.

    with lake.heartbeats.beating(batch.id):
        lake.heartbeats.of(batch.id)  # in any process: [Heartbeat(host="gpu1", pid=4711, …)]
    """

    @contextmanager
    def beating(self, batch_id: str, *, has_job: bool = False) -> Iterator[None]:
        """Tell other processes, until the block ends, that this one is at work on a batch. A store that takes no
        heartbeat fails nothing: others do not see this process then."""
        path = f"{FOLDER}/{safe_name(batch_id)}~{uuid.uuid4().hex}.json"
        own = _own(has_job)
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(EVERY_S):
                self._write(path, own)

        self._write(path, own)
        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(LAST_WRITE_S)
            with suppress(StoreError):  # it is stale soon
                self.files.remove(path)

    def of(self, batch_id: str) -> list[Heartbeat]:
        """The processes that are at work on a batch.

        One of this machine is at work while it lives, and every one while its heartbeat is younger than STALE_S by the
        store's own clock. One listing where there are none.

        Raises:
            StoreError: the store does not answer.
        """
        paths = [path for path in self._paths() if path.rpartition("/")[2].partition("~")[0] == batch_id]
        alive = [(path, beat) for path in paths if (beat := self._read(path)) is not None and _may_live(beat)]
        if not alive:
            return []
        now = self.files.clock()
        ages = ((beat, now - written) for path, beat in alive if (written := self.files.written_at(path)) is not None)
        return [beat for beat, age_s in ages if age_s < STALE_S]

    def sweep(self, older_than_s: float) -> int:
        """Remove what killed processes left; returns how many those were."""
        old = [path for path in self._paths() if self.files.age_s(path) > older_than_s]
        for path in old:
            self.files.remove(path)
        return len(old)

    def _write(self, path: str, beat: Heartbeat) -> None:
        try:
            self.write_document(path, beat)
        except StoreError as error:
            log.warning("a heartbeat was not written", path=path, error=described(error))

    def _read(self, path: str) -> Heartbeat | None:
        try:
            beat: Heartbeat = self.read_document(path, Heartbeat)
        except (NotFound, DamagedFile):
            return None
        return beat

    def _paths(self) -> list[str]:
        try:
            return self.files.listing(FOLDER)
        except NotFound:
            return []


def _own(has_job: bool) -> Heartbeat:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)  # of `python -m`
    program = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0] or "python").name
    words = [program, *(word for word in sys.argv[1:2] if not word.startswith("-"))]
    return Heartbeat(
        host=socket.gethostname(),
        pid=os.getpid(),
        command=" ".join(words)[:200],  # without its arguments, which may hold signed addresses
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        process=start_of(os.getpid()),
        has_job=has_job,
    )


def _may_live(beat: Heartbeat) -> bool:
    """Whether the process lives, where that can be seen from here."""
    return beat.machine != machine() or start_of(beat.pid) == beat.process

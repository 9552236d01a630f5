"""Rows prepared in processes, so that the process that trains keeps its core and its interpreter for the device.

    rows = RowProcesses(preparer, 4)
    row = rows.prepare(fields, visit=0)  # called by four threads
    rows.close()

A row's fields and its label go through a socket; its features come back in memory that both processes share: one slot
of mels × 3000 float32 a process (0.96 MB for 80 mels, 1.5 MB for 128). That memory has no name, so that nothing stays
behind whoever is killed, and is not counted against the size of /dev/shm, which is 64 MB in many containers.
"""

import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

import numpy as np
import structlog

from k2d.whisper.features import FRAMES, Features
from trainer.data.batch import PreparedRow
from trainer.data.prepare import Preparer, SkippedRow
from trainer.errors import RowProcessDied

PROCESS_MODULE: Final = "trainer.data.row_process"
ATTEMPTS: Final = 2  # at a row: a process may be killed by accident, two of them hardly are
STOP_S: Final = 5.0  # how long a process may take to end; it ends after the row in hand
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# glibc keeps what a row's arrays (10 MB each) are freed from; giving it back to the system and taking it again for the
# next row was a quarter of a process's time (docs/LOG.md, 2026-11-30)
_KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}

log = structlog.get_logger()


class RowProcesses:
    """Prepares rows in at most `count` processes, which are started when they are needed. Thread-safe."""

    def __init__(self, preparer: Preparer, count: int) -> None:
        self._preparer = preparer
        self._count = count
        self._idle: SimpleQueue[_RowProcess | None] = SimpleQueue()  # None: not started
        for _ in range(count):
            self._idle.put(None)

    def prepare(self, fields: dict[str, Any], *, visit: int, with_features: bool = True) -> PreparedRow | SkippedRow:
        """Return what `Preparer.prepare` returns, from a process that is idle; waits for one.

        When the process dies, the row is prepared again in a new one.

        Raises:
            RowProcessDied: that one died as well, or cannot be started.
        """
        if not with_features:
            fields = fields | {"audio": None}  # half a megabyte that nobody reads
        process = self._idle.get()
        try:
            for _ in range(ATTEMPTS):
                process = process or _RowProcess(self._preparer)
                try:
                    return process.prepare(fields, visit=visit, with_features=with_features)
                except (EOFError, OSError):
                    ending = process.end()
                    process = None
                    log.warning("a process that prepares rows died", row=fields["id"], how=ending)
                except BaseException:  # as Ctrl-C: its answer may still come, and is nobody's
                    process.end()
                    process = None
                    raise
        finally:
            self._idle.put(process)
        raise RowProcessDied(
            f"{ATTEMPTS} processes died while they prepared row {fields['id']!r}, the last one {ending}",
            hint="killed by SIGKILL: memory is used up, so take fewer workers; exit code: its error is printed above; "
            "crashed: look at that row. Then go on with --resume, also with worker_kind=threads",
            row=fields["id"],
        )

    def close(self) -> None:
        """End all processes. No thread may be in `prepare`."""
        processes = [process for _ in range(self._count) if (process := self._idle.get()) is not None]
        for process in processes:
            process.hang_up()
        for process in processes:
            process.end()
        for _ in range(self._count):
            self._idle.put(None)


class _RowProcess:
    """One process, and the memory that it writes features to."""

    def __init__(self, preparer: Preparer) -> None:
        try:
            with _nameless_file() as memory:
                # written once, so that it is there: the first use of memory that was only promised may end a process
                memory.write(bytes(preparer.mels * FRAMES * np.dtype(np.float32).itemsize))
                memory.flush()
                mapped = mmap.mmap(memory.fileno(), 0)
                self._channel, self._process = _start(memory)
        except OSError as error:
            raise RowProcessDied(
                f"no process can be started that prepares rows: {error.strerror}",
                hint="check free memory and the limits of processes and open files, or take fewer workers",
            ) from error
        self._features: Features = np.frombuffer(mapped, np.float32).reshape(preparer.mels, FRAMES)
        self._preparer: Preparer | None = preparer  # until the process has it

    def prepare(self, fields: dict[str, Any], *, visit: int, with_features: bool) -> PreparedRow | SkippedRow:
        """Prepare a row.

        Raises:
            EOFError, OSError: the process is dead.
        """
        if self._preparer is not None:
            self._channel.send(self._preparer)
            self._preparer = None
        self._channel.send((fields, visit, with_features))
        row: PreparedRow | SkippedRow = self._channel.recv()
        if isinstance(row, PreparedRow) and with_features:
            return PreparedRow(row.id, self._features.copy(), row.label, row.seconds)
        return row

    def hang_up(self) -> None:
        """Close the channel: the process ends after the row in hand."""
        self._channel.close()

    def end(self) -> str:
        """End the process likewise and wait for it; returns how it ended."""
        self.hang_up()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"with exit code {code}"
        name = signal.Signals(-code).name
        return f"killed by {name}" if -code == signal.SIGKILL else f"crashed by {name}"


def _start(memory: BinaryIO) -> tuple["Connection[Any, Any]", "subprocess.Popen[bytes]"]:
    """A process that has `memory`, and the channel to it. It ends when its end of the channel is the only one left."""
    ours, theirs = socket.socketpair()
    with theirs:
        # where this process has its modules from; not the current folder
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROCESS_MODULE, str(theirs.fileno()), str(memory.fileno())],
                env={**os.environ, **_ONE_THREAD, **_KEEP_MEMORY, "PYTHONPATH": path},
                pass_fds=[theirs.fileno(), memory.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for the training process, which ends the others
            )
        except BaseException:
            ours.close()
            raise
    return Connection(ours.detach()), process


def _nameless_file() -> BinaryIO:
    """A file in memory (elsewhere than on Linux: on the disk) that is gone when the last process has closed it."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("k2d-features"), "w+b")
    return tempfile.TemporaryFile()

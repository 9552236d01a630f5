"""Reads a child process's output: keeps its end for error messages, and writes it to a file or our standard error."""

import subprocess
import sys
import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Final

TAIL_LINES: Final = 25
CLOSE_S: Final = 5.0  # for the last lines to arrive


class Output:
    """Reads a process's output to its end in a thread, so that the process never blocks on a full pipe.

    output = Output(Path("triton.log"))
    output.follow(process)
    process.wait()
    output.tail()
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._thread: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        """Read until the process, and all that hold its pipe, have ended."""
        if process.stdout is None:
            raise ValueError("the process was started without a pipe")
        self._thread = threading.Thread(target=self._read, args=(process.stdout,), name="triton-output", daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """Wait up to CLOSE_S for the last lines."""
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            self._thread = None

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe, self._opened() as out:
            for raw in pipe:
                line = raw.decode("utf-8", "replace").rstrip()
                self._lines.append(line)
                print(line, file=out, flush=True)

    def _opened(self) -> AbstractContextManager[IO[str]]:
        return nullcontext(sys.stderr) if self._file is None else self._file.open("a", encoding="utf-8")

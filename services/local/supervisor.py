"""Keeps one server running: starts it again when it dies, with waits that grow as long as it dies at once."""

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final

from services.inference.serving import CANNOT_SERVE
from services.local.child import Child

LOOK_S: Final = 0.2  # between looks at the server
STOP_S: Final = 40.0  # after SIGTERM, before it is killed: what is in flight gets 30 s (services.inference.host)


def supervise(name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a server until SIGTERM, SIGINT, or until it ends by itself; returns the exit code.

        supervise("teacher", [sys.executable, "-m", "services.teacher", "--supervised"], os.environ)

    A server that is killed, or ends with an error after it had begun, is started again. One that says that it cannot
    serve (CANNOT_SERVE) at its first start is not: settings or files must be changed first.
    """
    stopped = threading.Event()

    def start() -> "subprocess.Popen[bytes]":
        # its own session, which Ctrl-C in the terminal does not reach: we stop it
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    child = Child(name, start=start)
    child.spawn()
    is_first = True
    while not stopped.wait(LOOK_S):
        if child.code == 0:
            return 0
        if is_first and child.code == CANNOT_SERVE:
            return 1  # it has said why
        is_first = not child.look() and is_first
    child.signal(signal.SIGTERM)
    return _ended(child)


def _ended(child: Child) -> int:
    """Wait for a server that was told to stop; 0 if it did."""
    if child.process is None:
        return 0
    if child.process.stdin is not None:
        with suppress(OSError):
            child.process.stdin.close()
    try:
        code = child.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        code = child.process.wait()
        print(f"{child.name} did not stop within {STOP_S:.0f} s and was killed", file=sys.stderr)
    return 0 if code == 0 or child.due_at is not None else 1

"""What tells a process from another one that has its id later, or on another machine."""

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

_ENDED = frozenset("ZX")  # states of a process in /proc that has ended, and that nobody has waited for


def start_of(pid: int) -> str | None:
    """When a process started, in a form that another process with its id does not have; None if it has ended."""
    try:  # in ticks since the machine started: a step of the clock does not change it
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if fields[0] in _ENDED else fields[19]
    except (OSError, IndexError):
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except (psutil.Error, ValueError):
        return None


@cache
def machine() -> str:
    """This machine, since it started, and the namespace of process ids: where they mean what they mean here."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)

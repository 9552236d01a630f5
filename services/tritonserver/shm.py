"""Removes shared memory that killed Triton stubs left behind in /dev/shm."""

import os
import re
import socket
from pathlib import Path
from typing import Final

import structlog

SHM: Final = Path("/dev/shm")  # noqa: S108 — where POSIX shared memory is on Linux, not a temporary file of ours
PROC: Final = Path("/proc")

log = structlog.get_logger()


def prefix() -> str:
    """The prefix of the names of our servers' regions. The host's name keeps containers that share /dev/shm apart:
    one does not see the other's processes, so it cannot know which regions are in use."""
    return f"k2d_triton_{re.sub(r'[^A-Za-z0-9]', '-', socket.gethostname())[:32]}_"


def sweep(name_prefix: str, *, folder: Path = SHM) -> list[str]:
    """Remove regions of this user that no process has mapped or open; return their names.

    sweep(prefix())
    """
    regions = [path for path in folder.glob(f"{name_prefix}*") if path.stat().st_uid == os.getuid()]
    if not regions:
        return []
    used = _in_use()
    stale = sorted(path for path in regions if str(path) not in used)
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        log.info("stale shared memory removed", regions=len(stale), first=stale[0].name)
    return [path.name for path in stale]


def _in_use() -> set[str]:
    """Paths under /dev/shm that some process of this user has mapped or open. Others' processes cannot be read,
    nor can they map our regions."""
    used: set[str] = set()
    for process in PROC.glob("[0-9]*"):
        try:
            for line in (process / "maps").read_text("utf-8", "replace").splitlines():
                if (start := line.find(str(SHM))) >= 0:
                    used.add(line[start:].removesuffix(" (deleted)"))
            for descriptor in (process / "fd").iterdir():
                used.add(os.readlink(descriptor))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return used

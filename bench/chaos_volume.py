"""The disk of a chaos run's store: it can be full and read-only for a while.

As root it is a small file system of its own (tmpfs), so that both are real. For others a full disk is a limit of zero
bytes on what the stack's processes may write (RLIMIT_FSIZE), and read-only are the modes of the folders.
"""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

SIZE_MB: Final = 192
BLOCK: Final = bytes(1 << 16)


class Volume:
    """A folder that is a file system of its own where that is possible (`is_mounted`); a context manager.

    The folder stays when `keep` is true, with what was in the file system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = False
        self.keep = False

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def __enter__(self) -> "Volume":
        self.folder.mkdir(parents=True)
        if os.geteuid() == 0:
            self.is_mounted = _mount("-t", "tmpfs", "-o", f"size={SIZE_MB}m", "k2d-chaos", str(self.folder))
        self.store.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        kept = self.folder.with_name(self.folder.name + "-kept")
        if self.keep and self.is_mounted:
            shutil.copytree(self.folder, kept, ignore=shutil.ignore_patterns("socket"))
        if self.is_mounted:
            _unmount(self.folder)
            if self.keep:
                self.folder.rmdir()
                kept.rename(self.folder)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def full(self, processes: Iterable[psutil.Process]) -> Iterator[None]:
        """No byte more can be written while the block runs."""
        if self.is_mounted:
            filler = self.folder / "filler"
            try:
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(BLOCK)
                yield
            finally:
                filler.unlink(missing_ok=True)
            return
        limited = [process for process in processes if _limit(process, 0)]
        try:
            yield
        finally:
            for process in limited:
                _limit(process, resource.RLIM_INFINITY)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written while the block runs, except to files that are open."""
        if self.is_mounted:
            _mount("--bind", str(self.store), str(self.store))
            _mount("-o", "remount,ro,bind", str(self.store))
            try:
                yield
            finally:
                _unmount(self.store)
            return
        folders = [self.store, *(path for path in self.store.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o500)
        try:
            yield
        finally:
            for path in folders:
                path.chmod(0o700)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def _unmount(folder: Path) -> None:
    # -l: processes that are being stopped may have files open there
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


def _limit(process: psutil.Process, size: int) -> bool:
    with contextlib.suppress(psutil.Error, OSError, ValueError):
        process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return True
    return False

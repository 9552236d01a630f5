"""SHA-256 of local files, remembered while the file system says that a file is the same.

A hash is remembered with the file's size, modification time, inode and change time. The kernel sets the change time at
every write and rename and no program can choose it, so that a file with the size and modification time of another one
is noticed.
"""

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

# A file that was changed this short a time ago is hashed again next time: several changes within one tick of a file
# system's clock (up to 2 s, on FAT) have the same change time.
SETTLED_S: Final = 2.0
_BLOCK: Final = 1 << 20


def file_status(file: BinaryIO) -> tuple[int, int, int, int]:
    """What changes with the content of an open file: size, modification time, inode, change time (times in ns)."""
    return _status(os.fstat(file.fileno()))


def path_status(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """As `file_status`, of a path.

    Raises:
        OSError
    """
    return _status(os.stat(path))


class FileHashes:
    """SHA-256 of files by path. Notes are kept in the folder `hashes` of a cache; without one they cannot be kept.

        FileHashes(settings.cache).of_path("talk.m4a")

    Thread-safe and process-safe. A note that cannot be read or written only costs time.
    """

    def __init__(self, cache: Path | None, *, trust: bool = True) -> None:
        """`trust`: take the notes of earlier calls; otherwise every file is read."""
        self._folder = None if cache is None else cache / "hashes"
        self._trust = trust

    def of_path(self, path: str | os.PathLike[str]) -> str:
        """Return the SHA-256 (hex) of a file's content.

        Raises:
            OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            return self.of_file(file, path)

    def of_file(self, file: BinaryIO, path: str | os.PathLike[str]) -> str:
        """As `of_path`, of a file that was opened at `path` and is at its start, where it is again afterwards."""
        status, note = file_status(file), self._note(path)
        if self._trust and (known := _read(note, status)) is not None:
            return known
        started = time.time()
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        file.seek(0)
        sha256 = digest.hexdigest()
        if started - status[3] / 1e9 > SETTLED_S and file_status(file) == status:
            _write(note, status, sha256)
        return sha256

    def known(self, path: str | os.PathLike[str]) -> str | None:
        """The SHA-256 of a file that was hashed before and is the same since; None of any other. Does not read it."""
        try:
            return _read(self._note(path), path_status(path))
        except OSError:
            return None

    def _note(self, path: str | os.PathLike[str]) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.json"


def _status(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def _read(note: Path | None, status: tuple[int, ...]) -> str | None:
    if note is None:
        return None
    try:
        known = json.loads(note.read_text("utf-8"))
        return str(known["sha256"]) if known["status"] == list(status) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or a damaged one


def _write(note: Path | None, status: tuple[int, ...], sha256: str) -> None:
    if note is None:
        return
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="utf-8") as file:
            json.dump({"status": status, "sha256": sha256}, file)
        os.replace(file.name, note)

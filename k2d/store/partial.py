"""Partial uploads: what arrived of a file before its connection broke, so that the rest is sent later."""

import hashlib
import re
import time
from collections.abc import Iterator
from typing import Final

from k2d.errors import NotFound
from k2d.store.base import LakePart, key_path
from k2d.store.uploads import StagedUpload

_BLOCK: Final = re.compile(r"([0-9]{15})-([0-9]{15})-([0-9]{13})")  # offset, size, time in ms
_READ_BYTES: Final = 1 << 20


class PartialUploads(LakePart):
    """Partial uploads: partial/ab/<key>/<offset>-<size>-<time>, one file for each request that brought a part.

    A key names the file that is being sent: its SHA-256 where the client knows it, so that whoever sends the same file
    goes on where another stopped; else the draft and the file's name. An object store cannot append to an object, which
    is why the parts are files of their own.

        lake.partial.offset(key)  # where to go on
    """

    def offset(self, key: str) -> int:
        """How many bytes are there."""
        return sum(size for _, _, size in self._blocks(key))

    def append(self, key: str, offset: int, part: StagedUpload) -> None:
        """Add what was received as the part that begins at `offset`.

        Raises:
            StoreError
        """
        name = f"{offset:015d}-{part.size:015d}-{int(time.time() * 1000):013d}"
        part.move_to(f"{key_path('partial', key)}/{name}")

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the bytes that are there, in blocks."""
        for path, _, _ in self._blocks(key):
            with self.files.open(path) as file:
                while block := file.read(_READ_BYTES):
                    yield block

    def remove(self, key: str) -> None:
        """Forget what is there."""
        self.files.remove_folder(key_path("partial", key))

    def sweep(self, older_than_s: float) -> int:
        """Remove parts that came longer ago than this; returns their number."""
        limit, removed = (time.time() - older_than_s) * 1000, 0
        for path in self.files.listing("partial"):
            match = _BLOCK.fullmatch(path.rpartition("/")[2])
            if match and int(match[3]) < limit:
                self.files.remove(path)
                removed += 1
        return removed

    def _blocks(self, key: str) -> list[tuple[str, int, int]]:
        """Path, offset and size of the parts that follow one another from the start. Of two that begin at one offset,
        as when two connections sent the same, one counts."""
        try:
            paths = self.files.listing(key_path("partial", key))
        except NotFound:
            return []
        blocks: list[tuple[str, int, int]] = []
        end = 0
        for path in paths:
            match = _BLOCK.fullmatch(path.rpartition("/")[2])
            if match and int(match[1]) == end:
                blocks.append((path, end, int(match[2])))
                end += int(match[2])
        return blocks


def partial_key(*, sha256: str | None, draft: str, name: str) -> str:
    """The key of a file that is being sent."""
    return sha256 or hashlib.sha256(f"{draft}\n{name}".encode("utf-8", "surrogatepass")).hexdigest()

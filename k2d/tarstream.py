"""Writes tar files as streams of bytes, so that a download needs neither the whole in memory nor on the disk."""

import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

BLOCK_BYTES: Final = 1 << 20  # read from a file and sent at once
END: Final = bytes(2 * tarfile.BLOCKSIZE)  # of a tar file: two empty records


def member(name: str, content: bytes) -> Iterator[bytes]:
    """A file of a tar, as its bytes: deterministic, without times and owner.

    b"".join([*member("a.txt", b"hello"), END])  # a whole tar file
    """
    yield _header(name, len(content)) + content
    yield _padding(len(content))


def member_of(name: str, file: BinaryIO, size: int) -> Iterator[bytes]:
    """A file of a tar whose `size` bytes are read from an open file, block by block.

    Raises:
        EOFError: the file has fewer bytes.
    """
    yield _header(name, size)
    left = size
    while left:
        block = file.read(min(BLOCK_BYTES, left))
        if not block:
            raise EOFError(f"{name} ends {left} bytes early")
        left -= len(block)
        yield block
    yield _padding(size)


def tar_of(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A tar of files that are made while they are sent: names with contents."""
    for name, content in files:
        yield from member(name, content)
    yield END


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)

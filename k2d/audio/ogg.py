"""Ogg pages: the links of a chained file, and whether pages are missing between two places (RFC 3533)."""

import zlib
from dataclasses import dataclass
from typing import Final

from k2d.audio.byte_range import ByteRange

HEADER_BYTES: Final = 27
PAGE_BYTES_MAX: Final = HEADER_BYTES + 255 + 255 * 255
_BEGIN_OF_STREAM: Final = 2
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SEARCH_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Page:
    """An Ogg page's header."""

    start: int  # offset in the file
    size: int  # header and body, in bytes
    serial: int  # of the logical stream
    sequence: int  # counts the pages of the logical stream
    begins: bool  # first page of a logical stream

    @property
    def end(self) -> int:
        return self.start + self.size


def links(file: ByteRange) -> list[tuple[int, int]]:
    """Where each link of a chained file begins and ends, as offsets in bytes; one link for a file that is not chained.

    Reads the header of every page. What lies between pages belongs to the link before it.

    Raises:
        OSError: reading fails.
    """
    starts: list[int] = []
    at, size, in_headers = 0, file.size, False
    while at < size:
        page = page_at(file, at) or find_page(file, at, size)
        if page is None:
            break
        if page.begins and not in_headers:
            starts.append(page.start)
        in_headers = page.begins
        at = page.end
    starts = [0, *starts[1:]]
    return list(zip(starts, [*starts[1:], size], strict=True))


def first_hole(file: ByteRange, start: int, stop: int, *, joined: bool = False) -> int | None:
    """The offset of the first place between two pages' offsets where there is no valid page, or where one is missing
    before; None if there is none.

    Args:
        joined: pages may be missing: the file begins inside a live stream.

    Raises:
        OSError: reading fails.
    """
    at = start
    sequences: dict[int, int] = {}
    while at < stop:
        page = page_at(file, at, check=True)
        if page is None:
            return at
        expected = sequences.get(page.serial)
        if not joined and expected is not None and page.sequence != expected:
            return at
        sequences[page.serial] = page.sequence + 1
        at = page.end
    last = page_at(file, stop) if at == stop else None
    if last is None or (not joined and sequences.get(last.serial, last.sequence) != last.sequence):
        return min(at, stop)
    return None


def page_at(file: ByteRange, at: int, *, check: bool = False) -> Page | None:
    """The page at an offset; None if there is none. With `check`, its checksum must be right."""
    head = file.at(at, PAGE_BYTES_MAX if check else HEADER_BYTES + 255)
    if len(head) < HEADER_BYTES or head[:5] != b"OggS\0" or len(head) < HEADER_BYTES + head[26]:
        return None
    size = HEADER_BYTES + head[26] + sum(head[HEADER_BYTES : HEADER_BYTES + head[26]])
    if check and (len(head) < size or _checksum(head[:size]) != int.from_bytes(head[22:26], "little")):
        return None
    return Page(
        start=at,
        size=size,
        serial=int.from_bytes(head[14:18], "little"),
        sequence=int.from_bytes(head[18:22], "little"),
        begins=bool(head[5] & _BEGIN_OF_STREAM),
    )


def find_page(file: ByteRange, at: int, stop: int) -> Page | None:
    """The next page with a right checksum in [at, stop); None if there is none."""
    while at < stop:
        block = file.at(at, _SEARCH_BYTES)
        place = block.find(b"OggS")
        while place >= 0:
            if (page := page_at(file, at + place, check=True)) is not None:
                return page
            place = block.find(b"OggS", place + 1)
        at += max(1, len(block) - 3)
    return None


def _checksum(page: bytes) -> int:
    """The CRC-32 of RFC 3533: polynomial 0x04c11db7, not reflected, initial value 0. zlib's is reflected."""
    plain = page[:22] + bytes(4) + page[26:]
    reflected = zlib.crc32(plain.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{reflected:032b}"[::-1], 2)

"""A part of a file as a file of its own: what lies behind a tag, or one link of a chained Ogg file."""

import os
from typing import BinaryIO, Final

# What a file may begin with behind a tag, where FFmpeg's demuxer expects it in the first byte. (FFmpeg skips ID3 tags
# itself in front of MP3, AAC, FLAC and other formats that commonly carry them.)
_CONTAINERS: Final = (
    b"RIFF",
    b"RF64",
    b"BW64",
    b"riff",
    b"FORM",
    b"OggS",
    b"caff",
    b".snd",
    b"\x1a\x45\xdf\xa3",
    b"FLV",
)
_TAG_PARTS_MAX: Final = 16  # tags and paddings in a row; chosen
_PADDING_MAX: Final = 1 << 20  # zero bytes behind a tag; chosen


class ByteRange:
    """Bytes [start, stop) of a seekable binary file; positions count from `start`. Without `stop`: to its end.

    Records a failed read, to distinguish a storage that fails from damaged audio.
    """

    def __init__(self, file: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        self.file = file
        self.start = start
        self.stop = stop
        self.failure: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            if self.stop is not None:
                left = max(0, self.stop - self.file.tell())
                size = left if size < 0 else min(size, left)
            return self.file.read(size)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            return self.file.seek(self.start + offset) - self.start
        if whence == os.SEEK_END and self.stop is not None:
            return self.file.seek(self.stop + offset) - self.start
        return self.file.seek(offset, whence) - self.start

    def tell(self) -> int:
        return self.file.tell() - self.start

    def at(self, offset: int, count: int) -> bytes:
        """Read up to `count` bytes at `offset`, and return to where the file was.

        Raises:
            OSError: reading fails.
        """
        before = self.file.tell()
        try:
            self.seek(offset)
            return self.read(count)
        finally:
            self.file.seek(before)

    @property
    def size(self) -> int:
        """Number of bytes.

        Raises:
            OSError
        """
        before = self.file.tell()
        try:
            return self.seek(0, os.SEEK_END)
        finally:
            self.file.seek(before)


def behind_tags(file: BinaryIO) -> ByteRange:
    """The file without the ID3v2 or APEv2 tags and zero bytes before its content, if FFmpeg would trip over them.

    Raises:
        OSError: reading fails.
    """
    whole = ByteRange(file)
    at = 0
    for _ in range(_TAG_PARTS_MAX):
        head = whole.at(at, 32)
        if at and (head.startswith(_CONTAINERS) or head[4:8] == b"ftyp"):
            return ByteRange(file, at)
        length = _tag_bytes(head) or _zeros(whole, at) * bool(at)
        if not length:
            break
        at += length
    return whole


def _tag_bytes(head: bytes) -> int:
    """Length of the tag that begins with `head`; 0 if none does."""
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80:
        body = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return 10 + body + (10 if head[5] & 0x10 else 0)  # the flag says that a footer follows
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return int.from_bytes(head[12:16], "little") + (32 if head[23] & 0x20 else 0)
    return 0


def _zeros(file: ByteRange, at: int) -> int:
    count = 0
    while count < _PADDING_MAX and (block := file.at(at + count, 4096)):
        rest = block.lstrip(b"\0")
        count += len(block) - len(rest)
        if rest:
            break
    # an MP4's first box begins with zeros: its length
    return count - next((back for back in range(1, 4) if file.at(at + count - back + 4, 4) == b"ftyp"), 0)

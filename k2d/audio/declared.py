"""The length that a media file declares: in bytes, and for MP3 in seconds and bytes. FFmpeg does not report it.

FFmpeg silently reduces the duration of a truncated WAV, CAF, AVI or Ogg file to what is left, and reports none for
Matroska; the sizes in the container still show the truncation. For MP3 it estimates the duration without saying so.
"""

from dataclasses import dataclass
from typing import Final

from k2d.audio.byte_range import ByteRange

# RIFF sizes from here on mean "unknown", from programs that cannot seek (sox 0x7FFFF000…, FFmpeg 0xFFFFFFFF)
_RIFF_UNKNOWN: Final = 0x7FFF_F000
_RIFF_SLACK: Final = 64  # for programs that miscount a header or a padding byte
_OGG_PAGE_MAX: Final = 27 + 255 + 255 * 255
_PARTS_MAX: Final = 200_000  # top-level parts examined; a fragmented ten-hour MP4 has about 20,000
_MP4_STARTS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")
MP4_BOXES: Final = (*_MP4_STARTS, *b"moof mfra sidx ssix uuid meta pdin emsg prft udta".split())
# MPEG version bits → sample rates by index, and samples in a Layer III frame (ISO 11172-3, 13818-3; 0 is MPEG 2.5)
_MP3_RATES_HZ: Final = {0: (11025, 12000, 8000), 2: (22050, 24000, 16000), 3: (44100, 48000, 32000)}
_MP3_FRAME_SAMPLES: Final = {0: 576, 2: 576, 3: 1152}


def declared_bytes(file: ByteRange, size: int) -> int | None:
    """The size that the file has at least when it is complete; None if its container does not state one.

    `size` is the file's actual size.

    Raises:
        OSError: reading fails.
    """
    head = file.at(0, 64)
    kind = head[:4]
    if kind in (b"RIFF", b"RF64", b"BW64"):
        return _riff(file, head, size)
    if kind == b"riff" and len(head) >= 24:  # Sony Wave64: a GUID that starts with "riff", then the whole size
        return int.from_bytes(head[16:24], "little") - _RIFF_SLACK
    if kind == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        length = int.from_bytes(head[4:8], "big")
        return 8 + length - _RIFF_SLACK if length else None
    if kind == b"caff":
        return _caf(file, size)
    if kind == b"OggS":
        return _ogg(file, size)
    if kind == b"\x1a\x45\xdf\xa3":
        return _matroska(head)
    if head[4:8] in _MP4_STARTS:
        return _mp4(file, size)
    return None


@dataclass(frozen=True, slots=True)
class XingHeader:
    """What the Xing or Info header of an MP3 file says."""

    duration_s: float
    end: int | None  # where the audio ends, as an offset in bytes; None if the header does not say

    def is_complete(self, size: int) -> bool:
        """Whether a file of `size` bytes holds all the bytes that the header counts."""
        return self.end is not None and self.end <= size


def xing_header(file: ByteRange) -> XingHeader | None:
    """The Xing or Info header in an MP3 file's first frame; None without one.

    Raises:
        OSError: reading fails.
    """
    head = file.at(0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = file.at(start, 64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    version, rate_index = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if version not in _MP3_RATES_HZ or rate_index == 3:
        return None
    for at in (13, 21, 36):  # behind the side information, whose length depends on version and channels
        if frame[at : at + 4] in (b"Xing", b"Info") and frame[at + 7] & 1:
            frames = int.from_bytes(frame[at + 8 : at + 12], "big")
            duration_s = frames * _MP3_FRAME_SAMPLES[version] / _MP3_RATES_HZ[version][rate_index]
            counted = int.from_bytes(frame[at + 12 : at + 16], "big") if frame[at + 7] & 2 else None
            return XingHeader(duration_s, start + counted if counted else None)
    return None


def _riff(file: ByteRange, head: bytes, size: int) -> int | None:
    """The end of the data chunk of a WAV, or of the outer chunk of AVI and other RIFF forms."""
    if len(head) < 12:
        return None
    if head[8:12] != b"WAVE":
        outer = int.from_bytes(head[4:8], "little")
        return 8 + outer - _RIFF_SLACK if 0 < outer < _RIFF_UNKNOWN else None
    offset, long_size = 12, 0
    for _ in range(_PARTS_MAX):
        part = file.at(offset, 24)
        if len(part) < 8:
            return None
        length = int.from_bytes(part[4:8], "little")
        if part[:4] == b"ds64" and len(part) == 24:
            long_size = int.from_bytes(part[16:24], "little")
        if part[:4] == b"data":
            if length == 0xFFFF_FFFF and long_size:
                length = long_size
            elif not 0 < length < _RIFF_UNKNOWN:
                return None
            return offset + 8 + length - _RIFF_SLACK
        offset += 8 + length + length % 2
        if offset > size:
            return None
    return None


def _caf(file: ByteRange, size: int) -> int | None:
    offset = 8
    for _ in range(_PARTS_MAX):
        part = file.at(offset, 12)
        if len(part) < 12:
            return None
        length = int.from_bytes(part[4:12], "big", signed=True)
        if length < 0:  # -1: the data chunk runs to the end of the file
            return None
        offset += 12 + length
        if part[:4] == b"data":
            return offset
        if offset > size:
            return None
    return None


def _mp4(file: ByteRange, size: int) -> int | None:
    """The end of the last top-level box; beyond the file if that box is truncated."""
    offset = 0
    for _ in range(_PARTS_MAX):
        part = file.at(offset, 16)
        if len(part) < 8:
            return offset
        length = int.from_bytes(part[:4], "big")
        if length == 1 and len(part) == 16:
            length = int.from_bytes(part[8:16], "big")
        if length < 8 or part[4:8] not in MP4_BOXES:  # 0: to the end of the file; unknown type: a tag behind the boxes
            return None
        offset += length
        if offset >= size:
            return offset
    return None


def _matroska(head: bytes) -> int | None:
    """The end of the Segment element, unless it was written as a live stream."""
    header_size, at = vint(head, 4)
    if header_size is None or at + header_size + 12 > len(head):
        return None
    at += header_size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    length, at = vint(head, at + 4)
    return None if length is None else at + length


def vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML variable-length integer (None for "unknown") and the offset behind it."""
    if at >= len(data) or not data[at]:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width


def _ogg(file: ByteRange, size: int) -> int | None:
    """The end of the last page. A missing end-of-stream mark alone is not truncation: live recorders omit it."""
    start = max(0, size - 2 * _OGG_PAGE_MAX)
    tail = file.at(start, size - start)
    at = len(tail)
    while (at := tail.rfind(b"OggS", 0, at)) >= 0:
        page = tail[at : at + 27 + 255]
        if len(page) < 27 or len(page) < 27 + page[26]:
            return size + 1  # the page's header is truncated
        if page[4] == 0 and page[5] <= 7:  # version, flags
            end = start + at + 27 + page[26] + sum(page[27 : 27 + page[26]])
            marked = page[5] & 4
            return end if marked or end >= size else size + 1  # no mark, and followed by something that is not Ogg
    return None

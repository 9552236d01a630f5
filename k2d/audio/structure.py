"""Whether a pause in a file's time stamps is a pause or a hole: are the bytes between two packets a valid container?

A recorder that pauses (mute, discontinuous transmission) writes nothing, so one packet follows the other. Where a file
was overwritten, or lost a piece, there are bytes that FFmpeg skipped without saying so.
"""

from typing import Final

from k2d.audio import ogg
from k2d.audio.byte_range import ByteRange
from k2d.audio.declared import MP4_BOXES, vint

# Matroska element ids (RFC 9559)
_CLUSTER: Final = 0x1F43B675
_BLOCK_GROUP: Final = 0xA0
_BLOCKS: Final = (0xA3, 0xA1)  # SimpleBlock, Block
# Beside the blocks of a cluster: Timestamp, Position, PrevSize, SilentTracks, EncryptedBlock, Void, CRC-32; beside the
# block of a group: BlockAdditions, BlockDuration, ReferencePriority, ReferenceBlock, CodecState, DiscardPadding, Slices
_IN_CLUSTER: Final = frozenset(
    (0xE7, 0xA7, 0xAB, 0x5854, 0xAF, 0xEC, 0xBF, 0x75A1, 0x9B, 0xFA, 0xFB, 0xA4, 0x75A2, 0x8E)
)
# SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags
_IN_SEGMENT: Final = frozenset((0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367))
_SEARCH_BYTES: Final = 1 << 16
_TS_PACKETS: Final = (188, 192, 204)
_FLV_TAG: Final = 11
_FLV_TYPES: Final = (8, 9, 18)  # audio, video, script


class Structure:
    """The structure of one file's container.

        Structure("ogg", file).hole(129, 32577)  # offsets of two packets, as FFmpeg gives them

    Formats that it does not know have no holes.
    """

    def __init__(self, format: str, file: ByteRange) -> None:
        self._file = file
        self._format = format
        self._is_intact = {
            "flac": lambda start, stop: stop is None,  # frames are numbered without gaps
            "matroska": self._matroska,
            "flv": self._flv,
            "mov": self._mp4,
            "mpegts": self._mpegts,
        }.get(format)
        self._mp4_at = 0  # offset of the first top-level box that is not checked yet

    def hole(self, start: int | None, stop: int | None) -> int | None:
        """Where, from the packet at `start` (None: the file's beginning) to that at `stop` (None: the file's end), the
        bytes are not what the format prescribes; None if they are. The offset is exact for Ogg only: else `start`.

        Raises:
            OSError: reading fails.
        """
        if start is not None and start == stop:
            return None
        if self._format == "ogg":  # its last page is checked by `declared_bytes`
            return None if stop is None else ogg.first_hole(self._file, start or 0, stop, joined=start is None)
        if self._is_intact is None or self._is_intact(start, stop):
            return None
        return start or 0

    def _matroska(self, start: int | None, stop: int | None) -> bool:
        """FFmpeg's offset of a packet is that of its block's content, behind id and size."""
        size = self._file.size
        end = size if stop is None else stop
        at = self._first_cluster(end) if start is None else self._block_end(start)
        while at is not None and at < end:
            id_, behind = _element_id(self._file.at(at, 16))
            if id_ is None:
                return False
            length, behind = vint(self._file.at(at, 16), behind)
            if id_ in (_CLUSTER, _BLOCK_GROUP):
                at += behind
            elif length is not None and (id_ in _BLOCKS or id_ in _IN_CLUSTER or id_ in _IN_SEGMENT):
                at += behind
                if at == stop:
                    return True
                at += length
            else:
                return False
        return stop is None and at == size

    def _first_cluster(self, stop: int) -> int | None:
        """The offset of the first cluster; headers before it have elements of many kinds, and are not checked."""
        for at in range(0, stop, _SEARCH_BYTES):
            offset = self._file.at(at, _SEARCH_BYTES + 3).find(_CLUSTER.to_bytes(4, "big"))
            if offset >= 0:
                return at + offset
        return None

    def _block_end(self, content: int) -> int | None:
        """The offset behind a block whose content begins at `content`; None if no block does."""
        before = self._file.at(max(0, content - 9), min(9, content))
        for width in range(1, 9):
            if len(before) > width and before[-width - 1] in _BLOCKS:
                length, used = vint(before[-width:], 0)
                if used == width and length is not None:
                    return content + length
        return None

    def _flv(self, start: int | None, stop: int | None) -> bool:
        size = self._file.size
        if start is None:
            head = self._file.at(0, 9)
            at = int.from_bytes(head[5:9], "big") + 4
        else:
            at = start
        end = size if stop is None else stop
        while at < end:
            head = self._file.at(at, _FLV_TAG)
            if len(head) < _FLV_TAG or head[0] & 0x1F not in _FLV_TYPES:
                return False
            length = _FLV_TAG + int.from_bytes(head[1:4], "big")
            if int.from_bytes(self._file.at(at + length, 4), "big") not in (length, 0):  # some writers leave 0
                return False
            at += length + 4
        return at == end

    def _mp4(self, start: int | None, stop: int | None) -> bool:
        """Only fragments can lose packets: the tables of other files list them all."""
        end = self._file.size if stop is None else stop
        while self._mp4_at < end:
            head = self._file.at(self._mp4_at, 16)
            length = int.from_bytes(head[:4], "big")
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:16], "big")
            if length == 0 and head[4:8] in MP4_BOXES:
                return True
            if length < 8 or head[4:8] not in MP4_BOXES:
                return False
            self._mp4_at += length
        return True

    def _mpegts(self, start: int | None, stop: int | None) -> bool:
        """Every packet begins with a sync byte; on Blu-ray discs 4 bytes, in broadcasts 16 bytes are added to each."""
        end = self._file.size if stop is None else stop
        at = start or 0
        size = next((size for size in _TS_PACKETS if self._file.at(at + size, 1) == b"\x47"), None)
        if size is None:
            return at + _TS_PACKETS[0] >= end
        while at < end:
            block = self._file.at(at, min(end - at, size * 512))
            if any(block[place] != 0x47 for place in range(0, len(block), size)):
                return False
            at += max(size, len(block))
        return at == end or stop is None


def _element_id(data: bytes) -> tuple[int | None, int]:
    """An EBML element's id, with its marker bits, and its length in bytes; None if there is none."""
    if not data or not data[0] >> 4:
        return None, 0
    width = 9 - data[0].bit_length()
    return int.from_bytes(data[:width], "big"), width

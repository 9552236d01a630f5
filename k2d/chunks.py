"""Segments to chunks of at most 30 s, and accepted chunks to training samples. Pure; sums are in whole milliseconds.

A chunk is a *label*: its audio is cut to exactly its span. What lies between chunks is silence as far as the teacher
is concerned, so that chunks and silence add up to the recording.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from k2d.schema import MAX_CHUNK_S, Chunk, Segment


class Spanned(Protocol):
    """A chunk, or the facts of one."""

    @property
    def index(self) -> int: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


class Packer:
    """Joins segments, in order and greedily, into chunks that span at most `max_s` from first start to last end.

    Streams: a chunk comes out as soon as nothing more can join it, the last one when it is closed. A segment without
    text is silence and is dropped. A segment without length keeps its text in the chunk it falls into, but a chunk
    that spans nothing has no audio to be checked against and is dropped. Source: method.md, section 1.
    """

    def __init__(self, max_s: float = MAX_CHUNK_S) -> None:
        self._limit_ms = _ms(max_s)
        self._held: list[Segment] = []
        self._index = 0
        self._end_ms: int | None = None

    @property
    def open_start_s(self) -> float | None:
        """Where the chunk that is still open starts; None when there is none."""
        return self._held[0].start_s if self._held else None

    def push(self, segment: Segment) -> Iterator[Chunk]:
        """Take the next segment; yields the chunk it closes, if it does.

        Raises:
            ValueError: it ends before it starts, starts before the previous one ends, or is longer than a chunk.
        """
        start_ms, end_ms = _ms(segment.start_s), _ms(segment.end_s)
        if end_ms < start_ms:
            raise ValueError(f"a segment ends before it starts: {_span(segment)}")
        if self._end_ms is not None and start_ms < self._end_ms:
            raise ValueError(f"a segment starts before the previous one ends ({self._end_ms} ms): {_span(segment)}")
        if segment.text.strip() and end_ms - start_ms > self._limit_ms:
            raise ValueError(f"a segment is longer than a chunk of {self._limit_ms} ms: {_span(segment)}")
        self._end_ms = end_ms
        if not segment.text.strip():
            return
        if self._held and end_ms - _ms(self._held[0].start_s) > self._limit_ms:
            yield from self.close()
        self._held.append(segment)

    def advance(self, position_s: float) -> Iterator[Chunk]:
        """Learn that every later segment starts at `position_s` or after; yields the chunk that can grow no more."""
        if self._held and _ms(position_s) - _ms(self._held[0].start_s) > self._limit_ms:
            yield from self.close()

    def close(self) -> Iterator[Chunk]:
        """Yield the open chunk, if there is one."""
        held, self._held = self._held, []
        if held and _ms(held[-1].end_s) > _ms(held[0].start_s):
            yield Chunk(self._index, tuple(held))
            self._index += 1


def pack(segments: Iterable[Segment], max_s: float = MAX_CHUNK_S) -> Iterator[Chunk]:
    """Pack all segments of a recording (see Packer).

    Raises:
        ValueError: as Packer.push.
    """
    packer = Packer(max_s)
    for segment in segments:
        yield from packer.push(segment)
    yield from packer.close()


def silence_s(chunks: Iterable[Spanned], duration_s: float) -> float:
    """Seconds of a recording that no chunk covers.

    Raises:
        ValueError: the chunks cover more than the recording is long.
    """
    silence_ms = _ms(duration_s) - sum(_ms(chunk.end_s) - _ms(chunk.start_s) for chunk in chunks)
    if silence_ms < 0:
        raise ValueError(f"chunks cover {-silence_ms / 1000} s more than the recording's {duration_s} s")
    return silence_ms / 1000


def pack_accepted(
    accepted: Sequence[Spanned], *, max_gap_s: float, max_s: float = MAX_CHUNK_S
) -> Iterator[tuple[int, ...]]:
    """Group accepted chunks of one recording into training samples; yields the chunk indices of each sample.

    Chunks join when they were neighbours (nothing rejected lies between), the silence between them is at most
    `max_gap_s`, and the whole spans at most `max_s`. Filtering comes first, so bad speech never enters a sample
    (method.md, section 6, point 3). A chunk that fits nowhere is a sample by itself.

    Raises:
        ValueError: the chunks are not in the order of their recording.
    """
    group: list[Spanned] = []
    for chunk in accepted:
        if group and (chunk.index <= group[-1].index or _ms(chunk.start_s) < _ms(group[-1].end_s)):
            raise ValueError(f"chunk {chunk.index} does not come after chunk {group[-1].index}")
        joins = (
            group
            and chunk.index == group[-1].index + 1
            and _ms(chunk.start_s) - _ms(group[-1].end_s) <= _ms(max_gap_s)
            and _ms(chunk.end_s) - _ms(group[0].start_s) <= _ms(max_s)
        )
        if group and not joins:
            yield tuple(one.index for one in group)
            group = []
        group.append(chunk)
    if group:
        yield tuple(one.index for one in group)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _span(segment: Segment) -> str:
    return f"{segment.start_s}…{segment.end_s} s"

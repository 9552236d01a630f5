"""Segments to chunks of at most 30 s, and what is kept of them to training samples. Pure; sums are whole milliseconds.

A chunk is a *label*: its audio is cut to exactly its span. What lies between chunks is silence as far as the teacher
is concerned, so that chunks and silence add up to the recording.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
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


@dataclass(frozen=True, slots=True)
class Cut:
    """What is kept of a chunk: all of it, or neighbouring segments between others that were excised."""

    chunk: int  # its index
    first: int  # segment numbers within the chunk, both included
    last: int
    of: int  # how many segments the chunk has
    start_s: float  # of the first segment
    end_s: float  # of the last

    @property
    def at_start(self) -> bool:
        """Whether nothing was excised before it in its chunk."""
        return self.first == 0

    @property
    def at_end(self) -> bool:
        """Whether nothing was excised after it in its chunk."""
        return self.last == self.of - 1

    @property
    def whole(self) -> bool:
        return self.at_start and self.at_end


def cuts(chunk: Chunk, keep: Container[int] | None = None) -> Iterator[Cut]:
    """What is left of a chunk when only the segments in `keep` (their numbers) stay: runs of neighbours, in order.

    None keeps the chunk as it is. A run that spans no time has no audio and is not a cut.
    """
    size = len(chunk.segments)
    numbers = [number for number in range(size) if keep is None or number in keep]
    # neighbours have the same difference between number and place in the list
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        kept = [number for _, number in run]
        start_s, end_s = chunk.segments[kept[0]].start_s, chunk.segments[kept[-1]].end_s
        if _ms(end_s) > _ms(start_s):
            yield Cut(chunk.index, kept[0], kept[-1], size, start_s, end_s)


def segment_id(chunk_id: str, number: int) -> str:
    """How a segment is called in datasets, so that it can be left out of a later one."""
    return f"{chunk_id}.{number:03d}"


def follows(cut: Cut, before: Cut) -> bool:
    """Whether nothing was rejected or excised between two cuts of one recording."""
    return cut.chunk == before.chunk + 1 and cut.at_start and before.at_end


def pack_kept(kept: Iterable[Cut], *, max_gap_s: float, max_s: float = MAX_CHUNK_S) -> Iterator[tuple[Cut, ...]]:
    """Group what is kept of one recording into training samples; yields the cuts of each sample.

    Cuts join when they were neighbours (nothing rejected or excised lies between), the silence between them is at most
    `max_gap_s`, and the whole spans at most `max_s`. Filtering comes first, so bad speech never enters a sample
    (method.md, section 6, point 3). A cut that fits nowhere is a sample by itself.

    Raises:
        ValueError: the cuts are not in the order of their recording.
    """
    group: list[Cut] = []
    for cut in kept:
        if group and ((cut.chunk, cut.first) <= (group[-1].chunk, group[-1].last) or _gap_ms(cut, group[-1]) < 0):
            raise ValueError(f"a piece of chunk {cut.chunk} does not come after chunk {group[-1].chunk}")
        joins = (
            group
            and follows(cut, group[-1])
            and _gap_ms(cut, group[-1]) <= _ms(max_gap_s)
            and _ms(cut.end_s) - _ms(group[0].start_s) <= _ms(max_s)
        )
        if group and not joins:
            yield tuple(group)
            group = []
        group.append(cut)
    if group:
        yield tuple(group)


def _gap_ms(cut: Cut, before: Cut) -> int:
    return _ms(cut.start_s) - _ms(before.end_s)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _span(segment: Segment) -> str:
    return f"{segment.start_s}…{segment.end_s} s"

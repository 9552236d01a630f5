"""Packs segments into chunks of at most 30 s. Pure; times are compared in whole milliseconds.

A chunk is a *label*: its audio is cut to exactly its span. What lies between chunks is silence as far as the teacher
is concerned, so that chunks and silence add up to the recording.
"""

from collections.abc import Iterable, Iterator

from k2d.schema import MAX_CHUNK_S, Chunk, Segment


class Packer:
    """Joins segments, in order and greedily, into chunks that span at most `max_s` from first start to last end.

    Streams: a chunk comes out as soon as nothing more can join it, the last one when it is closed. A segment without
    text is silence and is dropped. A segment without length keeps its text in the chunk it falls into, but a chunk
    that spans nothing has no audio to be checked against and is dropped. Source: docs/method.md.
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


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _span(segment: Segment) -> str:
    return f"{segment.start_s}…{segment.end_s} s"

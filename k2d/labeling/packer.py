"""Packs segments into chunks of at most 30 s. Pure; times are compared in whole milliseconds.

A chunk's audio is cut to exactly its span. What lies between chunks has no label (the ledger's word), so that chunks
and what has no label add up to the recording.
"""

from collections.abc import Iterable, Iterator

from k2d.schema import MAX_CHUNK_S, Chunk, Segment


class Packer:
    """Joins segments, in order and greedily, into chunks that span at most `max_s` from first start to last end.

    A stream: a chunk is returned as soon as no other segment can join it, the last one by `close`. A segment without
    text is silence and is dropped. A segment without length joins a chunk, but a chunk without length has no audio to
    validate against and is dropped. Source: docs/method.md.
    """

    def __init__(self, max_s: float = MAX_CHUNK_S) -> None:
        self._limit_ms = _ms(max_s)
        self._pending: list[Segment] = []
        self._index = 0
        self._end_ms: int | None = None

    @property
    def open_start_s(self) -> float | None:
        """Start of the open chunk; None if there is none."""
        return self._pending[0].start_s if self._pending else None

    def push(self, segment: Segment) -> Iterator[Chunk]:
        """Add the next segment; yields the chunk that it closes, if any.

        Raises:
            ValueError: the segment ends before it starts, starts before the previous one ends, or is longer than a
                chunk.
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
        if self._pending and end_ms - _ms(self._pending[0].start_s) > self._limit_ms:
            yield from self.close()
        self._pending.append(segment)

    def advance(self, position_s: float) -> Iterator[Chunk]:
        """Every later segment starts at `position_s` or after: yields the open chunk if none of them can join it."""
        if self._pending and _ms(position_s) - _ms(self._pending[0].start_s) > self._limit_ms:
            yield from self.close()

    def close(self) -> Iterator[Chunk]:
        """Yield the open chunk, if any."""
        pending, self._pending = self._pending, []
        if pending and _ms(pending[-1].end_s) > _ms(pending[0].start_s):
            yield Chunk(self._index, tuple(pending))
            self._index += 1


def pack(segments: Iterable[Segment], max_s: float = MAX_CHUNK_S) -> Iterator[Chunk]:
    """Pack all segments of a recording (see Packer).

        [(chunk.start_s, chunk.end_s) for chunk in pack(segments)]

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

"""Packs what a policy keeps of one recording into training rows of at most 30 s. Pure functions."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from k2d.schema import MAX_CHUNK_S, Chunk


@dataclass(frozen=True, slots=True)
class ChunkCut:
    """Neighbouring segments of one chunk that are kept: the whole chunk, or a run between excised segments."""

    chunk: int  # index of the chunk
    first: int  # numbers of the first and the last segment, both included
    last: int
    of: int  # number of segments of the chunk
    start_s: float  # of the first segment
    end_s: float  # of the last

    @property
    def at_start(self) -> bool:
        """Whether the cut begins with its chunk."""
        return self.first == 0

    @property
    def at_end(self) -> bool:
        """Whether the cut ends with its chunk."""
        return self.last == self.of - 1

    @property
    def whole(self) -> bool:
        """Whether the cut is the whole chunk."""
        return self.at_start and self.at_end


def cuts(chunk: Chunk, keep: Container[int] | None = None) -> Iterator[ChunkCut]:
    """Iterate over the runs of neighbouring segments whose numbers are in `keep` (None: all), in order.

    Runs of zero duration are left out, since they have no audio.
    """
    size = len(chunk.segments)
    numbers = [number for number in range(size) if keep is None or number in keep]
    # in a run of neighbours, the difference between number and list index is constant
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        kept = [number for _, number in run]
        start_s, end_s = chunk.segments[kept[0]].start_s, chunk.segments[kept[-1]].end_s
        if _ms(end_s) > _ms(start_s):
            yield ChunkCut(chunk.index, kept[0], kept[-1], size, start_s, end_s)


def follows(cut: ChunkCut, before: ChunkCut) -> bool:
    """Whether nothing between two cuts of one recording was rejected or excised."""
    return cut.chunk == before.chunk + 1 and cut.at_start and before.at_end


def pack_kept(
    kept: Iterable[ChunkCut], *, max_gap_s: float, max_s: float = MAX_CHUNK_S
) -> Iterator[tuple[ChunkCut, ...]]:
    """Group the cuts of one recording into training rows; yields the cuts of each row.

        [len(cuts) for cuts in pack_kept(kept, max_gap_s=2.0)]  # e.g. [3, 1, 2]

    A cut joins the row before it if nothing between them was rejected or excised, the pause between them is at most
    `max_gap_s`, and the row stays within `max_s`. Filtering comes before packing, so that bad speech never enters
    a row (docs/method.md). A single cut longer than `max_s` is a row by itself.

    Raises:
        ValueError: the cuts are not in the order of their recording.
    """
    group: list[ChunkCut] = []
    for cut in kept:
        if group and ((cut.chunk, cut.first) <= (group[-1].chunk, group[-1].last) or _gap_ms(cut, group[-1]) < 0):
            raise ValueError(f"a cut of chunk {cut.chunk} does not come after the one of chunk {group[-1].chunk}")
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


def _gap_ms(cut: ChunkCut, before: ChunkCut) -> int:
    return _ms(cut.start_s) - _ms(before.end_s)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""Packs what a policy keeps of one recording into training samples of at most 30 s. Pure; sums are whole milliseconds."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from k2d.schema import MAX_CHUNK_S, Chunk


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

"""Chunks: greedy, in order, at most 30 s, and no second lost."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.datasets.pack import cuts, pack_kept
from k2d.labeling.packer import Packer, pack
from k2d.schema import MAX_CHUNK_S, Chunk, Segment


def _segment(start_s: float, end_s: float, text: str = " 好") -> Segment:
    return Segment(start_s, end_s, text, (1,), -0.2, 0.01, 1.1, 0.0, "zh")


@st.composite
def recordings(draw: st.DrawFn) -> list[Segment]:
    """Segments in order, times in milliseconds, some silent, some without length."""
    position, segments = 0, []
    for gap, length, text in draw(
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30_000), st.sampled_from([" 好", " a b", " ", ""])))
    ):
        segments.append(_segment((position + gap) / 1000, (position + gap + length) / 1000, text))
        position += gap + length
    return segments


def test_segments_are_joined_while_they_fit() -> None:
    chunks = list(pack([_segment(0, 12), _segment(12, 20), _segment(21, 30), _segment(30, 31.5), _segment(40, 50)]))
    assert [(chunk.index, chunk.start_s, chunk.end_s) for chunk in chunks] == [(0, 0, 30), (1, 30, 50)]


def test_the_limit_is_exact_to_the_millisecond() -> None:
    # 0.1 + 30 > 30.1 in floats: only whole milliseconds keep this chunk together
    assert len(list(pack([_segment(0.1, 10.1), _segment(20.1, 30.1)]))) == 1
    assert len(list(pack([_segment(0.1, 10.1), _segment(20.1, 30.101)]))) == 2


def test_silence_is_dropped_and_not_spanned_at_the_edges() -> None:
    [chunk] = pack([_segment(0, 2, " "), _segment(2, 3), _segment(3, 5, ""), _segment(5, 6), _segment(6, 9, "")])
    assert (chunk.start_s, chunk.end_s, len(chunk.segments)) == (2, 6, 2)


def test_a_segment_without_length_stays_with_its_neighbours_but_makes_no_chunk() -> None:
    [chunk] = pack([_segment(0, 2), _segment(2, 2, " 喔"), _segment(2, 4)])
    assert chunk.text == "好 喔 好"
    assert list(pack([_segment(5, 5)])) == []
    assert [chunk.index for chunk in pack([_segment(0, 0), _segment(40, 45), _segment(80, 82)])] == [0, 1]


def test_packing_streams() -> None:
    taken: list[float] = []

    def segments() -> Iterator[Segment]:
        for start in range(0, 100, 20):
            taken.append(start)
            yield _segment(start, start + 20)

    first = next(pack(segments()))
    assert (first.start_s, first.end_s) == (0, 20)
    assert taken == [0, 20]


def test_an_open_chunk_closes_when_the_teacher_has_moved_on() -> None:
    packer = Packer()
    assert packer.open_start_s is None
    assert list(packer.push(_segment(5, 10))) == []
    assert packer.open_start_s == 5
    assert list(packer.advance(35.0)) == []  # a segment at 35 s could end there at once
    [chunk] = packer.advance(35.001)
    assert (chunk.index, chunk.start_s, chunk.end_s) == (0, 5, 10)
    assert packer.open_start_s is None
    assert list(packer.close()) == []


@given(recordings())
def test_knowing_the_position_changes_no_chunk(segments: list[Segment]) -> None:
    packer, chunks = Packer(), []
    for segment in segments:
        chunks += packer.advance(segment.start_s)
        chunks += packer.push(segment)
    assert [*chunks, *packer.close()] == list(pack(segments))


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([_segment(0, 31)], "longer than a chunk"),
        ([_segment(5, 4)], "ends before it starts"),
        ([_segment(0, 5), _segment(4, 6)], "before the previous one ends"),
        ([_segment(0, 5, ""), _segment(4, 6)], "before the previous one ends"),
        ([_segment(10, 12), _segment(0, 2)], "before the previous one ends"),
    ],
)
def test_impossible_segments_are_refused(segments: list[Segment], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(pack(segments))


@given(recordings())
def test_chunks_and_silence_add_up_to_the_recording(segments: list[Segment]) -> None:
    chunks = list(pack(segments))
    duration_ms = (round(segments[-1].end_s * 1000) if segments else 0) + 1234
    starts, ends = ([round(getattr(chunk, end) * 1000) for chunk in chunks] for end in ("start_s", "end_s"))
    silence_ms = [start - end for start, end in zip([*starts, duration_ms], [0, *ends], strict=True)]
    assert all(ms >= 0 for ms in silence_ms)  # chunks do not overlap, and none ends after the recording
    assert sum(round(chunk.duration_s * 1000) for chunk in chunks) + sum(silence_ms) == duration_ms
    assert all(0 < chunk.duration_s <= MAX_CHUNK_S for chunk in chunks)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


@given(recordings())
def test_every_spoken_segment_with_length_is_in_one_chunk_and_in_order(segments: list[Segment]) -> None:
    packed = [segment for chunk in pack(segments) for segment in chunk.segments]
    spoken = [segment for segment in segments if segment.text.strip()]
    assert [one for one in packed if one.end_s > one.start_s] == [one for one in spoken if one.end_s > one.start_s]
    assert all(one in spoken for one in packed)


@given(recordings())
def test_packing_is_greedy(segments: list[Segment]) -> None:
    chunks = list(pack(segments))
    for chunk, following in pairwise(chunks):
        assert round((following.segments[0].end_s - chunk.start_s) * 1000) > MAX_CHUNK_S * 1000 or any(
            segment.end_s == segment.start_s for segment in segments
        )


# ---- what is kept of them -----------------------------------------------------------------------------------------


def _chunks(*spans: tuple[int, float, float]) -> list[Chunk]:
    return [Chunk(index, (_segment(start_s, end_s),)) for index, start_s, end_s in spans]


@pytest.mark.parametrize(
    ("spans", "groups"),
    [
        ([], []),
        ([(0, 0, 10), (1, 10.5, 20), (2, 20, 29)], [(0, 1, 2)]),
        ([(0, 0, 10), (1, 12, 20)], [(0,), (1,)]),  # the gap is too long
        ([(0, 0, 10), (2, 10.5, 20)], [(0,), (2,)]),  # chunk 1 was rejected
        ([(0, 0, 20), (1, 20, 30), (2, 30, 31)], [(0, 1), (2,)]),  # 30 s are full
        ([(0, 0.1, 10.1), (1, 11.1, 30.1)], [(0, 1)]),  # a gap of 1 s and 30 s in all, to the millisecond
        ([(3, 0, 30), (4, 30, 60)], [(3,), (4,)]),
    ],
)
def test_accepted_neighbours_are_joined(spans: list[tuple[int, float, float]], groups: list[tuple[int, ...]]) -> None:
    kept = [cut for chunk in _chunks(*spans) for cut in cuts(chunk)]
    assert [tuple(cut.chunk for cut in group) for group in pack_kept(kept, max_gap_s=1.0)] == groups


def test_what_is_kept_must_come_in_order() -> None:
    kept = [cut for chunk in _chunks((1, 10, 20), (0, 0, 10)) for cut in cuts(chunk)]
    with pytest.raises(ValueError, match="does not come after"):
        list(pack_kept(kept, max_gap_s=1.0))


@pytest.mark.parametrize(
    ("keep", "runs"),
    [
        (None, [(0, 3)]),
        ({0, 1, 2, 3}, [(0, 3)]),
        ({0, 1, 3}, [(0, 1), (3, 3)]),
        ({2}, []),  # it spans nothing: there is no audio of it
        ({1, 2}, [(1, 2)]),
        (set(), []),
    ],
)
def test_a_cut_is_a_run_of_kept_neighbours(keep: set[int] | None, runs: list[tuple[int, int]]) -> None:
    segments = (_segment(0, 2), _segment(2, 4), _segment(4.5, 4.5), _segment(5, 6))
    found = list(cuts(Chunk(7, segments), keep))
    assert [(cut.first, cut.last) for cut in found] == runs
    assert all((c.start_s, c.end_s) == (segments[c.first].start_s, segments[c.last].end_s) for c in found)
    assert [cut.whole for cut in found] == [run == (0, 3) for run in runs]


def test_nothing_is_joined_over_an_excision() -> None:
    left = Chunk(0, (_segment(0, 2), _segment(2, 4), _segment(4, 6)))
    right = Chunk(1, (_segment(6, 8), _segment(8, 9)))
    end_gone, start_gone = list(cuts(left, {0, 1})), list(cuts(right, {1}))
    assert len(list(pack_kept([*end_gone, *cuts(right)], max_gap_s=9.0))) == 2
    assert len(list(pack_kept([*cuts(left), *start_gone], max_gap_s=9.0))) == 2
    assert len(list(pack_kept([*cuts(left, {0, 2}), *cuts(right)], max_gap_s=9.0))) == 2  # segment 2 joins chunk 1
    assert len(list(pack_kept([*cuts(left, {1, 2}), *cuts(right, {0})], max_gap_s=9.0))) == 1


@given(recordings(), st.integers(0, 3000), st.randoms())
def test_every_kept_segment_is_in_one_pack_and_no_other_is(
    segments: list[Segment], max_gap_ms: int, random: object
) -> None:
    draw = random.random  # type: ignore[attr-defined]
    chunks = {chunk.index: chunk for chunk in pack(segments, max_s=30)}
    # a third of the chunks whole, a third in part, a third not at all; what spans nothing is never salvaged
    whole = {index for index in chunks if draw() < 1 / 3}
    keep = {
        index: {n for n, one in enumerate(chunk.segments) if draw() < 0.5 and one.end_s > one.start_s}
        for index, chunk in chunks.items()
        if index not in whole and draw() < 0.5
    }
    kept = [cut for index, chunk in chunks.items() if index in whole for cut in cuts(chunk)]
    kept += [cut for index, numbers in keep.items() for cut in cuts(chunks[index], numbers)]
    kept.sort(key=lambda cut: (cut.chunk, cut.first))
    packs = list(pack_kept(kept, max_gap_s=max_gap_ms / 1000))
    expected = [
        (index, number)
        for index, chunk in chunks.items()
        for number in range(len(chunk.segments))
        if index in whole or number in keep.get(index, ())
    ]
    packed = [(cut.chunk, n) for group in packs for cut in group for n in range(cut.first, cut.last + 1)]
    assert packed == expected  # each once, in order, and nothing that was rejected
    times = [time for group in packs for time in (group[0].start_s, group[-1].end_s)]
    assert times == sorted(times)
    for group in packs:
        assert round((group[-1].end_s - group[0].start_s) * 1000) <= 30_000
        for before, after in pairwise(group):  # nothing lies between that was taken out
            assert after.chunk == before.chunk + 1
            assert (before.last, after.first) == (len(chunks[before.chunk].segments) - 1, 0)

"""Subtitles: the formats to the letter, and for any segments times that only go forward."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.schema import Segment
from k2d.text.subtitles import clock, srt, vtt

CUE = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)([.,])(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)([.,])(\d{3})")


def segment(start_s: float, end_s: float, text: str) -> Segment:
    return Segment(start_s, end_s, text, (), -0.1, 0.0, 1.0, 0.0, "zh-en")


TWO = [segment(0.0, 2.5, " 我們來 review"), segment(3661.007, 3662.0, " Let's go.")]


def test_srt_to_the_letter() -> None:
    assert srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:02,500\n我們來 review\n\n2\n01:01:01,007 --> 01:01:02,000\nLet's go.\n\n"
    )
    assert srt([]) == ""


def test_vtt_to_the_letter() -> None:
    assert vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n我們來 review\n\n01:01:01.007 --> 01:01:02.000\nLet's go.\n\n"
    )
    assert vtt([]) == "WEBVTT\n\n"


@pytest.mark.parametrize(
    ("text", "in_srt", "in_vtt"),
    [
        (" R&D <b>bold</b>", "R&D <b>bold</b>", "R&amp;D &lt;b&gt;bold&lt;/b&gt;"),
        ("a --> b", "a -> b", "a --&gt; b"),
        ("one\n\ntwo\r\n3", "one two 3", "one two 3"),
    ],
)
def test_no_text_is_taken_for_markup(text: str, in_srt: str, in_vtt: str) -> None:
    assert srt([segment(0, 1, text)]).splitlines()[2] == in_srt
    assert vtt([segment(0, 1, text)]).splitlines()[3] == in_vtt


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "00:00:00.000"), (59_999, "00:00:59.999"), (3_600_000, "01:00:00.000"), (360_000_000, "100:00:00.000")],
)
def test_the_clock(ms: int, shown: str) -> None:
    assert clock(ms, ".") == shown


@st.composite
def recordings(draw: st.DrawFn) -> list[Segment]:
    """Segments as `k2d.inference.longform` gives them: whole milliseconds, in order, not overlapping."""
    at, found = 0, []
    for gap, length, text in draw(
        st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**7), st.text(max_size=20)), max_size=12)
    ):
        found.append(segment((at + gap) / 1000, (at + gap + length) / 1000, text))
        at += gap + length
    return found


def milliseconds(parts: tuple[str, ...]) -> tuple[int, int]:
    numbers = [int(part) for part in parts if part.isdigit()]
    return tuple(((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))  # type: ignore[return-value]


@given(recordings())
def test_cues_go_forward_and_say_what_the_segments_say(segments: list[Segment]) -> None:
    wanted = [
        (round(s.start_s * 1000), round(s.end_s * 1000)) for s in segments if s.text.strip() and s.end_s > s.start_s
    ]
    for written, point in ((srt(segments), ","), (vtt(segments), ".")):
        blocks = written.removeprefix("WEBVTT\n\n").split("\n\n")[:-1]
        cues = [CUE.fullmatch(block.split("\n")[-2]) for block in blocks]
        assert all(cue is not None and cue[4] == cue[9] == point for cue in cues)
        times = [milliseconds(cue.groups()) for cue in cues if cue]
        assert times == wanted
        flat = [time for pair in times for time in pair]
        assert flat == sorted(flat)
    numbers = [block.split("\n")[0] for block in srt(segments).split("\n\n")[:-1]]
    assert numbers == [str(n) for n in range(1, len(wanted) + 1)]

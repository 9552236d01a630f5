"""The parity gate: what counts as drift, what as the same, and that it fails when it must."""

import asyncio
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from k2d.errors import ModelError
from k2d.inference import golden
from k2d.inference.parity import ParityRecording, Transcripts, compare, golden_recordings, transcribe_all
from k2d.schema import DecodeOptions, LongformOptions, ModelInfo, Piece, Samples, Segment, Window, WindowResult

A = ModelInfo("folder/a", "a" * 64, "ctranslate2", "int8", "cpu")
B = replace(A, digest="b" * 64)


def segment(text: str, **change: object) -> Segment:
    made = Segment(0.0, 1.0, text, (1, 2), -0.2, 0.0, 1.0, 0.0, "zh-en")
    return replace(made, **change)  # type: ignore[arg-type]


class Ones:
    def read(self, start: int, stop: int) -> Samples:
        return np.ones(stop - start, np.int16)


def recordings(*references: str | None) -> list[ParityRecording]:
    return [
        ParityRecording(f"{n}.flac", lambda: nullcontext(Ones()), 16_000, reference)
        for n, reference in enumerate(references)
    ]


def test_one_voice_twice_has_no_drift() -> None:
    segments = ((segment(" 我們 review"), segment(" 一下")), ())
    report = compare(recordings("我們 review 一下", ""), Transcripts(A, segments), Transcripts(B, segments))
    assert report.drift == 0
    assert [(row.identical, row.same_text, row.drift) for row in report.rows] == [(True, True, 0.0)] * 2
    assert (report.mer_a, report.mer_b) == (0.0, 0.0)
    assert (report.a, report.b) == (A, B)


def test_a_signal_or_a_time_that_differs_is_not_identical_but_says_the_same() -> None:
    for change in ({"avg_logprob": -0.2001}, {"end_s": 1.02}, {"tokens": (3,)}, {"temperature": 0.2}):
        [row] = compare(
            recordings(None), Transcripts(A, ((segment("好"),),)), Transcripts(B, ((segment("好", **change),),))
        ).rows
        assert (row.identical, row.same_text, row.drift) == (False, True, 0.0)
        assert (row.mer_a, row.mer_b) == (None, None)


def test_punctuation_is_another_text_but_no_drift() -> None:
    [row] = compare(
        recordings(None), Transcripts(A, ((segment("好,走"),),)), Transcripts(B, ((segment("好。走"),),))
    ).rows
    assert (row.same_text, row.drift) == (False, 0.0)


def test_rates_are_pooled_over_tokens_and_a_is_the_reference() -> None:
    """A says 10 tokens and 2; B changes one of the 10 and adds one to the 2: 2 edits over 12, not the mean of rates."""
    long, changed = "一二三四五六七八九十", "一二三四五六七八九百"
    heard_a = ((segment(long),), (segment("a b"),))
    heard_b = ((segment(changed),), (segment("a b c"),))
    report = compare(recordings(long, None), Transcripts(A, heard_a), Transcripts(B, heard_b))
    assert [row.drift for row in report.rows] == [pytest.approx(0.1), pytest.approx(0.5)]
    assert report.drift == pytest.approx(2 / 12)
    assert (report.mer_a, report.mer_b) == (0.0, pytest.approx(0.1))  # the second has no reference
    backwards = compare(recordings(None, None), Transcripts(B, heard_b), Transcripts(A, heard_a))
    assert backwards.drift == pytest.approx(2 / 13)
    assert backwards.mer_a is None


def test_hearing_nothing_where_the_other_hears_something_is_drift() -> None:
    [row] = compare(recordings(None), Transcripts(A, ((),)), Transcripts(B, ((segment("謝謝"),),))).rows
    assert row.drift == 2.0


class Ear:
    """A transcriber that says how many samples it was given, and may fail at one of its calls."""

    model = A

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.most, self.now, self.fails_at = 0, 0, 0, fails_at

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        if self.calls == self.fails_at:
            raise ModelError("out of memory")
        await asyncio.sleep(0.001)
        self.now -= 1
        text = f"{len(window.samples)}"
        return WindowResult(text, (), (Piece(0.0, 1.0, text, ()),), None, -0.1, 0.0, 1.0, 0.0, options.language)

    async def close(self) -> None: ...


def test_recordings_are_heard_whole_several_at_once_in_order() -> None:
    ear = Ear()
    many = [replace(recording, samples=16_000 + n) for n, recording in enumerate(recordings(*[None] * 20))]
    transcripts = asyncio.run(
        transcribe_all(ear, [*many, replace(many[0], samples=480_000 + 32_000)], LongformOptions())
    )
    assert [transcripts.text(n) for n in range(20)] == [str(16_000 + n) for n in range(20)]
    assert [s.text for s in transcripts.segments[20]] == ["480000", "32000"]
    assert 1 < ear.most <= 8


def test_a_transcriber_that_fails_fails_the_comparison() -> None:
    with pytest.raises(ModelError, match="out of memory"):
        asyncio.run(transcribe_all(Ear(fails_at=3), recordings(*[None] * 20), LongformOptions()))


def test_the_golden_clips_are_recordings_with_their_truth() -> None:
    found = golden_recordings()
    assert [(r.name, r.samples, r.reference) for r in found] == [
        (clip.name, len(clip.samples), clip.text) for clip in golden.clips()
    ]
    for recording, clip in zip(found, golden.clips(), strict=True):  # each opens its own
        with recording.open() as reader:
            assert np.array_equal(reader.read(100, 10**6), clip.samples[100:])

"""The sequential algorithm, against a scripted transcriber: where windows start, which segments come out."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d.errors import ModelError
from k2d.inference.longform import transcribe
from k2d.schema import (
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    DecodeOptions,
    LongformOptions,
    ModelInfo,
    Piece,
    Samples,
    Segment,
    Window,
    WindowResult,
)

OPTIONS = LongformOptions()
STAMP = 1000


class Audio:
    """A recording whose samples are nothing; remembers what was asked for, and insists on moving forward."""

    def __init__(self, seconds: float, promised: float | None = None) -> None:
        self.samples = round(seconds * SAMPLE_RATE_HZ)
        self.promised = self.samples if promised is None else round(promised * SAMPLE_RATE_HZ)
        self.starts: list[int] = []

    def read(self, start: int, stop: int) -> Samples:
        assert not self.starts or start > self.starts[-1], "a window must move on"
        assert stop - start <= WINDOW_SAMPLES
        self.starts.append(start)
        return np.zeros(max(0, min(stop, self.samples) - start), np.int16)

    @property
    def starts_s(self) -> list[float]:
        return [round(start / SAMPLE_RATE_HZ, 3) for start in self.starts]


class Script:
    """Answers with the given results in turn, then with silence; remembers the prompts."""

    model = ModelInfo("script", "0" * 64, "script", "none", "cpu")

    def __init__(self, *results: WindowResult | Exception) -> None:
        self.results = list(results)
        self.prompts: list[tuple[int, ...]] = []

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.prompts.append(window.prompt)
        result = self.results.pop(0) if self.results else answer()
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        pass


def answer(
    *pieces: tuple[float, float, str],
    resume: float | None = None,
    logprob: float = -0.3,
    silence: float = 0.0,
    temperature: float = 0.0,
    tail: Sequence[int] = (),
) -> WindowResult:
    """A window's result; tokens are code points between timestamps (20 ms steps above 1000)."""
    found, tokens = [], list[int]()
    for start, end, text in pieces:
        letters = tuple(map(ord, text))
        found.append(Piece(start, end, text, letters))
        tokens += [STAMP + round(start * 50), *letters, STAMP + round(end * 50)]
    whole = "".join(p[2] for p in pieces)
    return WindowResult(whole, (*tokens, *tail), tuple(found), resume, logprob, silence, 1.0, temperature, "zh-en")


def run(
    audio: Audio,
    script: Script,
    options: LongformOptions = OPTIONS,
    progress: Callable[[float], None] | None = None,
) -> list[Segment]:
    async def collect() -> list[Segment]:
        stream = transcribe(audio, script, options, total_samples=audio.promised, progress=progress)
        return [segment async for segment in stream]

    return asyncio.run(collect())


def spans(segments: list[Segment]) -> list[tuple[float, float, str]]:
    return [(s.start_s, s.end_s, s.text) for s in segments]


def test_the_next_window_starts_where_the_last_one_says() -> None:
    audio = Audio(50)
    script = Script(answer((0, 5, "a"), (5, 21.5, "b"), resume=21.5), answer((0.5, 28, "c")))
    assert spans(run(audio, script)) == [(0, 5, "a"), (5, 21.5, "b"), (22, 49.5, "c")]
    assert audio.starts_s == [0, 21.5]


def test_without_a_resume_point_the_whole_window_is_done() -> None:
    audio = Audio(70)
    run(audio, Script(answer((0, 5, "a")), answer((0, 5, "b")), answer((0, 5, "c"))))
    assert audio.starts_s == [0, 30, 60]


def test_silence_is_skipped_unless_the_text_is_sure() -> None:
    unsure = answer((0, 3, "x"), resume=3, logprob=-1.5, silence=0.9)
    sure = answer((0, 3, "y"), resume=3, logprob=-0.2, silence=0.9)
    audio = Audio(60)
    assert spans(run(audio, Script(unsure, sure))) == [(30, 33, "y")]
    assert audio.starts_s == [0, 30, 33]


def test_silence_can_be_switched_off() -> None:
    options = LongformOptions(decode=DecodeOptions(no_speech_threshold=None))
    assert spans(run(Audio(30), Script(answer((0, 3, "x"), logprob=-9, silence=1.0)), options)) == [(0, 3, "x")]


def test_a_window_always_moves_on() -> None:
    audio = Audio(1)
    run(audio, Script(*[answer(resume=0.0) for _ in range(200)]))
    assert len(audio.starts) == 50  # a step of 20 ms each


def test_segments_stay_inside_the_recording_and_apart() -> None:
    audio = Audio(20)
    pieces = ((0, 8, "a"), (7, 12, "b"), (11, 11.5, "inside"), (19, 29, "c"), (25, 29, "beyond"))
    assert spans(run(audio, Script(answer(*pieces)))) == [(0, 8, "a"), (8, 12, "b"), (19, 20, "c")]


def test_a_recording_shorter_than_promised_ends_quietly() -> None:
    audio = Audio(30, promised=100)
    assert spans(run(audio, Script(answer((0, 2, "a")), answer((0, 2, "b"))))) == [(0, 2, "a")]


def test_an_empty_recording_has_no_segments() -> None:
    assert run(Audio(0), Script()) == []


def test_signals_come_along() -> None:
    [segment] = run(Audio(10), Script(answer((0, 2, "a"), logprob=-0.7, silence=0.2, temperature=0.4)))
    assert (segment.avg_logprob, segment.no_speech_prob, segment.temperature) == (-0.7, 0.2, 0.4)
    assert (segment.language, segment.tokens) == ("zh-en", (97,))


CONDITIONED = LongformOptions(condition_on_previous_text=True)


def test_previous_text_comes_with_its_timestamps_and_without_the_unfinished_piece() -> None:
    script = Script(answer((0, 2, "ab"), (2, 4, "c"), resume=4, tail=(STAMP + 200, 120)), answer((0, 1, "d")))
    run(Audio(34), script, CONDITIONED)
    assert script.prompts[0] == ()
    assert script.prompts[1] == (STAMP, 97, 98, STAMP + 100, STAMP + 100, 99, STAMP + 200)


def test_previous_text_adds_up_to_half_a_context() -> None:
    script = Script(*[answer((0, 30, "abcdefgh" * 10), resume=None) for _ in range(5)])
    run(Audio(150), script, CONDITIONED)
    assert [len(p) for p in script.prompts] == [0, 82, 164, 223, 223]
    assert script.prompts[3][-1] == STAMP + 1500


def test_a_stray_timestamp_inside_a_piece_costs_only_the_timestamps() -> None:
    stray = replace(answer((0, 30, "ab")), tokens=(97, STAMP + 3, 98))
    script = Script(stray, answer((0, 1, "c")))
    run(Audio(34), script, CONDITIONED)
    assert script.prompts[1] == (97, 98)


def test_previous_text_is_dropped_after_a_high_temperature_or_when_not_wanted() -> None:
    windows = [answer((0, 30, "a")), answer((0, 30, "b"), temperature=0.6), answer((0, 30, "c"))]
    script = Script(*windows)
    run(Audio(90), script, CONDITIONED)
    assert [len(p) for p in script.prompts] == [0, 3, 0]
    script = Script(*windows)
    run(Audio(90), script)
    assert script.prompts == [(), (), ()]


def test_skipped_silence_keeps_the_previous_text() -> None:
    script = Script(answer((0, 30, "a")), answer((0, 3, "x"), logprob=-2, silence=0.9), answer((0, 30, "b")))
    run(Audio(90), script, CONDITIONED)
    assert script.prompts[2] == script.prompts[1] == (STAMP, 97, STAMP + 1500)


def test_progress_reaches_the_end() -> None:
    told: list[float] = []
    run(Audio(65), Script(answer((0, 5, "a"), resume=5)), progress=told.append)
    assert told == [5, 35, 65]


def test_a_failing_transcriber_is_not_hidden() -> None:
    with pytest.raises(ModelError, match="gone"):
        run(Audio(10), Script(ModelError("gone")))


PIECES = st.lists(st.tuples(st.floats(0, 31), st.floats(0, 31), st.sampled_from(["a", "好", " ", ""])), max_size=6)
WINDOWS = st.lists(st.tuples(PIECES, st.none() | st.floats(-1, 31), st.floats(-2, 0), st.floats(0, 1)), max_size=12)


@settings(max_examples=200)
@given(seconds=st.floats(0, 95), windows=WINDOWS, condition=st.booleans())
def test_whatever_the_model_says_segments_are_in_order(
    seconds: float, windows: list[tuple[list[tuple[float, float, str]], float | None, float, float]], condition: bool
) -> None:
    results = [answer(*p, resume=r, logprob=lp, silence=s) for p, r, lp, s in windows]
    audio = Audio(seconds)
    segments = run(audio, Script(*results), LongformOptions(condition_on_previous_text=condition))
    edges = [0.0, *(edge for s in segments for edge in (s.start_s, s.end_s)), seconds + 0.001]
    assert edges == sorted(edges)
    assert all(s.end_s > s.start_s and s.text.strip() for s in segments)


def test_windows_begin_behind_pauses_that_were_laid_open() -> None:
    """2.0034 s of digital silence, then sound: the window begins at 2.0 s, on the grid of Whisper's timestamps."""
    sound = np.ones(32_000, np.int16)
    samples = np.concatenate([np.zeros(32_055, np.int16), sound, np.zeros(480_000 * 2, np.int16), sound])

    class Pauses(Audio):
        def read(self, start: int, stop: int) -> Samples:
            super().read(start, stop)
            return samples[start:stop]

    async def starts(*, skip_pauses: bool) -> list[float]:
        audio = Pauses(len(samples) / SAMPLE_RATE_HZ)
        script = Script(*[answer((0.0, 1.0, " a"))] * 9)
        stream = transcribe(audio, script, OPTIONS, total_samples=len(samples), skip_pauses=skip_pauses)
        return [segment.start_s async for segment in stream]

    skipped = asyncio.run(starts(skip_pauses=True))
    assert skipped[0] == 2.0
    assert skipped[-1] == pytest.approx(64.0, abs=0.021)
    assert len(skipped) == 2
    assert asyncio.run(starts(skip_pauses=False))[0] == 0.0

"""Rescoring: which text a chunk gets, and how it is divided among the chunk's segments."""

import asyncio
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakes import TEACHER, samples, segment
from weights import open_base

from k2d import audio
from k2d.errors import BadRequest
from k2d.inference.batcher import MicroBatcher
from k2d.labeling.rescore import Rescorer, RescoringCandidate, divide, loops, relabeled
from k2d.schema import TEACHER as TEACHER_TEXT
from k2d.schema import Chunk, DecodeOptions, TextScore, Window, WindowResult
from k2d.text.reading import read

LABEL, BETTER, WORSE = "我門先來 review 這個問題", "我們先來 review 這個問題", "你們去 reveal 這個問題"
LOOP = "謝謝大家收看" * 12
TEXTS = st.text("今天我們 ab,。'x", max_size=40)
SPOKEN = TEXTS.filter(str.strip)


class Teacher:
    """A transcriber with given texts for the two second decodes, and a given total score for each text."""

    model = TEACHER

    def __init__(self, texts: Mapping[int, str], totals: Callable[[str], float]) -> None:
        self.texts, self.totals = texts, totals  # by beam size
        self.decodes: list[DecodeOptions] = []

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.decodes.append(options)
        return result(self.texts[options.beam_size])

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        total = self.totals(text)
        if math.isinf(total):
            raise BadRequest("longer than the context")
        return TextScore((1, 2), (total / 2, total / 2), total / 2)

    async def close(self) -> None:
        return None


def result(text: str) -> WindowResult:
    return WindowResult(text, (), (), None, -0.2, 0.0, 1.0, 0.0, "zh-en")


def chunk_of(*texts: str, avg_logprob: float = -0.6) -> Chunk:
    segments = [dataclasses.replace(segment(2.0 * n, 2.0 * n + 2, text)) for n, text in enumerate(texts)]
    return Chunk(0, tuple(dataclasses.replace(value, avg_logprob=avg_logprob) for value in segments))


def chosen(chunk: Chunk, texts: Mapping[int, str], totals: Callable[[str], float]) -> Chunk:
    rescorer = Rescorer(Teacher(texts, totals), DecodeOptions(beam_size=5))
    return asyncio.run(rescorer.choose(chunk, samples(chunk.duration_s)))


# ---- the choice ----------------------------------------------------------------------------------------------------


def test_the_most_probable_text_is_taken_and_says_where_it_comes_from() -> None:
    chunk = chosen(chunk_of(LABEL), {5: WORSE, 1: BETTER}, {LABEL: -9.0, WORSE: -12.0, BETTER: -6.0}.__getitem__)
    assert chunk.text == BETTER
    (rescored,) = chunk.segments
    assert (rescored.origin, rescored.teacher_text, rescored.tokens) == ("second decode, beam 1", LABEL, ())
    assert (rescored.start_s, rescored.end_s, rescored.avg_logprob) == (0.0, 2.0, -0.2)


def test_the_label_stays_where_it_is_as_probable() -> None:
    chunk = chunk_of(LABEL)
    assert chosen(chunk, {5: BETTER, 1: WORSE}, lambda _: -6.0) == chunk
    assert chunk.segments[0].origin == TEACHER_TEXT


def test_a_sure_label_is_not_decoded_again_and_a_repeated_one_only_once() -> None:
    for avg_logprob, decodes in ((-0.1, []), (-0.6, [5])):
        teacher = Teacher({5: LABEL + "。", 1: BETTER}, lambda _: pytest.fail("scored"))
        chunk = chunk_of(LABEL, avg_logprob=avg_logprob)
        assert asyncio.run(Rescorer(teacher, DecodeOptions(beam_size=5)).choose(chunk, samples(2.0))) == chunk
        assert [options.beam_size for options in teacher.decodes] == decodes


@pytest.mark.parametrize("text", [LOOP, "", " … "])
def test_a_loop_or_nothing_is_never_taken(text: str) -> None:
    chunk = chunk_of(LABEL)
    assert chosen(chunk, {5: text, 1: text}, lambda scored: -9.0 if scored == LABEL else -0.1) == chunk


def test_a_text_that_skips_a_sentence_is_not_taken() -> None:
    label = "我們先來看這個問題，然後再看 gradient descent 的部分"
    skips, complete = "我們先來看這個問題", "我們先來看這個問題，然後再看 gradient descent 部分"
    totals = {label: -9.0, skips: -2.0, complete: -8.0}.__getitem__
    assert chosen(chunk_of(label), {5: skips, 1: skips}, totals).text == label
    assert chosen(chunk_of(label), {5: skips, 1: complete}, totals).text == complete


def test_a_looping_label_gives_way_however_probable_it_is() -> None:
    assert chosen(chunk_of(LOOP), {5: BETTER, 1: LOOP}, lambda scored: -0.1 if scored == LOOP else -9.0).text == BETTER
    assert chosen(chunk_of(LOOP, avg_logprob=-0.1), {5: BETTER, 1: WORSE}, lambda _: -math.inf).text in (BETTER, WORSE)


@given(label=TEXTS, beams=TEXTS, greedy=TEXTS, seed=st.integers(0, 9))
def test_what_is_taken_is_the_label_or_more_probable(label: str, beams: str, greedy: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    totals = {text: -float(random.integers(1, 20)) for text in sorted({label.strip(), beams, greedy})}
    chunk = chunk_of(label)
    taken = chosen(chunk, {5: beams, 1: greedy}, totals.__getitem__)
    if taken != chunk:
        assert taken.text in (beams.strip(), greedy.strip())
        assert not loops(taken.text)
        assert loops(chunk.text) or max(totals[beams], totals[greedy]) > totals[chunk.text]


# ---- dividing a text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts", "expected"),
    [
        ("今天我們 review 一下上次", ["今天我門", " review一下"], ["今天我們", " review 一下上次"]),
        ("So, 我們開始。 Next topic", ["所以我們開始", " next topics"], ["So, 我們開始。", " Next topic"]),
        ("gradient descent 的部分", ["的部分"], ["gradient descent 的部分"]),
        ("完全不同", ["Hello there", " my friend"], ["完全", "不同"]),
        ("只有後面", ["什麼", "只有後面"], ["", "只有後面"]),
    ],
)
def test_a_text_is_divided_at_corresponding_places(text: str, parts: list[str], expected: list[str]) -> None:
    assert divide(text, parts) == expected


@given(text=TEXTS, parts=st.lists(TEXTS, min_size=1, max_size=5))
def test_parts_joined_are_the_text(text: str, parts: list[str]) -> None:
    divided = divide(text, parts)
    assert len(divided) == len(parts)
    assert "".join(divided) == text.rstrip()


@given(text=SPOKEN, parts=st.lists(SPOKEN, min_size=1, max_size=5))
def test_a_rescored_chunk_has_the_same_span_and_no_empty_segment(text: str, parts: list[str]) -> None:
    chunk = chunk_of(*parts)
    taken = relabeled(chunk, RescoringCandidate("second decode, beam 5", result(text)))
    assert (taken.start_s, taken.end_s) == (chunk.start_s, chunk.end_s)
    assert read(taken.text).tokens == read(text).tokens
    assert all(left.end_s <= right.start_s for left, right in zip(taken.segments, taken.segments[1:], strict=False))
    assert "".join(value.teacher_text or value.text for value in taken.segments) == "".join(parts)


def test_a_segment_without_a_word_joins_its_neighbour() -> None:
    chunk = relabeled(
        chunk_of("什麼", "只有後面", "好"), RescoringCandidate("second decode, beam 5", result("只有後面"))
    )
    (only,) = chunk.segments
    assert (only.start_s, only.end_s, only.text, only.teacher_text) == (0.0, 6.0, "只有後面", "什麼只有後面好")


# ---- with a model --------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_with_whisper_the_text_taken_is_no_less_probable(examples: Path) -> None:
    options = DecodeOptions(beam_size=5)
    plain = dataclasses.replace(options, without_timestamps=True, short_context=True)

    clips = []
    for path in sorted(examples.glob("cs-*.flac")):
        with audio.SampleReader(path) as reader:
            clips.append(reader.read(0, 480_000))

    async def compare() -> None:
        teacher = MicroBatcher(open_base(), batch_size=4)
        try:
            for clip in clips:
                window = Window(clip)
                label = (await teacher.transcribe(window, options)).text
                spoken = Chunk(0, (dataclasses.replace(segment(0.0, len(clip) / 16_000, label), avg_logprob=-1.0),))
                taken = await Rescorer(teacher, options).choose(spoken, clip)
                before, after = [await teacher.score(window, chunk.text, plain) for chunk in (spoken, taken)]
                assert math.fsum(after.logprobs) >= math.fsum(before.logprobs)
                assert (taken.segments[0].origin == TEACHER_TEXT) == (taken == spoken)
        finally:
            await teacher.close()

    asyncio.run(compare())

"""Validators and the stage that runs them: what each transcribes, what is never done twice, whose values are whose."""

import asyncio
import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import TEACHER, put_recording, recording, samples, segment

from k2d.errors import BadRequest, ModelError
from k2d.labeling.validate import Validation
from k2d.schema import Chunk, DecodeOptions, Hypothesis, LongformOptions, TextScore, Window, WindowResult
from k2d.store import Lake
from k2d.validators.model import ModelValidator
from k2d.validators.perturb import PERTURBATIONS
from k2d.validators.protocol import Validators, hypotheses_key, mean_by_segment
from k2d.validators.second_decode import SecondDecode

SMALL = dataclasses.replace(TEACHER, reference="a/small", digest="5" * 64)
LABEL, NEAR, FAR = "我們先來看這個問題", "我們先來看那個問題", "天氣很好所以出門散步"
SPANS = [(0.0, 3.0), (3.0, 5.0), (5.0, 9.0)]


class Speaker:
    """A transcriber that says what a function makes of each call, and counts the calls."""

    def __init__(self, says: Callable[[DecodeOptions, int], str], *, model=SMALL, refuses: bool = False) -> None:
        self.says, self.model, self.refuses = says, model, refuses
        self.decodes: list[DecodeOptions] = []
        self.scored: list[str] = []

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.decodes.append(options)
        text = self.says(options, len(window.samples))
        return WindowResult(text, (), (), None, -0.4, 0.0, 1.0, 0.0, options.language)

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        self.scored.append(text)
        if self.refuses:
            raise BadRequest("longer than the context")
        return TextScore((1,) * 6, (-0.1, -0.2, -0.3, -1.0, -2.0, -3.0), -1.1)

    async def close(self) -> None:
        return None


def validated(validator, chunk: Chunk, before: tuple[Hypothesis, ...] = ()) -> tuple[Hypothesis, ...]:
    return asyncio.run(validator.validate(chunk, samples(chunk.duration_s), before, recording_id="rec_1"))


# ---- values of segments -------------------------------------------------------------------------------------------

_LOGPROBS = st.lists(st.floats(-16.0, 0.0), min_size=1, max_size=60)


@settings(max_examples=60)
@given(logprobs=_LOGPROBS, cuts=st.lists(st.integers(1, 59), max_size=5))
def test_scores_add_up_where_token_counts_do(logprobs: list[float], cuts: list[int]) -> None:
    places = [0, *sorted({cut for cut in cuts if cut < len(logprobs)}), len(logprobs)]
    counts = [end - start for start, end in pairwise(places)]
    segments = [dataclasses.replace(segment(0.0, 1.0), tokens=(7,) * count) for count in counts]
    scores = mean_by_segment(logprobs, segments)
    total = math.fsum(count * score for count, score in zip(counts, scores, strict=True))
    assert total == pytest.approx(math.fsum(logprobs), abs=1e-4 * len(logprobs))


@settings(max_examples=60)
@given(logprobs=_LOGPROBS, counts=st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_every_segment_has_a_score_within_those_of_the_tokens(logprobs: list[float], counts: list[int]) -> None:
    segments = [dataclasses.replace(segment(0.0, 1.0, "我" * count), tokens=()) for count in counts]
    scores = mean_by_segment(logprobs, segments)
    if not any(counts):
        assert scores == ()
        return
    assert len(scores) == len(counts)
    assert all(min(logprobs) - 1e-4 <= score <= max(logprobs) + 1e-4 for score in scores)


def test_no_tokens_no_scores() -> None:
    assert mean_by_segment((), [segment(0.0, 1.0)]) == ()


# ---- one validator -------------------------------------------------------------------------------------------------


def test_a_model_decodes_the_chunk_once_and_scores_the_label() -> None:
    chunk = Chunk(0, (segment(0.0, 1.0, " 我們"), segment(1.0, 2.0, " use Kafka")))  # three tokens each
    speaker = Speaker(lambda *_: "我們 use cough")
    (written,) = validated(ModelValidator(speaker, "zh-en"), chunk)
    expected_token_errors = tuple(
        round(sum(1 - math.exp(one) for one in part) / 3, 4) for part in ((-0.1, -0.2, -0.3), (-1.0, -2.0, -3.0))
    )
    assert written == Hypothesis(
        "model:a/small", "as is", "我們 use cough", -0.4, (-0.2, -2.0), expected_token_errors=expected_token_errors
    )
    assert speaker.scored == ["我們 use Kafka"]
    assert speaker.decodes[0].temperatures == (0.0,)


def test_perturbed_audio_is_transcribed_in_every_perturbation() -> None:
    chunk = Chunk(0, (segment(0.0, 1.12, LABEL),))
    transcribed = validated(ModelValidator(Speaker(lambda _, n: f"{n}"), "zh-en", PERTURBATIONS), chunk)
    assert [(one.validator, one.perturbation, one.text) for one in transcribed] == [
        ("perturbed:a/small", "speed 1.12", "16000"),
        ("perturbed:a/small", "band 300-3400 Hz", "17920"),
    ]


@pytest.mark.parametrize(("text", "refuses"), [(LABEL * 60, True), ("", False), (" ", False)])
def test_a_label_that_cannot_be_scored_has_no_scores(text: str, refuses: bool) -> None:
    speaker = Speaker(lambda *_: NEAR, refuses=refuses)
    (written,) = validated(ModelValidator(speaker, "zh-en"), Chunk(0, (segment(0.0, 1.0, text),)))
    assert written.forced_logprobs == ()
    assert written.text == NEAR


def hypotheses(*texts: str) -> tuple[Hypothesis, ...]:
    return tuple(Hypothesis("perturbed:x", f"perturbation {i}", text, -0.4) for i, text in enumerate(texts))


@pytest.mark.parametrize(
    ("label", "texts", "wanted"),
    [
        (LABEL, (LABEL, LABEL), False),
        (LABEL, (LABEL, NEAR), False),  # one sound of many
        (LABEL, (FAR, FAR), True),  # contradicted
        (LABEL, (LABEL, FAR), True),  # they contradict one another
        (LABEL, ("謝謝大家收看" * 9,) * 2, True),  # all loop
        ("", (FAR, FAR), False),  # nothing that could be confirmed
    ],
)
def test_a_second_decode_wants_what_is_unresolved(label: str, texts: tuple[str, ...], wanted: bool) -> None:
    validator = SecondDecode(Speaker(lambda *_: ""), "zh-en", ())
    assert validator.wants(Chunk(0, (segment(0.0, 2.0, label),)), hypotheses(*texts)) is wanted


def test_a_second_decode_decodes_otherwise_than_the_label_was() -> None:
    speaker = Speaker(lambda options, _: options.language)
    validator = SecondDecode(speaker, "zh-en", ())
    mandarin = validated(validator, Chunk(0, (segment(0.0, 2.0, LABEL),)), hypotheses(FAR))
    assert [(one.perturbation, one.text) for one in mandarin] == [("language zh", "zh"), ("fallback", "zh-en")]
    english = validated(validator, Chunk(0, (segment(0.0, 2.0, "the deadline is Friday 五"),)), hypotheses(FAR))
    assert [one.perturbation for one in english] == ["language en", "fallback"]
    assert not speaker.scored
    assert all(one.temperatures == (0.0,) or 0.0 not in one.temperatures for one in speaker.decodes)


def test_a_second_decode_depends_on_the_validators_before_it() -> None:
    speaker = Speaker(lambda *_: LABEL)
    one, other = (ModelValidator(speaker, "zh-en", perturbations) for perturbations in ((), PERTURBATIONS))
    assert SecondDecode(speaker, "zh-en", (one.key,)).key != SecondDecode(speaker, "zh-en", (other.key,)).key


# ---- the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    put_recording(lake, 1, SPANS)
    return lake


def validate(lake: Lake, validators: Validators, facts_key: str) -> None:
    described = recording(1, 10.0)
    label_key = f"01abel{1:026x}"
    run = Validation(lake, validators, max_chunks=2).run(
        described, label_key=label_key, facts_key=facts_key, options=LongformOptions(), teacher=TEACHER
    )
    asyncio.run(run)


def test_a_second_validator_costs_the_first_nothing(lake: Lake) -> None:
    small = Speaker(lambda *_: FAR)
    validate(lake, Validators(ModelValidator(small, "zh-en")), "alone")
    assert len(small.decodes) == len(small.scored) == len(SPANS)
    perturbed = Speaker(lambda *_: FAR, model=TEACHER)
    both = Validators(ModelValidator(small, "zh-en"), (ModelValidator(perturbed, "zh-en", PERTURBATIONS),))
    validate(lake, both, "both")
    assert len(small.decodes) == len(SPANS)
    assert len(perturbed.decodes) == len(PERTURBATIONS) * len(SPANS)
    row = lake.facts.read("both")[0]
    assert row.validators == "model:a/small+perturbed:packaged:whisper-base"
    assert [one.perturbation for one in row.hypotheses] == [
        "as is",
        *(perturbation.name for perturbation in PERTURBATIONS),
    ]
    assert row.distances == lake.facts.read("alone")[0].distances  # the paper's come from the first alone
    assert lake.facts.meta("both")["hypotheses"] == [hypotheses_key(f"01abel{1:026x}", one) for one in both]


def test_facts_are_made_of_stored_hypotheses_byte_for_byte(lake: Lake) -> None:
    validators = Validators(ModelValidator(Speaker(lambda *_: FAR), "zh-en"))
    validate(lake, validators, "first")
    before = Path(lake.files.full("facts/fi/first.parquet")).read_bytes()
    Path(lake.files.full("facts/fi/first.parquet")).unlink()
    validate(lake, Validators(ModelValidator(Speaker(lambda *_: pytest.fail("decoded again")), "zh-en")), "first")
    assert Path(lake.files.full("facts/fi/first.parquet")).read_bytes() == before


def test_a_second_decode_gets_only_the_unresolved(lake: Lake) -> None:
    labels = [chunk.text for chunk, _ in lake.labels.read(f"01abel{1:026x}")]
    texts = {48_000: labels[0], 32_000: FAR, 64_000: labels[2]}  # by length: which chunk comes first is open
    teacher = Speaker(lambda *_: NEAR, model=TEACHER)
    first = ModelValidator(Speaker(lambda _, n: texts[n]), "zh-en")
    validate(lake, Validators(first, (SecondDecode(teacher, "zh-en", (first.key,)),)), "second")
    assert [len(row.hypotheses) for row in lake.facts.read("second")] == [1, 3, 1]
    assert len(teacher.decodes) == 2


def test_a_validator_that_fails_leaves_nothing_and_keeps_what_others_wrote(lake: Lake) -> None:
    def broken(*_: object) -> str:
        raise ModelError("gone")

    small = Speaker(lambda *_: FAR)
    validators = Validators(
        ModelValidator(small, "zh-en"), (ModelValidator(Speaker(broken, model=TEACHER), "zh-en", PERTURBATIONS),)
    )
    with pytest.raises(ModelError, match="gone"):
        validate(lake, validators, "facts")
    assert not lake.facts.has("facts")
    stored = [lake.hypotheses.has(hypotheses_key(f"01abel{1:026x}", one)) for one in validators]
    assert stored == [True, False]

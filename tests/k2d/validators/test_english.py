"""An English-only Whisper as a validator: what it judges, and what of its hypotheses counts."""

import asyncio
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import segment
from weights import cache

from k2d.errors import BadRequest, ModelError
from k2d.filtering.evidence import ChunkTexts, weigh, weigh_many
from k2d.filtering.evidence.english import english_share
from k2d.inference.batcher import MicroBatcher
from k2d.inference.golden import clips
from k2d.schema import Chunk, DecodeOptions, Evidence, Hypothesis, Window
from k2d.validators import models_of, served, validators_of
from k2d.validators.english import EnglishValidator
from k2d.whisper.engine import Engine
from k2d.whisper.load import open_engine
from k2d.whisper.packaged import MODELS

TINY = "packaged:whisper-tiny.en"


def english(text: str) -> Hypothesis:
    return Hypothesis("english:tiny.en", "as is", text, -0.4)


def whole(text: str) -> Hypothesis:
    return Hypothesis("model:small", "as is", text, -0.4)


def alone(label: str, text: str) -> Evidence:
    return weigh([segment(0.0, 3.0, label)], [english(text)]).evidence


# ---- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, "openai/whisper-small.en", "/models/tiny.en", "./base.en"])
def test_names_of_english_only_models_end_in_en(name: str) -> None:
    assert validators_of(f"perturbed+{name}") == ("perturbed", name)
    assert models_of(f"perturbed+{name}") == (name,)
    assert served(f"a/small+{name}") == "a/small"  # no server has it
    with pytest.raises(BadRequest, match="judges English words only"):
        validators_of(f"{name}+perturbed")


def test_an_address_is_no_english_only_model() -> None:
    assert validators_of("http://gpu.en") == ("http://gpu.en",)


# ---- what is judged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "some", "throughout"),
    [
        ("今天天氣很好", False, False),
        ("我們 use Kafka", True, False),
        ("We use Kafka.", True, True),
        ("we have 3 items", True, True),
        ("我有 3 個", False, False),
        ("2026", False, False),
        ("", False, False),
        ("こんにちは hello", True, False),
    ],
)
def test_english_words_are_judged_and_numbers_among_them(label: str, some: bool, throughout: bool) -> None:
    share = english_share(label)
    assert (share.some, share.throughout) == (some, throughout)


@pytest.mark.parametrize(
    ("label", "text", "disagreement"),
    [
        ("今天 meeting 很長", "jin tian meeting hen chang", 0.0),  # what it makes of Mandarin is no edit
        ("今天 meeting 很長", "meeting", 0.0),
        ("今天 meeting 很長", "", 1.0),
        ("先 review 一下 deadline", "review yee shah deadline", 0.0),
        ("先 review 一下 deadline", "review", 0.5),
        ("今天天氣很好", "the weather is nice", 0.0),  # nothing to judge
        ("We use Kafka", "We use Kafka", 0.0),
        ("We use Kafka", "We use Kafka today", 0.25),  # throughout English: what it adds counts
        ("we have 3 items", "we have three items", 0.0),
        (
            "meeting 很長 很長 很長 很長",
            "meeting meeting meeting meeting meeting meeting meeting meeting",
            0.0,
        ),  # a loop
    ],
)
def test_only_english_words_are_compared(label: str, text: str, disagreement: float) -> None:
    assert alone(label, text).disagreement_middle == pytest.approx(disagreement, abs=1e-3)


def test_in_a_mixed_label_it_counts_for_english_alone() -> None:
    label = [segment(0.0, 3.0, "今天 meeting 很長")]
    other = whole("今天 meeting 很短")
    before, after = weigh(label, [other]).evidence, weigh(label, [other, english("song")]).evidence
    changed = {f.name for f in dataclasses.fields(Evidence) if getattr(before, f.name) != getattr(after, f.name)}
    assert changed == {"en_error"}  # it cannot say how far it is from the whole label
    assert after.en_error == pytest.approx(0.5)  # median of 0 and 1


def test_in_an_english_label_it_counts_as_any_other() -> None:
    label, texts = [segment(0.0, 3.0, "We use Kafka")], ("We use Kafka", "We use cough")
    mine, others = (weigh(label, [whole(texts[0]), kind(texts[1])]).evidence for kind in (english, whole))
    assert mine == others


def test_segments_are_judged_by_themselves() -> None:
    label = [segment(0.0, 2.0, "我們先看這個。"), segment(2.0, 4.0, " We use Kafka.")]
    hypotheses = [whole("我們先看那個。 We use Kafka."), english("women xian kan We use coffee")]
    han, latin = weigh(label, hypotheses).segment_evidence
    assert han == weigh(label, hypotheses[:1]).segment_evidence[0]
    assert latin.disagreement_least == 0.0
    assert latin.disagreement_most == pytest.approx(1 / 3, abs=1e-3)


_TEXT = st.lists(st.sampled_from(["今", "天", "很", "好", "meeting", "deadline", "use", "3", "two"]), max_size=8)


@settings(max_examples=80, deadline=None)
@given(label=_TEXT, text=_TEXT, other=_TEXT)
def test_it_changes_nothing_but_what_it_judges(label: list[str], text: list[str], other: list[str]) -> None:
    spans = [segment(0.0, 3.0, " ".join(label))]
    hypotheses = [whole(" ".join(other)), english(" ".join(text))]
    before, after = weigh(spans, hypotheses[:1]).evidence, weigh(spans, hypotheses).evidence
    share = english_share(" ".join(label))
    if not share.some:
        assert after == before
    elif not share.throughout:
        assert dataclasses.replace(after, en_error=before.en_error) == before
    assert 0.0 <= after.en_error <= 1.0
    assert 0.0 <= alone(" ".join(label), " ".join(text)).disagreement_middle <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(_TEXT, _TEXT, _TEXT), min_size=1, max_size=5))
def test_many_are_weighed_as_each_by_itself(rows: list[tuple[list[str], list[str], list[str]]]) -> None:
    chunks = [
        ChunkTexts([segment(0.0, 3.0, " ".join(label))], [whole(" ".join(other)), english(" ".join(text))])
        for label, text, other in rows
    ]
    assert weigh_many(chunks) == [weigh(chunk.segments, chunk.hypotheses) for chunk in chunks]


# ---- the real model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        engine = open_tiny(english_only=True)
    except ModelError as error:
        pytest.skip(f"no weights: {error.message}")
    yield engine
    engine.close()


def open_tiny(engine: str = "ctranslate2", **options: bool) -> Engine:
    return open_engine(
        TINY,
        engine=engine,
        device="cpu",
        compute_type="auto",
        threads=1,
        cache=cache(),
        allow_downloads=True,
        **options,
    )


def validated(engine: Engine, label: str, samples: np.ndarray) -> Hypothesis:
    chunk = Chunk(0, (segment(0.0, 5.0, label),))

    async def run() -> tuple[Hypothesis, ...]:
        validator = EnglishValidator(MicroBatcher(engine, batch_size=4))
        return await validator.validate(chunk, samples, (), recording_id="rec_1")

    return asyncio.run(run())[0]


def clip(language: str):
    return next(clip for clip in clips() if clip.language == language)


@pytest.mark.integration
def test_tiny_en_transcribes_english_and_scores_it(engine: Engine) -> None:
    hypothesis = validated(engine, clip("en").text, clip("en").samples)
    assert hypothesis.validator == f"english:{TINY}"
    assert hypothesis.is_english_only
    assert weigh([segment(0.0, 5.0, clip("en").text)], [hypothesis]).evidence.disagreement_middle < 0.2
    (logprob,) = hypothesis.forced_logprobs
    (wrong,) = validated(engine, "The cat sat on a completely different mat", clip("en").samples).forced_logprobs
    assert wrong < logprob - 1.0


@pytest.mark.integration
def test_tiny_en_gives_a_mixed_label_no_score(engine: Engine) -> None:
    hypothesis = validated(engine, clip("zh-en").text, clip("zh-en").samples)
    assert hypothesis.forced_logprobs == ()


@pytest.mark.integration
def test_an_english_only_model_refuses_other_languages(engine: Engine) -> None:
    window = Window(clip("en").samples)
    for options in (DecodeOptions(language="zh"), DecodeOptions(), DecodeOptions(language="en", task="translate")):
        with pytest.raises(BadRequest, match="English-only"):
            engine.transcribe([window], options)


@pytest.mark.integration
def test_an_english_only_model_labels_nothing(engine: Engine) -> None:
    with pytest.raises(ModelError, match="is an English-only Whisper") as error:
        open_tiny()
    assert "validator" in str(error.value.hint)


@pytest.mark.integration
@pytest.mark.torch
def test_both_engines_transcribe_english_alike(engine: Engine) -> None:
    pytest.importorskip("torch")
    reference = open_tiny("transformers", english_only=True)
    window, options = Window(clip("en").samples), DecodeOptions(language="en", temperatures=(0.0,))
    (ours,), (theirs,) = engine.transcribe([window], options), reference.transcribe([window], options)
    assert ours.text == theirs.text
    (a,), (b,) = (each.score([window], [clip("en").text], options) for each in (engine, reference))
    assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=0.1)


def test_packaged_models_are_known_by_name() -> None:
    assert set(MODELS) == {"packaged:whisper-base", TINY}

"""The golden clips are there, are speech, and judge an engine."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from k2d.errors import ModelError
from k2d.inference import golden
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.text.tokens import count_scripts
from k2d.whisper.load import open_engine

HEARD = WindowResult("a b", (), (), None, -0.2, 0.0, 1.0, 0.0, "zh-en")


class Ear:
    """An engine that hears what it is told."""

    def __init__(self, *results: WindowResult) -> None:
        self.results = list(results)
        self.model = ModelInfo("folder/model", "0" * 64, "ctranslate2", "int8", "cpu")

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None: ...

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        assert options.temperatures == (0.0,)
        assert all(1 < len(window.samples) / 16_000 < 10 and not window.prompt for window in windows)
        return self.results[: len(windows)]

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        raise AssertionError("readiness does not score")

    def close(self) -> None: ...


def test_the_clips_are_short_speech_of_each_kind() -> None:
    found = golden.clips()
    assert [clip.language for clip in found] == ["zh-en", "zh", "en"]
    assert sum(len(clip.samples) for clip in found) < 15 * 16_000, "start-up waits for them"
    for clip in found:
        assert clip.samples.dtype == np.int16
        assert 0.1 < np.abs(clip.samples.astype(float)).max() / 2**15 < 1.0
        chinese, latin = count_scripts(clip.text)
        assert bool(chinese) == ("zh" in clip.language)
        assert bool(latin) == ("en" in clip.language)


def test_callers_cannot_spoil_the_shared_samples() -> None:
    with pytest.raises(ValueError, match="read-only"):
        golden.windows()[0][0].samples[0] = 1


def test_the_readme_beside_the_clips_names_their_source_and_licence() -> None:
    text = (importlib.resources.files("k2d.inference") / "golden" / "README.md").read_text("utf-8")
    assert "Kokoro-82M" in text
    assert "Apache-2.0" in text


def test_what_was_heard_is_returned() -> None:
    texts = [clip.text for clip in golden.clips()]
    assert golden.check(Ear(*(replace(HEARD, text=f" {text}") for text in texts))) == " / ".join(texts)
    assert golden.error_rate(texts) == 0.0


def test_script_case_and_punctuation_do_not_count() -> None:
    said = [
        "我周末想要去 ikea 买一张新的 Desk 你要不要一起去",
        golden.clips()[1].text.rstrip("。"),
        golden.clips()[2].text.upper(),
    ]
    assert golden.error_rate(said) == 0.0


def test_a_model_that_writes_other_things_is_refused_unless_that_is_asked_for() -> None:
    with pytest.raises(ModelError, match="error rate") as caught:
        golden.check(Ear(HEARD, HEARD, HEARD))
    assert "K2D_GOLDEN" in str(caught.value.hint)
    assert golden.check(Ear(HEARD, HEARD, HEARD), must_match=False) == "a b / a b / a b"
    wrong = [clip.text for clip in golden.clips()]
    wrong[0] = "谢谢观看"  # one clip in three: still at most half
    assert golden.check(Ear(*(replace(HEARD, text=text) for text in wrong)))
    wrong[1] = "谢谢观看"
    with pytest.raises(ModelError, match="error rate"):
        golden.check(Ear(*(replace(HEARD, text=text) for text in wrong)))


@given(st.lists(st.text("ab", max_size=6), min_size=3, max_size=3))
def test_the_distance_is_rapidfuzz_s(texts: list[str]) -> None:
    for text in texts:
        assert golden._distance(texts[0], text) == Levenshtein.distance(texts[0], text)


@pytest.mark.torch
def test_a_model_of_random_weights_is_not_fit_to_serve(tmp_path: Path) -> None:
    from tiny import tiny_teacher

    engine = open_engine(
        str(tiny_teacher(tmp_path / "random")),
        engine="transformers",
        device="cpu",
        compute_type="auto",
        threads=1,
        cache=tmp_path / "cache",
        allow_downloads=False,
    )
    with pytest.raises(ModelError, match="not fit to serve"):
        golden.check(engine)
    assert golden.check(engine, must_match=False)
    engine.close()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (replace(HEARD, text="  "), "transcribes nothing in mandarin.flac"),
        (replace(HEARD, avg_logprob=float("nan")), "nan as log-probability of mandarin.flac"),
        (replace(HEARD, avg_logprob=float("-inf")), "-inf as log-probability"),
    ],
)
def test_an_engine_that_hears_nothing_is_refused(bad: WindowResult, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        golden.check(Ear(HEARD, bad, HEARD))
    assert "K2D_COMPUTE_TYPE" in str(caught.value.hint)

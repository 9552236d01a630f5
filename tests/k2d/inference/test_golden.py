"""The golden clips are there, are speech, and judge an engine."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from k2d.errors import ModelError
from k2d.inference import golden
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.text.tokens import count_scripts

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
    assert golden.check(Ear(HEARD, HEARD, HEARD)) == "a b / a b / a b"


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

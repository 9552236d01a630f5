"""Teacher-forced scores on real weights: against transformers computed plainly, between engines, in any company."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights import base, open_base

from k2d.errors import BadRequest, ModelError
from k2d.inference import golden
from k2d.schema import DecodeOptions, TextScore, Window
from k2d.whisper import scoring
from k2d.whisper.ct2_engine import CTranslate2Engine
from k2d.whisper.engine import Engine
from k2d.whisper.vocabulary import Vocabulary

pytestmark = pytest.mark.integration

OPTIONS = DecodeOptions(temperatures=(0.0,))
TRUTH = [text for _, text in golden.windows()]
WINDOWS = [window for window, _ in golden.windows()]
LEAST = round(float(np.log(scoring.FLOOR)), 4)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(base().path / "tokenizer.json")


# ---- the number itself --------------------------------------------------------------------------------------------


@cache
def plain_model() -> Any:
    import torch
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(base("transformers").path, dtype=torch.float32)


def plainly(window: Window, prompt: Sequence[int], tokens: Sequence[int], *, text_ids: int) -> list[float]:
    """log softmax over text tokens, with nothing of k2d: transformers' own model and features."""
    import torch
    from transformers import WhisperFeatureExtractor

    model = plain_model()
    features = WhisperFeatureExtractor()(window.samples / 2**15, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(features.input_features, decoder_input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    chosen = torch.log_softmax(logits[:, :text_ids], dim=-1)
    return [float(chosen[len(prompt) - 1 + n, token]) for n, token in enumerate(tokens)]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("previous", [(), (11, 220, 345, 1000)])
def test_a_score_is_the_log_softmax_of_each_token(
    exact: Engine, reference: Engine, vocabulary: Vocabulary, previous: tuple[int, ...]
) -> None:
    v = vocabulary
    for language, window, text in zip(("zh", "en"), WINDOWS[1:], TRUTH[1:], strict=True):
        window = replace(window, prompt=previous)
        prompt = [*((v.sot_prev, *previous) if previous else ()), v.sot, v.languages[language], v.transcribe]
        spelled = v.encode(text if language == "zh" else " " + text)
        expected = plainly(window, [*prompt, v.no_timestamps], spelled, text_ids=v.eot)
        for some in (exact, reference):
            [score] = some.score([window], [text], replace(OPTIONS, language=language))
            assert score.tokens == tuple(spelled)
            assert score.logprobs == pytest.approx(np.maximum(expected, LEAST).tolist(), abs=2e-3)
            assert score.avg_logprob == pytest.approx(np.mean(np.maximum(expected, LEAST)), abs=1e-3)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("language", ["zh-en", "auto"])
def test_the_engines_agree(exact: Engine, reference: Engine, language: str) -> None:
    options = replace(OPTIONS, language=language, initial_prompt="IKEA, desk")
    for a, b in zip(exact.score(WINDOWS, TRUTH, options), reference.score(WINDOWS, TRUTH, options), strict=True):
        assert a.tokens == b.tokens
        assert a.logprobs == pytest.approx(b.logprobs, abs=2e-3)
        assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=1e-3)


def test_what_the_model_wrote_is_about_as_likely_as_it_said(engine: Engine) -> None:
    results = engine.transcribe(WINDOWS, OPTIONS)
    for result, score in zip(results, engine.score(WINDOWS, [r.text for r in results], OPTIONS), strict=True):
        said = tuple(token for token in result.tokens if token < 50257)
        assert score.tokens == said, "the text came back as other tokens than it was made of"
        assert score.avg_logprob == pytest.approx(result.avg_logprob, abs=0.25)  # which has timestamps in it


def test_the_right_text_is_far_likelier_than_a_wrong_one(engine: Engine) -> None:
    right = engine.score(WINDOWS, TRUTH, OPTIONS)
    for wrong in (TRUTH[1:] + TRUTH[:1], ["謝謝大家收看"] * 3, ["Thank you for watching."] * 3):
        for good, bad in zip(right, engine.score(WINDOWS, wrong, OPTIONS), strict=True):
            assert good.avg_logprob > bad.avg_logprob + 1.0
    assert right[2].avg_logprob > -0.5


def test_the_prompt_matters(engine: Engine) -> None:
    """The term that the model mishears is likelier once it was named."""
    [plain] = engine.score(WINDOWS[:1], TRUTH[:1], OPTIONS)
    [told] = engine.score(WINDOWS[:1], TRUTH[:1], replace(OPTIONS, initial_prompt="我要去 IKEA"))
    assert told.tokens == plain.tokens
    assert told.avg_logprob > plain.avg_logprob
    assert max(b - a for a, b in zip(plain.logprobs, told.logprobs, strict=True)) > 5  # IKEA


def test_impossible_text_has_a_finite_score(engine: Engine) -> None:
    for score in engine.score([WINDOWS[2]] * 2, ["ﷺꙮ𒐫 \x00 ༺", "我" * 60], OPTIONS):
        assert all(LEAST <= logprob <= 0.0 for logprob in score.logprobs)
        assert len(score.logprobs) == len(score.tokens) > 0


def test_no_text_costs_nothing_and_says_nothing(engine: Engine) -> None:
    nothing = TextScore((), (), 0.0)
    assert engine.score([], [], OPTIONS) == []
    assert engine.score(WINDOWS[:2], ["", " \n"], OPTIONS) == [nothing, nothing]
    mixed = engine.score(WINDOWS, ["", TRUTH[1], ""], OPTIONS)
    assert [mixed[0], mixed[2]] == [nothing, nothing]
    assert [mixed[1]] == engine.score([WINDOWS[1]], [TRUTH[1]], OPTIONS)


# ---- company ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["zh-en", "auto"])
def test_neighbours_change_nothing(engine: Engine, language: str) -> None:
    """Bit for bit, also before rounding: the same pair alone, and among longer, shorter, empty and prompted ones."""
    options = replace(OPTIONS, language=language)
    pairs = [
        *zip(WINDOWS, TRUTH, strict=True),
        (WINDOWS[0], "嗯"),
        (WINDOWS[0], TRUTH[0] * 6),
        (WINDOWS[1], ""),
        (replace(WINDOWS[1], prompt=(5, 6, 7)), TRUTH[1]),
        (WINDOWS[2], TRUTH[2] + " What is a memory?"),
    ]
    alone = [engine.score([window], [text], options)[0] for window, text in pairs]
    together = engine.score([window for window, _ in pairs], [text for _, text in pairs], options)
    assert together == alone
    backwards = engine.score([window for window, _ in pairs[::-1]], [text for _, text in pairs[::-1]], options)
    assert backwards[::-1] == alone


def test_scoring_leaves_transcribing_alone(engine: Engine) -> None:
    before = engine.transcribe(WINDOWS, OPTIONS)
    engine.score(WINDOWS, TRUTH, OPTIONS)
    assert engine.transcribe(WINDOWS, OPTIONS) == before


# ---- edges --------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_the_context_is_filled_to_its_last_token_and_no_further(
    engine: Engine, reference: Engine, vocabulary: Vocabulary
) -> None:
    word = " a"
    assert len(vocabulary.encode(word)) == 1
    for some in (engine, reference):
        for prompt, room in (((), 443), ((5,) * 300, 219)):  # 448 less start (4), end (1), previous text (1 + 223)
            window = replace(WINDOWS[2], prompt=prompt)
            [score] = some.score([window], [word * room], OPTIONS)
            assert len(score.logprobs) == room
            with pytest.raises(BadRequest, match="context"):
                some.score([window], [word * (room + 1)], OPTIONS)


@pytest.mark.parametrize(
    ("windows", "texts", "options", "match"),
    [
        (WINDOWS[:2], TRUTH[:1], OPTIONS, "1 texts for 2 windows"),
        (WINDOWS[:1], ["你好<|en|>"], OPTIONS, "special token"),
        (WINDOWS[:1], ["<|endoftext|>"], OPTIONS, "special token"),
        (WINDOWS[:1], ["half \ud800"], OPTIONS, "Unicode"),
        (WINDOWS[:1], TRUTH[:1], replace(OPTIONS, language="tlh"), "language"),
        ([Window(np.zeros(480_001, np.int16))], TRUTH[:1], OPTIONS, "samples"),
        ([Window(np.zeros(16_000, np.int16), (60_000,))], TRUTH[:1], OPTIONS, "prompt token"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: Engine, windows: list[Window], texts: list[str], options: DecodeOptions, match: str
) -> None:
    with pytest.raises(BadRequest, match=match):
        engine.score(windows, texts, options)


@pytest.mark.parametrize("heads", [None, [[30, 9]]])
def test_a_model_without_its_alignment_heads_scores_as_well(
    engine: Engine, tmp_path: Path, heads: list[list[int]] | None
) -> None:
    """Distilled models come without them, or with those of the layers they lost."""
    whole = base()
    for file in whole.path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((whole.path / "config.json").read_text("utf-8"))
    config.pop("alignment_heads")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | ({"alignment_heads": heads} if heads else {})))
    other = CTranslate2Engine(replace(whole, path=tmp_path), device="cpu", compute_type="int8", threads=2)
    assert other.score(WINDOWS, TRUTH, OPTIONS) == engine.score(WINDOWS, TRUTH, OPTIONS)
    other.close()


def test_a_closed_engine_scores_nothing() -> None:
    engine = open_base()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.score(WINDOWS, TRUTH, OPTIONS)


# ---- the golden clips ---------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_real_engines_pass_the_golden_check(engine: Engine, reference: Engine) -> None:
    for some in (engine, reference):
        text = golden.check(some)
        assert "這個問題沒有標準答案" in text
        assert "different kinds of memory" in text

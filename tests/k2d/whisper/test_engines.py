"""Both engines on real weights and real speech: the mixed prompt, exact repeatability, agreement, concurrency."""

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import soundfile
from reading_oracle import mixed_tokens
from weights import base, open_base

from k2d.errors import BadRequest, ModelError
from k2d.inference.batcher import MicroBatcher
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, Samples, Window, WindowResult
from k2d.whisper import ct2_file
from k2d.whisper.engine import Engine
from k2d.whisper.features import log_mel
from k2d.whisper.vocabulary import Vocabulary

pytestmark = pytest.mark.integration

GREEDY = DecodeOptions(temperatures=(0.0,))
Clip = tuple[dict[str, str], Samples]


def clips(shared: Path, language: str, count: int) -> list[Clip]:
    """The first clean clips of a language."""
    rows = [json.loads(line) for line in (shared / "public" / "manifest.jsonl").read_text("utf-8").splitlines()]
    wanted = [
        row for row in rows if row["kind"] == "clip" and row["language"] == language and row["aug"]["type"] == "clean"
    ]
    return [(row, soundfile.read(shared / "public" / row["audio"], dtype="int16")[0]) for row in wanted[:count]]


def hallucinating(shared: Path) -> list[Window]:
    """Noise, music and clicks: some need higher temperatures; which ones depends on the CPU's arithmetic."""
    kinds = ("white", "pink", "music", "clicks")
    names = sorted(
        name for kind in kinds for name in (shared / "public" / "clips").glob(f"pub_nonspeech_*_{kind}.flac")
    )
    return [Window(soundfile.read(name, dtype="int16")[0][:WINDOW_SAMPLES]) for name in names]


def error_rate(results: list[WindowResult], found: list[Clip]) -> float:
    from rapidfuzz.distance import Levenshtein

    pairs = [
        (mixed_tokens(result.text), mixed_tokens(row["text"])) for result, (row, _) in zip(results, found, strict=True)
    ]
    return sum(Levenshtein.distance(h, r) for h, r in pairs) / sum(len(r) for _, r in pairs)


# ---- the mixed prompt ---------------------------------------------------------------------------------------------


def patched_zh(embeddings_of: tuple[str, str]) -> ctranslate2.models.Whisper:
    """The method's own way: the row of <|zh|> itself replaced by the mean of two languages' rows."""
    folder = base().path
    vocabulary = Vocabulary(folder / "tokenizer.json")
    sources = tuple(vocabulary.languages[code] for code in embeddings_of)
    weights = bytearray((folder / "model.bin").read_bytes())
    with memoryview(weights) as view:
        found = ct2_file.tensors(view, file=folder)
        ct2_file._write_mean_row(view, found, sources=sources, target=vocabulary.languages["zh"])
    files = {name: (folder / name).read_bytes() for name in ("config.json", "vocabulary.txt")}
    return ctranslate2.models.Whisper(
        "patched", compute_type="int8", intra_threads=2, files={"model.bin": io.BytesIO(weights), **files}
    )


def raw(model: ctranslate2.models.Whisper, windows: list[Window], language: str) -> list[tuple[int, ...]]:
    vocabulary = Vocabulary(base().path / "tokenizer.json")
    features = np.stack([log_mel(w.samples, mels=80) for w in windows])
    prompt = [vocabulary.sot, vocabulary.languages[language], vocabulary.transcribe]
    found = model.generate(
        ctranslate2.StorageView.from_array(features),
        [prompt] * len(windows),
        beam_size=1,
        suppress_tokens=list(vocabulary.suppressed),
    )
    return [tuple(result.sequences_ids[0]) for result in found]


def test_the_mixed_prompt_is_the_methods_and_leaves_the_others_alone(engine: Engine, shared: Path) -> None:
    windows = [Window(samples) for language in ("zh-en", "zh", "en") for _, samples in clips(shared, language, 2)]
    ours = {
        c: engine.transcribe(windows, DecodeOptions(language=c, temperatures=(0.0,))) for c in ("zh", "en", "zh-en")
    }
    assert [r.tokens for r in ours["zh-en"]] == raw(patched_zh(("zh", "en")), windows, "zh")
    untouched = patched_zh(("zh", "zh"))  # the mean of a row with itself is the row
    for language in ("zh", "en"):
        assert [r.tokens for r in ours[language]] == raw(untouched, windows, language)
    # the mixed row takes no share of the softmax that no-speech is read from
    assert len({tuple(r.no_speech_prob for r in results) for results in ours.values()}) == 1


def test_one_prompt_serves_every_language(engine: Engine, shared: Path) -> None:
    """docs/method.md: zh prompt 0.974 on English, mixed prompt 0.021 (all clean clips)."""
    english = clips(shared, "en", 8)
    mandarin = clips(shared, "zh", 8)
    windows = [Window(samples) for _, samples in english]
    assert error_rate(engine.transcribe(windows, replace(GREEDY, language="zh")), english) > 0.3
    assert error_rate(engine.transcribe(windows, GREEDY), english) < 0.1
    windows = [Window(samples) for _, samples in mandarin]
    assert error_rate(engine.transcribe(windows, GREEDY), mandarin) < 0.15


def test_auto_detects_each_window_for_itself(engine: Engine, shared: Path) -> None:
    found = [*clips(shared, "zh", 2), *clips(shared, "en", 2)]
    results = engine.transcribe([Window(samples) for _, samples in found], DecodeOptions(language="auto"))
    assert [r.language for r in results] == ["zh", "zh", "en", "en"]
    for result in results:
        probabilities = [p for _, p in result.language_probs]
        assert result.language_probs[0][0] == result.language
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0.5 < probabilities[0] <= 1


# ---- repeatability ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("language", ["zh-en", "auto"])
def test_neighbours_and_history_change_nothing(engine: Engine, shared: Path, language: str) -> None:
    """Bit for bit: the same window alone, in batches of any size and order, before and after others; with fallback."""
    options = DecodeOptions(language=language)
    windows = [*hallucinating(shared), *(Window(samples) for _, samples in clips(shared, "zh-en", 2))]
    windows += [Window(windows[-1].samples, prompt=(1, 2, 3)), Window(windows[-2].samples, prompt=(1,) * 50)]
    alone = [engine.transcribe([window], options)[0] for window in windows]
    together = engine.transcribe(windows, options)
    assert together == alone
    assert any(result.temperature > 0 for result in alone), "nothing needed fallback: the test shows too little"
    backwards = windows[::-1]
    in_threes = [r for i in range(0, len(windows), 3) for r in engine.transcribe(backwards[i : i + 3], options)]
    assert in_threes[::-1] == alone


@pytest.mark.slow
def test_a_fresh_engine_says_the_same(engine: Engine, shared: Path) -> None:
    windows = hallucinating(shared)[-2:]
    again = open_base()
    try:
        assert again.transcribe(windows, DecodeOptions()) == engine.transcribe(windows, DecodeOptions())
    finally:
        again.close()


@pytest.mark.slow
@pytest.mark.torch
def test_sampling_is_repeatable_in_the_reference_engine(reference: Engine, shared: Path) -> None:
    noise = hallucinating(shared)[1]
    other = Window(clips(shared, "en", 1)[0][1])
    options = DecodeOptions(temperatures=(0.6,), best_of=2, max_new_tokens=12)
    first = reference.transcribe([noise], options)[0]
    assert reference.transcribe([other, noise, noise], options)[1:] == [first, first]
    shifted = Window(np.roll(noise.samples, 1))  # other samples, other dice
    assert reference.transcribe([shifted], options)[0].tokens != first.tokens


# ---- the two engines ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.torch
def test_the_engines_agree(exact: Engine, reference: Engine, shared: Path) -> None:
    """The same weights in float32: the same tokens, and log-probabilities to three decimals."""
    found = [*clips(shared, "zh-en", 1), *clips(shared, "en", 1)]
    windows = [Window(samples) for _, samples in found]
    windows.append(Window(windows[0].samples, prompt=tuple(Vocabulary(base().path / "tokenizer.json").encode(" 今天"))))
    short = replace(GREEDY, without_timestamps=True, short_context=True)  # as rescoring decodes again
    for options in (GREEDY, short, DecodeOptions(language="auto", temperatures=(0.0,), without_timestamps=True)):
        ours, theirs = exact.transcribe(windows, options), reference.transcribe(windows, options)
        assert [r.tokens for r in ours] == [r.tokens for r in theirs]
        assert [r.language for r in ours] == [r.language for r in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=1e-3)
            assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=1e-3)
    assert ours[0].pieces[0].end_s == round(len(windows[0].samples) / 16_000, 3)  # without timestamps: all of it


@pytest.mark.slow
@pytest.mark.torch
def test_beam_search_agrees(exact: Engine, reference: Engine, shared: Path) -> None:
    beams = DecodeOptions(temperatures=(0.0,), beam_size=3)
    windows = [Window(samples) for _, samples in clips(shared, "en", 2)]
    for options in (beams, replace(beams, without_timestamps=True, short_context=True)):
        theirs = reference.transcribe(windows, options)
        assert [r.tokens for r in exact.transcribe(windows, options)] == [r.tokens for r in theirs]


# ---- edges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 160, 16_000])
def test_very_short_windows_are_decoded(engine: Engine, n: int) -> None:
    [result] = engine.transcribe([Window(np.zeros(n, np.int16))], GREEDY)
    assert all(piece.end_s <= n / 16_000 for piece in result.pieces)


def test_the_limits_are_kept(engine: Engine, shared: Path) -> None:
    [window] = [Window(samples) for _, samples in clips(shared, "en", 1)]
    [result] = engine.transcribe([window], DecodeOptions(temperatures=(0.0,), max_new_tokens=5))
    assert len(result.tokens) == 5
    [result] = engine.transcribe([Window(window.samples, prompt=(5,) * 400)], GREEDY)
    assert result.tokens
    assert engine.transcribe([], GREEDY) == []


def test_one_bad_window_is_refused_before_anything_is_decoded(engine: Engine) -> None:
    good, bad = Window(np.zeros(1600, np.int16)), Window(np.zeros(WINDOW_SAMPLES + 1, np.int16))
    with pytest.raises(BadRequest):
        engine.transcribe([good, bad], GREEDY)


def test_a_closed_engine_says_so() -> None:
    engine = open_base()
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.transcribe([Window(np.zeros(1600, np.int16))], GREEDY)


def test_a_precision_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        open_base(compute_type="int3")
    assert "K2D_COMPUTE_TYPE" in str(caught.value.hint)


def test_the_fingerprint_names_weights_engine_and_precision(engine: Engine) -> None:
    assert engine.model.fingerprint == f"{base().digest[:16]}:ctranslate2:int8_float32"
    assert engine.model.device == "cpu"


def test_concurrent_callers_get_their_own_windows(engine: Engine, shared: Path) -> None:
    windows = [Window(samples) for _, samples in clips(shared, "zh-en", 5)]
    expected = engine.transcribe(windows, GREEDY)

    async def all_at_once() -> list[WindowResult]:
        transcriber = MicroBatcher(engine, batch_size=4)
        return await asyncio.gather(*(transcriber.transcribe(window, GREEDY) for window in windows))

    assert asyncio.run(all_at_once()) == expected

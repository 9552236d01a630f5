"""The transformers engine with windows together: the same as alone, and the same as CTranslate2, on real weights."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from weights import base

from k2d.inference.batcher import MicroBatcher
from k2d.inference.golden import clips
from k2d.inference.parity import ParityReport, compare, golden_recordings, transcribe_all
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, LongformOptions, Window
from k2d.whisper.engine import Engine
from k2d.whisper.features import log_mel
from k2d.whisper.torch_engine import TransformersEngine, window_bytes
from k2d.whisper.torch_features import log_mels

pytestmark = [pytest.mark.integration, pytest.mark.torch]

GREEDY = DecodeOptions(temperatures=(0.0,), max_new_tokens=24)


@pytest.fixture(scope="module")
def together() -> Iterator[Engine]:
    """Up to eight windows at once."""
    engine = TransformersEngine(
        base("transformers"), device="cpu", compute_type="float32", threads=0, windows_at_once=8
    )
    yield engine
    engine.close()


def windows() -> list[Window]:
    """Golden clips whole and cut, with and without previous text, and something that nobody says."""
    found = [Window(clip.samples) for clip in clips()]
    noise = np.random.default_rng(3).normal(0, 3000, 4 * 16_000).astype(np.int16)
    return [*found, Window(found[0].samples[:24_000]), Window(found[1].samples, prompt=(1, 2, 3)), Window(noise)]


OPTIONS = {
    "beams": replace(GREEDY, beam_size=3),
    "beams, without timestamps, in short contexts": replace(
        GREEDY, beam_size=3, without_timestamps=True, short_context=True
    ),
    "greedy, then sampled, language detected": replace(
        GREEDY, temperatures=(0.0, 0.4), best_of=2, log_prob_threshold=-0.5, language="auto"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_windows_together_are_decoded_as_alone(reference: Engine, together: Engine, options: DecodeOptions) -> None:
    alone, batch = (engine.transcribe(windows(), options) for engine in (reference, together))
    assert [result.tokens for result in batch] == [result.tokens for result in alone]
    assert [(r.language, r.temperature) for r in batch] == [(r.language, r.temperature) for r in alone]
    for ours, theirs in zip(batch, alone, strict=True):
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
        assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-3)
    if options.temperatures == (0.0, 0.4):
        assert len({result.temperature for result in alone}) == 2, "the test shows too little"


def test_texts_together_are_scored_as_alone(reference: Engine, together: Engine) -> None:
    texts = ["今天這堂課", "", "a much longer text that is not said in this clip at all", "deadline", "好", "謝謝"]
    alone, batch = (engine.score(windows(), texts, DecodeOptions()) for engine in (reference, together))
    for ours, theirs in zip(batch, alone, strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    assert batch[1].tokens == ()


def test_a_window_is_encoded_once_for_its_text_and_its_score(
    together: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    encoder = together._through_encoder

    def counting(hidden: torch.Tensor) -> torch.Tensor:
        passes.append(len(hidden))
        return encoder(hidden)

    monkeypatch.setattr(together, "_through_encoder", counting)
    fresh = [Window(clip.samples[800:]) for clip in clips()]
    texts = [result.text for result in together.transcribe(fresh, GREEDY)]
    together.score(fresh, texts, GREEDY)
    assert passes == [len(fresh)]


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 5])
def test_golden_clips_are_the_same_as_with_ctranslate2(exact: Engine, together: Engine, beams: int) -> None:
    """The parity gate: both in float32, by the long-form walk, in batches."""
    options = LongformOptions(decode=replace(GREEDY, beam_size=beams, max_new_tokens=None))

    async def report() -> ParityReport:
        sides = [
            await transcribe_all(MicroBatcher(engine, batch_size=8), golden_recordings(), options)
            for engine in (exact, together)
        ]
        return compare(golden_recordings(), *sides)

    found = asyncio.run(report())
    assert found.drift == 0.0
    assert all(row.same_text for row in found.rows), found.rows


@pytest.mark.slow
def test_a_long_recording_is_the_same_as_with_ctranslate2(exact: Engine, together: Engine, shared: Path) -> None:
    """Greedily: with beams, the engines end a search by different rules, and loops at cuts come out differently."""
    rows = [json.loads(line) for line in (shared / "public" / "manifest.jsonl").read_text("utf-8").splitlines()]
    long = next(row for row in rows if row["kind"] == "longform")
    samples = soundfile.read(shared / "public" / long["audio"], dtype="int16")[0][:WINDOW_SAMPLES]
    cut = [Window(part) for part in np.array_split(samples, 3)]
    options = replace(GREEDY, max_new_tokens=None)
    ours, theirs = (engine.transcribe(cut, options) for engine in (together, exact))
    assert [result.text for result in ours] == [result.text for result in theirs]


def test_features_have_the_same_bits() -> None:
    samples = [clip.samples for clip in clips()] + [np.zeros(0, np.int16), np.full(WINDOW_SAMPLES, 32767, np.int16)]
    for mels in (80, 128):
        ours = log_mels(samples, mels=mels, device=torch.device("cpu")).numpy()
        assert (ours == np.stack([log_mel(own, mels=mels) for own in samples])).all()


def test_the_memory_of_a_window_is_as_the_docstring_says() -> None:
    large = {"width": 1280, "layers": 32, "vocabulary": 51_865, "frames": 3000, "value_bytes": 2}
    assert round(window_bytes(**large, rows=5) / 1e6, -1) == 660
    assert window_bytes(**large, rows=1) < window_bytes(**large, rows=5) / 1.8

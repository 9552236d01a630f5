"""Small lakes for tests: real recordings of noise, real FLAC, real shards."""

import io
from pathlib import Path

import numpy as np
import soundfile

from k2d.schema import (
    SAMPLE_RATE_HZ,
    Batch,
    Chunk,
    ChunkFacts,
    Counts,
    Distances,
    LongformOptions,
    ModelInfo,
    Outcome,
    Recording,
    RecordingResult,
    Samples,
    Segment,
    Source,
)
from k2d.store import Lake

TEACHER = ModelInfo("packaged:whisper-base", "d01c3014881c9c6f" + "0" * 48, "ctranslate2", "int8", "cpu")
REJECTED = (0, 9, 0, 1)  # counts of a chunk that no policy with α ≤ 0.9 accepts
ACCEPTED = (9, 1, 0, 0)


def samples(seconds: float, seed: int = 0) -> Samples:
    """Noise, shape (seconds × 16000,), different for every seed."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3000, 3000, round(seconds * SAMPLE_RATE_HZ)).astype(np.int16)


def flac(data: Samples) -> bytes:
    """Encode as the lake expects audio."""
    file = io.BytesIO()
    soundfile.write(file, data, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def unflac(data: bytes) -> Samples:
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == SAMPLE_RATE_HZ
    return decoded


def segment(start_s: float, end_s: float, text: str = " 我們 use Kafka") -> Segment:
    return Segment(start_s, end_s, text, (50364, 100, 200), -0.25, 0.01, 1.2, 0.0, "zh-en")


def chunk(index: int, start_s: float, end_s: float, text: str = " 我們 use Kafka") -> Chunk:
    """A chunk of two segments that meet in its middle."""
    middle = round((start_s + end_s) / 2, 3)
    return Chunk(index, (segment(start_s, middle, text), segment(middle, end_s, text)))


def fact(key: str, recording_id: str, chunk: Chunk, counts: tuple[int, int, int, int] = ACCEPTED) -> ChunkFacts:
    return ChunkFacts(
        id=f"{key}-{chunk.index:05d}",
        recording_id=recording_id,
        index=chunk.index,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        teacher_text=chunk.text,
        segments=chunk.segments,
        validator="perturbed:packaged:whisper-base",
        views=("speed 1.12", "band-pass"),
        validator_texts=("我們 use kafka", "我們 use cough"),
        validator_avg_logprob=-0.5,
        distances=Distances(Counts(*counts), Counts(*counts), 1, 2, None, 4, 4),
    )


def recording(number: int, duration_s: float) -> Recording:
    return Recording(
        f"rec_{number:024x}", duration_s, round(duration_s * SAMPLE_RATE_HZ), 0.5, "flac, 16000 Hz, 1 channel"
    )


def put_recording(
    lake: Lake,
    number: int,
    spans: list[tuple[float, float]],
    *,
    rejected: frozenset[int] = frozenset(),
    tail_s: float = 1.0,
) -> RecordingResult:
    """Label and doubt recording `number`: a chunk for each span, audio cut from `samples(…, seed=number)`."""
    duration_s = round((spans[-1][1] if spans else 0.0) + tail_s, 3)
    heard, found = samples(duration_s, number), recording(number, duration_s)
    label_key, facts_key = f"{number:02x}abel{number:026x}", f"{number:02x}facts{number:025x}"
    chunks = [chunk(i, start, end, f" 第{i}段 of talk {number}") for i, (start, end) in enumerate(spans)]
    meta = {"recording": found, "teacher": TEACHER, "options": LongformOptions(), "version": 1}
    with lake.label_writer(label_key, meta) as writer:
        for one in chunks:
            cut = heard[round(one.start_s * SAMPLE_RATE_HZ) : round(one.end_s * SAMPLE_RATE_HZ)]
            writer.write(one, flac(cut))
    facts = [fact(facts_key, found.id, one, REJECTED if one.index in rejected else ACCEPTED) for one in chunks]
    lake.write_facts(facts_key, facts, {**meta, "label_key": label_key, "validator": TEACHER})
    return RecordingResult(
        position=number,
        name=f"talk-{number}.flac",
        outcome=Outcome.LABELED,
        duration_s=duration_s,
        recording_id=found.id,
        label_key=label_key,
        facts_key=facts_key,
        wall_s=0.5,
    )


def batch(
    recordings: int,
    *,
    batch_id: str = "b_0123456789abcdef",
    name: str = "lectures",
    at: str = "2026-11-22T10:00:00+00:00",
) -> Batch:
    sources = tuple(Source(f"talk-{n}.flac", f"file:///talks/talk-{n}.flac", f"key{n}", 100) for n in range(recordings))
    return Batch(batch_id, name, sources, "packaged:whisper-base", "perturbed", LongformOptions(), at)


def audio_path(lake: Lake, path: str) -> Path:
    """The file behind a path of a local lake, to damage it."""
    return Path(lake.files.full(path))

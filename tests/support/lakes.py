"""Small lakes for tests: real recordings of noise, real FLAC, real shards."""

import io
import shutil
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

from k2d.keys import chunk_id
from k2d.schema import (
    SAMPLE_RATE_HZ,
    Batch,
    Chunk,
    ChunkFacts,
    Counts,
    Distances,
    Evidence,
    Hypothesis,
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


def evidence(duration_s: float, *, good: bool = True, segments: int = 1) -> Evidence:
    """Invented: of a label that every validator agrees with, or of one that none does."""
    apart = 0.05 if good else 0.95
    return Evidence(
        duration_s=float(np.float32(duration_s)),
        zh_tokens=2 * segments,
        en_tokens=2 * segments,
        other_tokens=0,
        phonemes=max(1, round(8 * duration_s)),
        disagreement_least=float(np.float32(apart)),
        disagreement_middle=float(np.float32(apart)),
        disagreement_most=float(np.float32(apart)),
        zh_error=float(np.float32(apart)),
        en_error=0.0,
        substituted=float(np.float32(apart)),
        deleted=0.0,
        inserted=0.0,
        homophones=0.0,
        flip=0.0,
        forced_logprob=-0.25 if good else -4.0,
        expected_token_error=0.125 if good else 0.875,
        probe_nll=0.0,
        avg_logprob=-0.25 if good else -4.0,
        no_speech_prob=0.0,
        compression_ratio=1.25,
        temperature=0.0,
        teacher_repetition=1,
        hypothesis_repetition=1,
        loops=1,
        is_phrase=False,
        is_echo=False,
    )


def fact(
    key: str,
    recording_id: str,
    chunk: Chunk,
    counts: tuple[int, int, int, int] = ACCEPTED,
    bad: Container[int] | None = None,
) -> ChunkFacts:
    """Facts of a chunk; `bad` names the segments that nobody agrees with (None: all of a chunk that is REJECTED)."""
    wrong = range(len(chunk.segments)) if bad is None and counts == REJECTED else (bad or ())
    good = [number not in wrong for number in range(len(chunk.segments))]
    validator = "perturbed:packaged:whisper-base"
    return ChunkFacts(
        id=chunk_id(key, chunk.index),
        recording_id=recording_id,
        index=chunk.index,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        teacher_text=chunk.text,
        segments=chunk.segments,
        validators=validator,
        hypotheses=(
            Hypothesis(validator, "speed 1.12", "我們 use kafka", -0.5),
            Hypothesis(validator, "band-pass", "我們 use cough", -0.5, tuple(-0.25 if one else -4.0 for one in good)),
        ),
        distances=Distances(Counts(*counts), Counts(*counts), 1, 2, None, 4, 4),
        evidence=evidence(chunk.duration_s, good=all(good), segments=len(good)),
        segment_evidence=tuple(
            evidence(round(one.end_s - one.start_s, 3), good=fine)
            for one, fine in zip(chunk.segments, good, strict=True)
        ),
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
    bad: frozenset[tuple[int, int]] = frozenset(),
    tail_s: float = 1.0,
    texts: Sequence[str] = (),
) -> RecordingResult:
    """Label and validate recording `number`: a chunk for each span, audio cut from `samples(…, seed=number)`.

    `texts`: of the chunks, whose two segments both have it.
    `rejected` names chunks that are bad as a whole, `bad` segments (chunk, segment) that spoil theirs.
    """
    duration_s = round((spans[-1][1] if spans else 0.0) + tail_s, 3)
    audio, described = samples(duration_s, number), recording(number, duration_s)
    label_key, facts_key = f"{number:02x}abel{number:026x}", f"{number:02x}facts{number:025x}"
    texts = texts or [f" 第{i}段 of talk {number}" for i in range(len(spans))]
    chunks = [chunk(i, start, end, text) for i, ((start, end), text) in enumerate(zip(spans, texts, strict=True))]
    meta = {"recording": described, "teacher": TEACHER, "options": LongformOptions(), "version": 1}
    with lake.labels.writer(label_key, meta) as writer:
        for one in chunks:
            cut = audio[round(one.start_s * SAMPLE_RATE_HZ) : round(one.end_s * SAMPLE_RATE_HZ)]
            writer.write(one, flac(cut))
    facts = []
    for one in chunks:
        spoiled = {segment for chunk_index, segment in bad if chunk_index == one.index}
        counts = REJECTED if one.index in rejected or spoiled else ACCEPTED
        facts.append(fact(facts_key, described.id, one, counts, spoiled or None))
    lake.facts.write(facts_key, facts, {**meta, "label_key": label_key, "validator": TEACHER})
    return RecordingResult(
        position=number,
        name=f"talk-{number}.flac",
        outcome=Outcome.LABELED,
        duration_s=duration_s,
        recording_id=described.id,
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


def copy(template: Lake, folder: Path) -> Lake:
    """The same lake in a folder of its own, to be changed: much cheaper than writing it, as every write is synced."""
    shutil.copytree(template.files.root, folder)
    return Lake(str(folder))


def audio_path(lake: Lake, path: str) -> Path:
    """The file behind a path of a local lake, to damage it."""
    return Path(lake.files.full(path))


def drop_column(lake: Lake, facts_key: str, column: str = "other_tokens") -> None:
    """Make a facts shard one that this version cannot read, as an earlier version would have written it."""
    path = audio_path(lake, f"facts/{facts_key[:2]}/{facts_key}.parquet")
    pq.write_table(pq.ParquetFile(path).read().drop_columns([column]), path)

"""A store as labeling leaves it, of any size: written by the project's own writers, without any model.

A few dozen recordings are made for real: chunks with code-switched texts, FLAC, facts by the project's own weighing.
All others are these again under keys and names of their own: their shards are hard links (copies in an object store),
their rows in the index have their own ids, so that nothing counts as a duplicate.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2d import audio
from k2d.corpus import batch_index, column_files, gather
from k2d.corpus.gather import PartTables
from k2d.corpus.part import store_part
from k2d.documents import BatchOptions
from k2d.filtering.evidence import ChunkTexts, weigh_many
from k2d.keys import digest
from k2d.labeling.request import make_batch
from k2d.labeling.validate import facts_of
from k2d.schema import (
    SAMPLE_RATE_HZ,
    Batch,
    Chunk,
    Hypothesis,
    ModelInfo,
    Outcome,
    Recording,
    RecordingResult,
    Segment,
    Source,
    Versions,
)
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.base import key_path
from k2d.store.batches import PART_RECORDINGS

TEACHER = ModelInfo("openai/whisper-large-v2", "a" * 64, "ctranslate2", "float16", "cuda")
VALIDATOR = ModelInfo("openai/whisper-base", "b" * 64, "ctranslate2", "int8", "cpu")
VALIDATORS = f"model:{VALIDATOR.reference}"
SEGMENTS = 6  # a chunk
# phrases of a lecture, Mandarin with English words in it; half of the recordings have none of the latter
MANDARIN = ["今天這堂課", "我們先來看一下", "昨天說過的那個問題", "然後再把答案寫在黑板上面", "所以大家應該都懂了吧"]
MIXED = [
    "我們先 review 一下",
    "這個 gradient 要算出來",
    "deadline 是下禮拜五",
    "把 model 丟到 server 上",
    "然後 train 一個 epoch",
]


@dataclass(frozen=True, slots=True)
class Size:
    """How large the store is."""

    recordings: int
    chunks: int = 85  # a recording
    different: int = 6  # recordings made for real
    chunk_s: float = 21.0
    audio: str = "tiny"  # or "real": noise that takes about as many bytes as speech


def build(lake: Lake, size: Size, name: str = "corpus") -> Batch:
    """Fill an empty lake with one finished batch.

    build(Lake("/tmp/corpus"), Size(recordings=3000))
    """
    sync, os.fsync = os.fsync, lambda _: None  # nothing here must survive a power failure
    try:
        lake.check()
        different = min(size.different, size.recordings)
        sources = [
            Source(f"week-{n // 500}/talk-{n}.flac", f"file:///talks/{n}.flac", f"key{n}", 1)
            for n in range(size.recordings)
        ]
        options = BatchOptions(name=name, teacher=TEACHER.reference, validator=VALIDATOR.reference)
        batch = make_batch(sources, options, Settings(_env_file=None))
        lake.batches.put(batch)
        results = [_result(n, sources[n].name, size) for n in range(size.recordings)]
        for n in range(different):
            _write(lake, results[n], size, np.random.default_rng(n))
        made = gather.gather(lake, results[:different])
        for start in range(0, size.recordings, PART_RECORDINGS):
            part = results[start : start + PART_RECORDINGS]
            for result in part:
                lake.batches.put_result(batch.id, result)
                if result.position >= different:
                    _link(lake, results[result.position % different], result)
            store_part(lake, batch_index.stem(batch.id, start // PART_RECORDINGS, []), _tables(made, part, different))
        batch_index.BatchIndex(lake, batch).store_total()
    finally:
        os.fsync = sync
    return batch


def _result(n: int, name: str, size: Size) -> RecordingResult:
    if n % 97 == 96:
        return RecordingResult(n, name, Outcome.QUARANTINED, 0.0, reason="not_audio", detail="no audio stream")
    return RecordingResult(
        position=n,
        name=name,
        outcome=Outcome.LABELED,
        duration_s=round(size.chunks * (size.chunk_s + 0.5) + 20.0, 3),
        recording_id=f"rec_{digest('recording', n)[:24]}",
        label_key=digest("label", n),
        facts_key=digest("facts", n),
        wall_s=120.0,
        versions=Versions(2, 4, "0.3.0", "0.3.0"),
    )


def _write(lake: Lake, result: RecordingResult, size: Size, rng: np.random.Generator) -> None:
    """Label and facts shards of one recording."""
    if result.outcome is not Outcome.LABELED:
        return
    recording = Recording(
        str(result.recording_id),
        result.duration_s,
        round(result.duration_s * SAMPLE_RATE_HZ),
        0.5,
        "flac, 16000 Hz, 1 channel",
    )
    meta = {"recording": recording, "teacher": TEACHER, "version": 2, "k2d_version": "0.3.0"}
    phrases = MIXED if result.position % 2 else MANDARIN
    chunks, texts = [], []
    with lake.labels.writer(str(result.label_key), meta) as writer:
        for index in range(size.chunks):
            chunk = _chunk(index, size, phrases, rng)
            writer.write(chunk, _flac(round(chunk.duration_s * SAMPLE_RATE_HZ), size, rng))
            bad = rng.random() < 0.25
            text = chunk.text.replace("一", "二").replace("我", "你") if bad else chunk.text
            forced = tuple(-float(round(rng.gamma(2.0, 0.6 if bad else 0.1), 4)) for _ in chunk.segments)
            chunks.append(chunk)
            texts.append(ChunkTexts(chunk.segments, (Hypothesis(VALIDATORS, "as is", text, -0.4, forced),)))
    named = {"facts_key": str(result.facts_key), "recording_id": recording.id, "validators": VALIDATORS}
    facts = [
        facts_of(chunk, text.hypotheses, weighed, **named)
        for chunk, text, weighed in zip(chunks, texts, weigh_many(texts), strict=True)
    ]
    meta |= {"label_key": result.label_key, "validator": VALIDATOR, "validator_name": VALIDATORS, "version": 4}
    lake.facts.write(str(result.facts_key), facts, meta)


def _chunk(index: int, size: Size, phrases: Sequence[str], rng: np.random.Generator) -> Chunk:
    start, length = index * (size.chunk_s + 0.5), size.chunk_s / SEGMENTS
    segments = []
    for number in range(SEGMENTS):
        text = " " + "".join(phrases[i] for i in rng.integers(0, len(phrases), 2))
        at = round(start + number * length, 2)
        end = round(start + (number + 1) * length, 2)
        tokens = tuple(rng.integers(0, 50_000, len(text)).tolist())
        segments.append(Segment(at, end, text, tokens, -0.25, 0.01, 1.1, 0.0, "zh-en"))
    return Chunk(index, tuple(segments))


def _flac(samples: int, size: Size, rng: np.random.Generator) -> bytes:
    # eight bits a sample: 16 kB a second, as speech takes
    noise = rng.integers(-128, 128, samples) if size.audio == "real" else np.zeros(samples)
    return audio.encode_flac(noise.astype(np.int16))


def _link(lake: Lake, made: RecordingResult, result: RecordingResult) -> None:
    if result.outcome is not Outcome.LABELED or made.outcome is not Outcome.LABELED:
        return
    for folder, key, copy in (
        ("labels", made.label_key, result.label_key),
        ("facts", made.facts_key, result.facts_key),
    ):
        source, target = (lake.files.full(key_path(folder, str(k), ".parquet")) for k in (key, copy))
        if lake.files.local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        else:
            lake.files.fs.copy(source, target)


def _tables(made: PartTables, results: Sequence[RecordingResult], different: int) -> PartTables:
    """The index of some recordings: the rows of those that were made, with the ids and keys of these."""
    sizes = made.recordings["chunks"].to_numpy()
    first = np.cumsum(sizes) - sizes
    of = np.array([result.position % different for result in results])
    labeled = np.array([result.outcome is Outcome.LABELED for result in results])
    counts = np.where(labeled, sizes[of], 0)
    rows = np.concatenate([np.arange(first[m], first[m] + n) for m, n in zip(of, counts, strict=True)])
    recording = pa.array(np.repeat(np.arange(len(results)), counts))

    def each(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(recording)

    table = made.rows.take(pa.array(rows))
    index = pc.utf8_lpad(pc.cast(table["index"], pa.string()), 5, "0")
    facts_keys = each([result.facts_key for result in results])
    columns = {
        "position": pa.array(np.array([r.position for r in results], np.int32)).take(recording),
        "recording": each([result.name for result in results]),
        "label_key": each([result.label_key for result in results]),
        "facts_key": facts_keys,
        "recording_id": each([result.recording_id for result in results]),
        "id": pc.binary_join_element_wise(facts_keys, index, "-"),
    }
    table = pa.table([columns.get(name, table[name]) for name in table.column_names], schema=table.schema)
    return PartTables(table, column_files.chunks(table), _segments(made, rows), _recordings(made, results, of, counts))


def _segments(made: PartTables, rows: np.ndarray) -> pa.Table:
    chunk = made.segments["chunk"].to_numpy()
    first, stop = np.searchsorted(chunk, rows), np.searchsorted(chunk, rows, side="right")
    taken = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
    of = pa.array(np.repeat(np.arange(len(rows)), stop - first).astype(np.int32))
    segments = made.segments.take(pa.array(taken))
    return segments.set_column(0, segments.schema.field(0), of)


def _recordings(made: PartTables, results: Sequence[RecordingResult], of: np.ndarray, counts: np.ndarray) -> pa.Table:
    rows = made.recordings.take(pa.array(of)).to_pylist()
    own = [gather.recording_row(result, None) for result in results]
    names = ("teacher_fingerprint", "validator_fingerprint", "validators")
    for row, copy, count in zip(own, rows, counts.tolist(), strict=True):
        row |= {"chunks": count} | {name: copy[name] if count else None for name in names}
    return pa.Table.from_pylist(own, schema=gather.RECORDINGS)

"""How long a policy preview over ten million stored chunks takes, end to end, and in how much memory.

Writes the numbers files of an index as labeling leaves them (parts of 1,024 recordings, 85 chunks each, six segments a
chunk; values drawn to look like speech), then asks for previews as the API does. Every part has
its own numbers of chunks, so that each byte is read where it lies; those of segments, of which a preview reads a
sample, and the texts, of which it reads nothing, are shared between parts to spare the disk.

    python bench/preview.py --folder /tmp/preview --chunks 10000000
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from k2d.corpus import column_files, views
from k2d.corpus.batch_index import stem
from k2d.corpus.gather import SCHEMA
from k2d.corpus.part import CHUNKS
from k2d.documents import BatchOptions
from k2d.filtering.policy import DEFAULT, PAPER, Policy
from k2d.labeling.request import make_batch
from k2d.schema import Batch, Metric, Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.batches import PART_RECORDINGS
from k2d.store.parquet import describe, writer

CHUNKS_A_RECORDING = 85  # half an hour of speech
SEGMENTS_A_CHUNK = 6
DIFFERENT = 4  # parts with values of their own


def build(folder: Path, chunks: int) -> Batch:
    """A lake with one batch whose index holds this many chunks; done once a folder."""
    lake = Lake(str(folder))
    parts = max(1, round(chunks / (PART_RECORDINGS * CHUNKS_A_RECORDING)))
    sources = [
        Source(f"talk-{n}.flac", f"file:///talks/{n}.flac", f"key{n}", 1) for n in range(parts * PART_RECORDINGS)
    ]
    batch = make_batch(sources, BatchOptions(name="preview"), Settings(_env_file=None))
    lake.batches.put(batch)
    stems = _stems(lake, batch, parts)
    made = [_part(np.random.default_rng(seed)) for seed in range(min(DIFFERENT, parts))]
    Path(stems[0]).parent.mkdir(parents=True, exist_ok=True)
    for number, stem_ in enumerate(stems):
        for suffix, data in made[number % len(made)].items():
            path, first = Path(stem_ + suffix), Path(stems[number % len(made)] + suffix)
            if path.exists():
                continue
            if path == first or suffix == CHUNKS:
                path.write_bytes(data)
            else:
                os.link(first, path)
    return batch


def _stems(lake: Lake, batch: Batch, parts: int) -> list[str]:
    """Where the files of the parts lie: asked of the index itself, before there is anything in it."""
    return [lake.files.full(stem(batch.id, number, [])) for number in range(parts)]


def _part(rng: np.random.Generator) -> dict[str, bytes]:
    rows = PART_RECORDINGS * CHUNKS_A_RECORDING
    quality = rng.beta(0.6, 3.0, rows)  # how bad each label is, 0…1
    sizes = rng.poisson(SEGMENTS_A_CHUNK - 1, rows) + 1
    of = np.repeat(np.arange(rows), sizes)
    segments = _values(rng, column_files.SEGMENTS, np.clip(quality[of] * rng.gamma(2.0, 0.5, len(of)), 0, 1), 4.0)
    segments["chunk"] = of
    segments["number"] = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chunks = _values(rng, column_files.CHUNKS, quality, 24.0)
    chunks["ms"] = np.bincount(of, segments["ms"], minlength=rows) + 200
    chunks["duration_s"] = np.float32(np.round(chunks["ms"] / 1000, 3))
    chunks["position"] = np.repeat(np.arange(PART_RECORDINGS), CHUNKS_A_RECORDING)
    chunks["index"] = np.tile(np.arange(CHUNKS_A_RECORDING), PART_RECORDINGS)
    files = {}
    for suffix, values, schema in (
        (".chunks.arrow", chunks, column_files.CHUNKS),
        (".segments.arrow", segments, column_files.SEGMENTS),
    ):
        file = io.BytesIO()
        column_files.write(file, pa.table({f.name: pa.array(values[f.name]).cast(f.type, safe=False) for f in schema}))
        files[suffix] = file.getvalue()
    return files | {".parquet": _facts(rows)}


def _values(rng: np.random.Generator, schema: pa.Schema, bad: np.ndarray, length_s: float) -> dict[str, np.ndarray]:
    rows = len(bad)
    ms = np.clip(rng.gamma(6.0, length_s / 6, rows), 0.2, 29.0) * 1000 // 10 * 10
    rates = {"avg_logprob", "forced_logprob"}
    values = {}
    for field in schema:
        if field.name == "ms":
            values[field.name] = ms
        elif field.name == "duration_s":
            values[field.name] = ms / 1000
        elif field.name in column_files.FLAGS:
            values[field.name] = rng.random(rows) < 0.002
        elif field.name in rates:
            values[field.name] = -np.round(rng.gamma(2.0, 0.15, rows) + bad, 4)
        elif pa.types.is_floating(field.type):
            values[field.name] = np.round(bad * rng.random(rows), 4)
        elif field.name == "phonemes":
            values[field.name] = ms / 1000 * rng.normal(9, 2, rows).clip(0.1)
        elif field.name in ("teacher_repetition", "hypothesis_repetition", "validator_repetition", "loops"):
            values[field.name] = rng.geometric(0.6, rows)
        else:
            values[field.name] = rng.poisson(np.where(bad > 0.3, 20, 4), rows)
    return values


def _facts(rows: int) -> bytes:
    """The part's Parquet file: a preview looks at its footer alone, so its columns say nothing."""
    file = io.BytesIO()
    with writer(file, describe(SCHEMA, {})) as out:
        out.write_table(pa.table([pa.nulls(rows, f.type) for f in SCHEMA], schema=SCHEMA))
    return file.getvalue()


ASKED: dict[str, tuple[Policy, tuple[Metric, ...]]] = {
    "evidence, no curve": (DEFAULT, ()),
    "evidence, its curve": (DEFAULT, (Metric.EVIDENCE,)),
    "evidence, no salvage": (DEFAULT.model_copy(update={"salvage": False}), ()),
    "paper, no curve": (PAPER, ()),
    "paper, all curves": (PAPER, tuple(Metric)),
}


def measure(folder: Path, what: str, rounds: int) -> dict[str, float | str]:
    """Ask `rounds` times in this process: first and best time in seconds, peak memory in MB."""
    lake = Lake(str(folder))
    batch = lake.batches.get("preview")
    before = _peak_mb()
    policy, metrics = ASKED[what]
    times, works = [], []
    for _ in range(rounds):
        started, worked = time.perf_counter(), time.process_time()
        found = views.preview(lake, [batch], policy, metrics=metrics)
        times.append(time.perf_counter() - started)
        works.append(time.process_time() - worked)
    anonymous = next(
        int(one.split()[1]) / 1024
        for one in Path("/proc/self/status").read_text().splitlines()
        if one.startswith("RssAnon")
    )
    return {
        "asked": what,
        "chunks": found.chunks.accepted + found.chunks.salvaged + found.chunks.rejected,
        "first_s": round(times[0], 2),
        "best_s": round(min(times), 2),
        "best_core_s": round(min(works), 2),  # of all cores together: what other work on the machine cannot stretch
        "before_mb": round(before),
        "peak_mb": round(_peak_mb()),
        "own_mb": round(anonymous),
        "hours_accepted": found.hours_accepted,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "k2d-preview")
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the folder for another run")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.folder, asked.one, asked.rounds)))
        return
    build(asked.folder, asked.chunks)
    for what in ASKED:  # a process each, so that peaks are its own
        command = [
            sys.executable,
            __file__,
            "--folder",
            str(asked.folder),
            "--rounds",
            str(asked.rounds),
            "--one",
            what,
        ]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    if not asked.keep:
        shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()

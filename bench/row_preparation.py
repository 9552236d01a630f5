"""Rows a second of the trainer's data, prepared in threads and in processes, beside a plain loop as the ceiling.

    python bench/row_preparation.py [--rows 128] [--batch 16] [--steps 8] [--rounds 3] [--workers 1 2] [--mels 80]

A frozen dataset is made of the sample audio, packed to rows of up to 30 s. Then, in turn, `--rounds` times:

- **the plain loop**: the same functions, one row after the other in one thread: FLAC, augmentation (noise and
  SpecAugment), log-mel, tokens. The same rows through one process say what going there and back costs.
- **the stream** that training reads, with N threads and N processes; reading Parquet and making batches are in it.
- **beside launches**: how fast this thread runs a stack of tiny layers, which is launching and nothing else, while N
  threads or processes prepare rows, against alone; without the time in which other work had its core. This is what
  starves a GPU whose rows are there in time.

Medians of the rounds. On a busy machine wall times are upper bounds; CPU time holds, and "rows/s a core" are rows a
second of it, over all processes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from distillation_rows import packed_utterances
from threadpoolctl import ThreadpoolController

from k2d.audio import encode_flac
from k2d.datasets.read import FrozenDataset
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES
from k2d.settings import load
from k2d.store import Lake
from k2d.whisper.features import log_mel
from k2d.whisper.resolve import resolve
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.augment import add_noise, spec_augment
from trainer.data.draws import generator
from trainer.data.prefetch import COLUMNS, Fields
from trainer.data.prepare import Preparer, decode_row
from trainer.data.processes import RowProcesses
from trainer.data.stream import TrainingData
from trainer.data.targets import tokenize_label
from trainer.options import Recipe

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))  # behind the benches, which have equal names

from frozen_sets import NAME, change, frozen

KINDS = ("threads", "processes")
RECORDINGS = 4
NOISE_DB = 10.0
LAYERS = 200  # of the stack of tiny layers
WARM_STEPS = 3  # not counted: what is prepared before the first step is asked for

Rounds = dict[str, list[float]]  # measurement → a value a round
Measured = dict[tuple[str, int], Rounds]  # by kind and number of workers


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    dataset: FrozenDataset
    vocabulary: Vocabulary
    options: argparse.Namespace

    def recipe(self, kind: str = "threads", workers: int = 1, *, batch: int = 0) -> Recipe:
        batch = batch or self.options.batch
        return Recipe(
            batch=batch,
            micro_batch=batch,
            lanes=1,
            holdout=0.0,
            workers=workers,
            worker_kind=kind,
            spec_augment=True,
            noise_snr_db=NOISE_DB,
        )

    def open(self, recipe: Recipe) -> TrainingData:
        return TrainingData(self.dataset, recipe, vocabulary=self.vocabulary, mels=self.options.mels)

    def fields(self) -> list[Fields]:
        count = self.options.batch * self.options.steps
        rows = [row for group in self.dataset.groups() for row in self.dataset.read(group, COLUMNS)]
        return list(islice(cycle(rows), count))


def dataset_of(folder: Path, *, rows: int) -> FrozenDataset:
    """A frozen dataset of the sample audio: `rows` rows of up to 30 s."""
    frozen(folder, recordings=RECORDINGS, rows=-(-rows // RECORDINGS), shard_bytes=1 << 40)
    packed = packed_utterances(WINDOW_S)

    def edit(stored: list[dict[str, Any]]) -> None:
        for row, utterances in zip(stored, cycle(packed), strict=False):
            samples = np.concatenate([part.samples for part in utterances])[:WINDOW_SAMPLES]
            ends = np.minimum(np.cumsum([len(part.samples) for part in utterances]), WINDOW_SAMPLES) / SAMPLE_RATE_HZ
            starts = [0.0, *ends[:-1]]
            row["audio"]["bytes"] = encode_flac(samples)
            row["duration_s"] = len(samples) / SAMPLE_RATE_HZ
            row["text"] = row["previous_text"] = " ".join(part.text for part in utterances)
            row["segments"] = [
                {"start_s": float(start), "end_s": float(end), "text": f" {part.text}"}
                for start, end, part in zip(starts, ends, utterances, strict=True)
            ]

    change(Lake(str(folder)), 0, edit)
    return FrozenDataset(Lake(str(folder)), NAME)


# ---- the ceiling -----------------------------------------------------------------------------------------------------


def plain_loop(bench: Bench, found: Rounds) -> None:
    """CPU milliseconds a row of each function, and wall time of all; then the same rows through one process."""
    recipe, mels = bench.recipe(), bench.options.mels
    rows = bench.fields()
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        start = time.thread_time()
        result = function(*given, **named)
        spent[part] += time.thread_time() - start
        return result

    start = time.perf_counter()
    for fields in rows:
        timed("tokens", tokenize_label, fields, vocabulary=bench.vocabulary, recipe=recipe, visit=0)
        samples = timed("FLAC", decode_row, fields)
        noisy = timed("augmentation", add_noise, samples, snr_db=NOISE_DB, draws=generator("noise", fields["id"]))
        features = timed("log-mel", log_mel, noisy, mels=mels)
        timed("augmentation", spec_augment, features, samples=len(samples), draws=generator("mask", fields["id"]))
    found["wall"].append((time.perf_counter() - start) / len(rows) * 1000)
    for part, seconds in spent.items():
        found[part].append(seconds / len(rows) * 1000)
    processes = RowProcesses(Preparer(recipe, bench.vocabulary, mels), 1)
    try:
        processes.prepare(rows[0], visit=0)  # starts it
        start, here, everywhere = time.perf_counter(), time.process_time(), _cpu_s()
        for fields in rows:
            processes.prepare(fields, visit=0)
        found["wall, process"].append((time.perf_counter() - start) / len(rows) * 1000)
        found["here, process"].append((time.process_time() - here) / len(rows) * 1000)
        found["CPU, process"].append((_cpu_s() - everywhere) / len(rows) * 1000)
    finally:
        processes.close()


# ---- the stream ------------------------------------------------------------------------------------------------------


def stream(bench: Bench, kind: str, workers: int, found: Rounds) -> None:
    """Rows a second, and CPU milliseconds a row: of this process, and of all."""
    with bench.open(bench.recipe(kind, workers)) as data:
        steps = data.steps(0)
        for _ in islice(steps, WARM_STEPS):
            pass
        start, here, everywhere = time.perf_counter(), time.process_time(), _cpu_s()
        rows = sum(len(micro.ids) for step in islice(steps, bench.options.steps) for micro in step)
        found["rows/s"].append(rows / (time.perf_counter() - start))
        found["CPU here"].append((time.process_time() - here) / rows * 1000)
        found["CPU"].append((_cpu_s() - everywhere) / rows * 1000)
        found["memory"].append(max([child.memory_info().rss for child in _children()], default=0) / 2**20)
        found["unshared"].append(max([child.memory_full_info().uss for child in _children()], default=0) / 2**20)


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


def _cpu_s() -> float:
    """CPU seconds of this process and its children so far."""
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in _children())


# ---- beside launches -------------------------------------------------------------------------------------------------


def launches(bench: Bench, workers: int, found: Measured) -> None:
    """Passes a second through a stack of tiny layers while rows are prepared, as a share of those alone."""
    alone = [_passes(bench.options.launch_s)]
    for kind in KINDS:
        begun: list[float] = []

        def count(_: str, begun: list[float] = begun) -> bool:
            begun.append(time.perf_counter())
            return True

        # more rows than are prepared in that time: its workers are never idle
        recipe = bench.recipe(kind, workers, batch=4 * workers * bench.options.batch)
        with bench.open(recipe) as data:
            steps = data.steps(0, needs_features=count)
            next(steps)
            start = time.perf_counter()
            beside = _passes(bench.options.launch_s)
            end = time.perf_counter()
        alone.append(_passes(bench.options.launch_s))
        found[kind, workers]["launches"].append(beside / statistics.mean(alone[-2:]))  # before and after
        found[kind, workers]["rows/s"].append(sum(start < at < end for at in begun) / (end - start))


def _passes(seconds: float) -> float:
    """Passes a second, not counting the time in which this thread could have run and had no core (on Linux)."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(LAYERS)))
    tensor = torch.zeros(8, 8)
    passes = 0
    start, without_core = time.perf_counter(), _without_core_s()
    with torch.no_grad():
        while time.perf_counter() < start + seconds:
            layers(tensor)
            passes += 1
    return passes / (time.perf_counter() - start - (_without_core_s() - without_core))


def _without_core_s() -> float:
    """Seconds that this thread has waited for a core: the kernel's count of its time in the run queue."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


# ---- tables ----------------------------------------------------------------------------------------------------------


def report(ceiling: Rounds, streams: Measured, beside: Measured) -> Iterator[str]:
    middle = {name: statistics.median(values) for name, values in ceiling.items()}
    parts = ("FLAC", "augmentation", "log-mel", "tokens")
    whole = sum(middle[part] for part in parts)
    yield "| plain loop | FLAC | augmentation | log-mel | tokens | CPU | wall | rows/s | rows/s a core |"
    yield "|---|---|---|---|---|---|---|---|---|"
    cells = " | ".join(f"{middle[part]:.2f}" for part in parts)
    wall = middle["wall"]
    yield f"| ms a row | {cells} | {whole:.2f} | {wall:.2f} | {1000 / wall:.1f} | {1000 / whole:.1f} |"
    yield "| share | " + " | ".join(f"{middle[part] / whole:.0%}" for part in parts) + " | | | | |"
    yield ""
    yield (
        f"Through one process: {middle['CPU, process']:.2f} ms of CPU a row, {middle['here, process']:.2f} of them in "
        f"this one; wall {middle['wall, process']:.2f} ms. There and back costs "
        f"{middle['CPU, process'] - whole:.2f} ms of CPU ({middle['CPU, process'] / whole - 1:.0%})."
    )
    yield ""
    yield (
        "| stream | rows/s | rows/s a core | of the plain loop's | CPU ms a row | of it in the training process "
        "| MiB a process, unshared |"
    )
    yield "|---|---|---|---|---|---|---|"
    for (kind, workers), found in streams.items():
        own = {name: statistics.median(values) for name, values in found.items()}
        memory = f"{own['memory']:.0f}, {own['unshared']:.0f}" if own["memory"] else ""
        yield (
            f"| {workers} {kind} | {own['rows/s']:.1f} | {1000 / own['CPU']:.1f} | {whole / own['CPU']:.0%} "
            f"| {own['CPU']:.1f} | {own['CPU here']:.1f} | {memory} |"
        )
    yield ""
    yield "| launches beside | of alone | rows/s meanwhile |"
    yield "|---|---|---|"
    for (kind, workers), found in beside.items():
        own = {name: statistics.median(values) for name, values in found.items()}
        yield f"| {workers} {kind} | {own['launches']:.0%} | {own['rows/s']:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="of the dataset")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="counted steps in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--launch-workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--mels", type=int, choices=(80, 128), default=80)
    parser.add_argument("--launch-s", type=float, default=2.0)
    options = parser.parse_args()
    settings = load()
    model = resolve("packaged:whisper-base", engine="ctranslate2", cache=settings.cache, allow_downloads=True)
    torch.set_num_threads(1)
    ceiling: Rounds = defaultdict(list)
    streams, beside = (
        {(kind, workers): defaultdict(list) for workers in given for kind in KINDS}
        for given in (options.workers, options.launch_workers)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadpoolController().select(internal_api="openblas").limit(limits=1),  # as `train` does
    ):
        bench = Bench(dataset_of(Path(folder), rows=options.rows), Vocabulary(model.path / "tokenizer.json"), options)
        for number in range(options.rounds):
            plain_loop(bench, ceiling)
            for (kind, workers), found in streams.items():
                stream(bench, kind, workers, found)
            for workers in options.launch_workers:
                launches(bench, workers, beside)
            print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        mean_s = statistics.mean(fields["duration_s"] for fields in bench.fields())
    print(f"rows of {mean_s:.1f} s, {options.mels} mels, {os.cpu_count()} cores\n")
    print("\n".join(report(ceiling, streams, beside)), flush=True)


if __name__ == "__main__":
    main()

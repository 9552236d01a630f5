"""Does a student learn better from what the filter keeps? Curves and MER, filtered against all and against random.

    python bench/learning.py ../shared/data/public --out learning

Utterances are split by text: no text of the held-out ones is trained on. The others are labeled by the service's own
walk (teacher and validator as the settings say) and frozen three times: what the default policy keeps; everything; and
about as many seconds as the policy keeps, of recordings drawn at random (their silence counts). From each a student is
distilled, at equal steps, once for each seed (which also draws the random subset). References are used to score, never
to train.

MER here: greedy, one window, no timestamps, no fallback, the mixed prompt; sum of edits over sum of reference tokens.
A student that loops makes hundreds of edits in one utterance, so the same is also given with the edits of an utterance
capped at its length. Where numbers are written in digits, the better of written and spoken form counts.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from k2d.audio import SampleReader
from k2d.client.embedded import Embedded
from k2d.documents import BatchOptions
from k2d.filtering.distance import counts
from k2d.filtering.policy import DEFAULT, Policy
from k2d.logs import setup
from k2d.schema import WINDOW_SAMPLES, Metric
from k2d.settings import load
from k2d.text.reading import read
from k2d.whisper.features import log_mel
from k2d.whisper.resolve import resolve
from k2d.whisper.vocabulary import Vocabulary
from trainer.model.greedy import transcribe
from trainer.model.student import load_teacher

EVERYTHING = Policy(
    name="everything",
    metric=Metric.COMPOSITE_BOUNDED,
    alpha=1.0,
    repetition_max=10**6,
    reject_phrases=False,
    reject_empty=False,
)
HELD_OUT = 0.2  # of the texts
AT_ONCE = 16


@dataclass(frozen=True)
class EncodedUtterances:
    """Utterances with the encoder's output, computed once for all models."""

    references: list[list[tuple[str, ...]]]  # of each utterance, the forms it may be written in
    encoded: torch.Tensor  # (utterances, 1500, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--training", type=int, help="recordings to label; all when left out")
    parser.add_argument("--scored", type=int, default=48, help="utterances of each kind that are scored")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    training, held_out = split(args.data)
    training = training[: args.training]
    datasets = label_and_freeze(args, training)
    runs = [
        (kind, seed, train(args, name, args.out / f"{kind}-{seed}", seed))
        for seed in args.seeds
        for kind, name in datasets[seed].items()
    ]
    spoken = [row for row in training if row["text"]]
    random.Random(0).shuffle(spoken)
    settings = load()
    folder = resolve(settings.teacher, engine="transformers", cache=settings.cache, allow_downloads=True).path
    teacher = load_teacher(folder)
    heard = {
        "held in": hear(teacher, args.data, spoken[: args.scored]),
        "held out": hear(teacher, args.data, held_out[: args.scored]),
    }
    vocabulary = Vocabulary(folder / "tokenizer.json")
    print(
        "\n| model | trained on | seed | last loss | held-in MER (capped) | held-out MER (capped) |",
        "\n|---|---|---|---|---|---|",
        sep="",
    )
    print(f"| teacher | – | – | – | {scored(teacher, heard, vocabulary)} |", flush=True)
    for kind, seed, run in runs:
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        student = load_teacher(run / "student")
        print(f"| student | {kind} | {seed} | {last['loss']:.3f} | {scored(student, heard, vocabulary)} |", flush=True)
    curves(runs, args.out / "curves.png")


def split(data: Path) -> tuple[list[dict], list[dict]]:
    """Training rows (also those in which nothing is said) and held-out rows, no text in both."""
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["duration"] <= 30.0 and row["text"] != "none"]
    texts = sorted({row["text"] for row in rows} - {""})
    random.Random(0).shuffle(texts)
    kept_out = set(texts[: round(HELD_OUT * len(texts))])
    # a joined recording says several texts: it is held out with any of them
    outside = [row for row in rows if any(text in row["text"] for text in kept_out)]
    out = {row["audio"] for row in outside}
    random.Random(0).shuffle(outside)
    inside = [row for row in rows if row["audio"] not in out]
    random.Random(0).shuffle(inside)
    return inside, outside


def label_and_freeze(args: argparse.Namespace, training: list[dict]) -> dict[int, dict[str, str]]:
    """The datasets' names, by seed and kind."""
    settings = load(store=str((args.out / "store").absolute()), log_level="warning")
    setup(settings)
    backend = Embedded(settings)

    def label(name: str, rows: list[dict]) -> None:
        files = [str(args.data / row["audio"]) for row in rows]
        backend.label(files, BatchOptions(name=name), wait=True, on_status=lambda _: None)

    def freeze(name: str, batch: str, policy: Policy) -> float:
        manifest = backend.freeze(name, [batch], policy)
        seconds = manifest.seconds
        print(
            f"{name}: {manifest.counts.rows} rows, {seconds.accepted:.0f} s of {seconds.input:.0f} s",
            flush=True,
        )
        return seconds.accepted

    label("training", training)
    kept = freeze("filtered", "training", DEFAULT)
    freeze("everything", "training", EVERYTHING)
    found = {}
    for seed in args.seeds:
        shuffled = list(training)
        random.Random(seed).shuffle(shuffled)
        chosen, seconds = [], 0.0
        for row in shuffled:
            if seconds >= kept:
                break
            chosen.append(row)
            seconds += row["duration"]
        label(f"random-{seed}", chosen)  # nothing is labeled twice
        freeze(f"random-{seed}", f"random-{seed}", EVERYTHING)
        found[seed] = {"filtered": "filtered", "everything": "everything", "random": f"random-{seed}"}
    return found


def train(args: argparse.Namespace, name: str, out: Path, seed: int) -> Path:
    """One run, in a process of its own."""
    values = {
        "steps": args.steps, "batch": args.batch, "micro_batch": args.batch, "decoder_layers": args.layers,
        "seed": seed,
        "precision": "bf16", "keep_encoded_gib": 3, "warmup_steps": 10, "checkpoint_every": 10**6, "trackers": "[]",
    }  # fmt: skip
    changes = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    subprocess.run(
        [sys.executable, "-m", "trainer", name, "--out", str(out), "--resume", *changes],
        env={**os.environ, "K2D_STORE": str((args.out / "store").absolute())},
        check=True,
    )
    return out


def hear(model, data: Path, rows: list[dict]) -> EncodedUtterances:
    """Run the encoder, which teacher and students share."""
    encoded, references = [], []
    for row in rows:
        reader = SampleReader(data / row["audio"])
        features = torch.from_numpy(log_mel(reader.read(0, WINDOW_SAMPLES), mels=model.config.num_mel_bins))
        reader.close()
        with torch.no_grad():
            encoded.append(model.model.encoder(features[None]).last_hidden_state)
        forms = dict.fromkeys([row["text"], row.get("text_spoken") or row["text"]])
        references.append([read(text).tokens for text in forms])
    return EncodedUtterances(references, torch.cat(encoded))


def scored(model, heard: dict[str, EncodedUtterances], vocabulary: Vocabulary) -> str:
    """MER of both kinds, as table cells."""
    cells = []
    for known in heard.values():
        texts = []
        for start in range(0, len(known.encoded), AT_ONCE):
            some = known.encoded[start : start + AT_ONCE]
            texts += transcribe(model.model.decoder, some, language="zh-en", vocabulary=vocabulary)
        edits, capped, tokens = 0, 0, 0
        for forms, text in zip(known.references, texts, strict=True):
            best = min((counts(form, read(text).tokens) for form in forms), key=lambda found: found.rate)
            edits += best.edits
            capped += min(best.edits, best.reference_length)
            tokens += best.reference_length
        cells.append(f"{edits / tokens:.3f} ({capped / tokens:.3f})")
    return " | ".join(cells)


def curves(runs: list[tuple[str, int, Path]], path: Path) -> None:
    """The loss of every run, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from trainer.run.run_report import smooth

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours = {"filtered": "#1b4965", "everything": "#e07a5f", "random": "#2a9d8f"}
    for kind, seed, run in runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = smooth([line["loss"] for line in lines], 10)
        axis.plot(
            np.arange(1, len(losses) + 1),
            losses,
            color=colours[kind],
            linestyle="-" if seed == runs[0][1] else "--",
            label=f"{kind}, seed {seed}",
        )
    axis.set_xlabel("step")
    axis.set_ylabel("loss on its own data, mean of 10 steps")
    axis.set_yscale("log")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    print(f"\ncurves in {path}")


if __name__ == "__main__":
    main()

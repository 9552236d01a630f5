"""What is the CTC probe worth as a second hypothesis, alone and beside the perturbed pass?

    python bench/probe.py ../shared/data/public ../shared/data/real

Labels every recording of at most 30 s that has a trusted reference (unless the store has a batch of the folder's name
already), trains a probe on those labels (cross-fitted, so that it judges what it did not see), and ranks the labels by
it. References are used for the tables alone: neither the probe nor its recipe sees them. A label's error is its mixed
error rate, the better of the reference's written and spoken form; one whose recording became several chunks, or none,
is left out. `area`: mean label MER over 1 … 100 % of the seconds kept, best first, equal scores in equal parts.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k2d.audio import decode_flac
from k2d.client.embedded import Embedded
from k2d.documents import BatchOptions
from k2d.errors import NotFound
from k2d.filtering.distance import counts
from k2d.inference.open import engine_of
from k2d.logs import setup
from k2d.schema import ChunkFacts, Window
from k2d.settings import Settings
from k2d.settings import load as settings_of
from k2d.store import Lake
from k2d.text.reading import read
from k2d.validators.probe.network import Probe, frames_of, load
from k2d.validators.probe.validator import probe_hypothesis
from trainer.probe.crossfit import ProbeRecipe, StoredProbe, cross_fit

MAX_S = 30.0
BAD = (0.1, 0.2, 0.4)
KEPT = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Label:
    """One label with its truth and what ranks it; larger is worse."""

    seconds: float
    edits: int
    tokens: int
    signals: dict[str, float]


class Remembering:
    """An engine whose encoder hears nothing twice: encodings lie in a folder, cut to their audio."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._engine = engine_of(settings.teacher, settings)
        self._folder = folder
        self.model = self._engine.model

    def encode(self, windows: list[Window]) -> np.ndarray:
        paths = [self._folder / f"{hashlib.sha1(w.samples.tobytes()).hexdigest()}.npy" for w in windows]
        new = [index for index, path in enumerate(paths) if not path.exists()]
        if new:
            for index, row in zip(new, self._engine.encode([windows[index] for index in new]), strict=True):
                np.save(paths[index], row[: frames_of(len(windows[index].samples))])
        rows = [np.load(path) for path in paths]
        out = np.zeros((len(rows), 1500, rows[0].shape[1]), np.float16)
        for full, row in zip(out, rows, strict=True):
            full[: len(row)] = row
        return out


def label(folder: Path, lake: Lake, settings: Settings) -> dict[str, dict]:
    """See to it that the folder is labeled; its rows by the name of their file."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    usable = {row["audio"]: row for row in rows if row["duration"] <= MAX_S and row.get("text", "none") != "none"}
    try:
        lake.batches.get(folder.name)
    except NotFound:
        paths = [str(folder / name) for name in usable]
        Embedded(settings).label(paths, BatchOptions(name=folder.name), wait=True)
    return usable


def labels(folder: Path, rows: dict[str, dict], lake: Lake, probe: Probe, engine: Remembering) -> Iterator[Label]:
    for result in lake.batches.results(lake.batches.get(folder.name).id):
        row = next((row for name, row in rows.items() if result.name.endswith(name)), None)
        if row is None or result.facts_key is None or result.label_key is None:
            continue
        facts = list(lake.facts.read(result.facts_key))
        if len(facts) == 1:
            flac = lake.labels.audio(result.label_key, 0)
            yield weigh(facts[0], flac, row, probe, engine)


def weigh(facts: ChunkFacts, flac: bytes, row: dict, probe: Probe, engine: Remembering) -> Label:
    samples = decode_flac(flac)
    encoded = engine.encode([Window(samples)])[0][: frames_of(len(samples))]
    texts = [segment.text for segment in facts.segments]
    hypothesis = probe_hypothesis(probe, texts, encoded, facts.recording_id, name="probe")
    distance = counts(hypothesis.text.split(), read(facts.teacher_text).phonemes).bounded
    sizes = [max(1, len(probe.read(text))) for text in texts]
    score = float(np.average(hypothesis.forced_logprobs, weights=sizes))
    own = sum(one.avg_logprob * (len(one.tokens) + 1) for one in facts.segments)
    teacher = own / sum(len(one.tokens) + 1 for one in facts.segments)
    perturbed = facts.distances.phonemes.bounded
    label_tokens = read(facts.teacher_text).tokens
    references = [read(row[key]).tokens for key in ("text", "text_spoken") if key in row]
    edits, tokens = min((counts(one, label_tokens).edits, len(one)) for one in references)
    signals = {
        "teacher's log-probability": -teacher,
        "probe: distance": distance,
        "probe: log-probability of the label": -score,
        "probe: likelihood ratio, label to best path": hypothesis.avg_logprob
        * len(hypothesis.text.split())
        / sum(sizes)
        - score,
        "perturbed: phoneme distance, bounded": perturbed,
        "perturbed + probe: mean of both distances": (perturbed + distance) / 2,
        "perturbed + probe: the larger distance": max(perturbed, distance),
    }
    return Label(facts.duration_s, edits, tokens, signals)


# ---- tables -------------------------------------------------------------------------------------------------------


def curve(found: list[Label], signal: str) -> np.ndarray:
    """Label MER when 1, 2 … 100 % of the seconds are kept."""
    rank = np.unique([one.signals[signal] for one in found], return_inverse=True)[1]
    seconds, edits, tokens = (
        np.concatenate(([0.0], np.cumsum(np.bincount(rank, [getattr(one, name) for one in found]))))
        for name in ("seconds", "edits", "tokens")
    )
    shares, known = np.linspace(0.01, 1.0, 100), seconds / seconds[-1]
    return np.interp(shares, known, edits) / np.maximum(np.interp(shares, known, tokens), 1e-9)


def auc(values: np.ndarray, bad: np.ndarray) -> float:
    """How often a bad label ranks behind a good one; equal ones half."""
    pairs = values[bad][:, None] - values[~bad][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else float("nan")


def table(title: str, found: list[Label]) -> None:
    truth = np.array([one.edits / max(1, one.tokens) for one in found])
    edits, tokens = sum(one.edits for one in found), sum(one.tokens for one in found)
    print(f"\n## {title}: {len(found)} labels, {sum(one.seconds for one in found):.0f} s, MER {edits / tokens:.3f}\n")
    bads = " | ".join(f"AUC, MER > {bad}" for bad in BAD)
    kepts = " | ".join(f"MER, {share:.0%} kept" for share in KEPT)
    print(f"| signal | {bads} | {kepts} | area |\n|---|---|---|---|---|---|---|---|")
    for signal in found[0].signals:
        values = np.array([one.signals[signal] for one in found])
        risks = curve(found, signal)
        cells = [f"{auc(values, truth > bad):.2f}" for bad in BAD]
        cells += [f"{risks[round(share * 100) - 1]:.3f}" for share in KEPT]
        print(f"| {signal} | {' | '.join(cells)} | {risks.mean():.4f} |")


def report(trained: StoredProbe) -> None:
    whole = trained.all
    print(f"{trained.name}: {whole.chunks} labels of {trained.recordings} recordings, {whole.seconds:.0f} s")
    print(f"held out: CTC loss {whole.loss:.3f} a phoneme, median distance {whole.distance:.3f}")
    print(f"encoded in {trained.encode_s:.0f} s, trained in {trained.train_s:.0f} s on {trained.device}")
    print(f"skipped: {dict(trained.skipped)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with a manifest.jsonl")
    parser.add_argument("--store", help="keep labels here, to run again without labeling")
    parser.add_argument("--encodings", type=Path, help="keep encodings here, to run again without the encoder")
    usual = ProbeRecipe()
    parser.add_argument("--folds", type=int, default=usual.folds)
    parser.add_argument("--epochs", type=int, default=usual.epochs)
    parser.add_argument("--seed", type=int, default=usual.seed)
    arguments = parser.parse_args()
    settings = settings_of(store=arguments.store or tempfile.mkdtemp(prefix="k2d-bench-"), log_level="warning")
    setup(settings)
    lake = Lake(settings.store)
    rows = {folder: label(folder, lake, settings) for folder in arguments.folders}
    encodings = arguments.encodings or Path(tempfile.mkdtemp(prefix="k2d-encodings-"))
    encodings.mkdir(exist_ok=True)
    engine = Remembering(settings, encodings)
    recipe = ProbeRecipe(folds=arguments.folds, epochs=arguments.epochs, seed=arguments.seed)
    names = [folder.name for folder in arguments.folders]
    trained = cross_fit(lake, names, recipe, settings=settings, on_progress=on_progress, engine=engine)
    report(trained)
    probe = load(lake.probes.get(trained.digest))
    started = time.monotonic()
    found = {folder.name: list(labels(folder, rows[folder], lake, probe, engine)) for folder in arguments.folders}
    count = sum(map(len, found.values()))
    print(f"judged without the encoder: {1000 * (time.monotonic() - started) / count:.1f} ms a label")
    for name, some in found.items():
        table(name, some)
    if len(found) > 1:
        table("all", [one for some in found.values() for one in some])


def on_progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done} of {total}   ", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    main()

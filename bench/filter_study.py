"""Does the filter keep the better labels? Label error of what is kept against what is dropped, by metric and α.

    python bench/filter_study.py ../shared/data/public ../shared/data/real

Labels every recording of at most 30 s that has a trusted reference (teacher and validator as the settings say), with
the walk that the service uses, and scores labels against references, which the filter never sees. A label's error is
its mixed error rate; a group's is the sum of edits over the sum of reference tokens. Where a reference has numbers
written in digits, the better of its written and spoken form counts. Recordings in which nothing is said have no
reference tokens: every label token there is an edit, and they are listed apart too. Writes nothing but its store.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k2d.batches import LabelRequest
from k2d.catalog import ChunkFilter
from k2d.distance import counts
from k2d.embedded import Embedded
from k2d.logs import setup
from k2d.policy import DEFAULT
from k2d.settings import load
from k2d.text.tokens import mixed_tokens

METRICS = ("mer", "per", "composite", "mer_bounded", "per_bounded")
ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MAX_S = 30.0


@dataclass(frozen=True)
class Label:
    """One label with its truth."""

    row: dict
    seconds: float
    edits: int
    tokens: int
    language: str


def labels_of(folder: Path, store: str) -> tuple[list[Label], float, float]:
    """Label a data folder; returns labels, seconds of audio, wall seconds."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    usable = {
        str(folder / row["audio"]): row
        for row in rows
        if row["duration"] <= MAX_S and row.get("text", "none") != "none"
    }
    settings = load(store=store, log_level="warning")
    setup(settings)
    backend = Embedded(settings)
    started = time.monotonic()
    status = backend.label(list(usable), LabelRequest(name=folder.name), wait=True, on_status=progress)
    wall_s = time.monotonic() - started
    print(file=sys.stderr)
    found = [
        label(chunk, usable[chunk["recording"]])
        for chunk in single_chunks(backend.chunks(folder.name, DEFAULT, ChunkFilter()))
    ]
    return found, status["ledger"]["seconds"]["in"], wall_s


def single_chunks(chunks):
    """Chunks of recordings that became one chunk: only there the recording's reference is the chunk's."""
    by_recording: dict[str, list] = {}
    for chunk in chunks:
        by_recording.setdefault(chunk["recording"], []).append(chunk)
    return [few[0] for few in by_recording.values() if len(few) == 1]


def label(chunk: dict, row: dict) -> Label:
    references = [mixed_tokens(row[key]) for key in ("text", "text_spoken") if key in row]
    scored = [
        (counts(reference, mixed_tokens(chunk["teacher_text"])).edits, len(reference)) for reference in references
    ]
    edits, tokens = min(scored)
    return Label(chunk, chunk["end_s"] - chunk["start_s"], edits, tokens, row["language"])


def progress(status: dict) -> None:
    print(f"\r{status['recordings']}/{status['total']} recordings, {status['seconds']:.0f} s", end="", file=sys.stderr)


def table(found: list[Label]) -> None:
    edits, tokens, seconds = (
        np.array([getattr(x, name) for x in found], float) for name in ("edits", "tokens", "seconds")
    )
    silent = tokens == 0

    def error(mask: np.ndarray) -> str:
        return f"{edits[mask].sum() / tokens[mask].sum():.3f}" if tokens[mask].sum() else "–"

    print(
        f"| metric | α | seconds kept | label MER kept | dropped | labels on non-speech kept, of {int(silent.sum())} |"
    )
    print("|---|---|---|---|---|---|")
    everything = np.ones(len(found), bool)
    print(f"| no filter | – | 100 % | {error(everything)} | – | {int(silent.sum())} |")
    for metric in METRICS:
        distance = np.array([x.row[metric] for x in found])
        for alpha in ALPHAS:
            keep = distance <= alpha
            share = seconds[keep].sum() / seconds.sum()
            print(
                f"| {metric} | {alpha} | {share:.1%} | {error(keep)} | {error(~keep)} | {int((keep & silent).sum())} |"
            )
    accepted = np.array([x.row["verdict"] == "accepted" for x in found])
    share = seconds[accepted].sum() / seconds.sum()
    figures = f"{share:.1%} | {error(accepted)} | {error(~accepted)} | {int((accepted & silent).sum())}"
    print(f"| **default policy** | 0.4 | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with a manifest.jsonl")
    parser.add_argument("--store", help="keep labels here, to run again without a model")
    arguments = parser.parse_args()
    store = arguments.store or tempfile.mkdtemp(prefix="k2d-bench-")
    for folder in arguments.folders:
        found, seconds, wall_s = labels_of(folder, store)
        print(f"\n## {folder.name}: {len(found)} labels, {seconds:.0f} s in, {seconds / wall_s:.1f} × real time\n")
        table(found)


if __name__ == "__main__":
    main()

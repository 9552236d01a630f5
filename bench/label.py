"""`k2d label` from end to end: time, CPU seconds and peak memory, of this tree and of other trees or settings, in turn.

    python bench/label.py [--clips 12] [--long 1] [--rounds 2] [--tree NAME=FOLDER] [--run NAME:K2D_BEAM_SIZE=1,…]

Labels the same recordings of the measuring data (../shared/data/public) into a fresh store with each run, validated by
`perturbed`: a process each, runs in turn, so that whatever else the machine does hits all of them. The first run is the
baseline of the ratios. `--tree` names another checkout (of an earlier version) whose code is run by this interpreter;
`--run` is this tree with other settings. The defaults are greedy and the settings as they come.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[1]
DATA = HERE.parent / "shared" / "data" / "public"
# another tree has other commands than those that this environment's metadata name
LABEL = """
import importlib.metadata as metadata
every = metadata.entry_points
metadata.entry_points = lambda **of: () if of.get("group") == "k2d.commands" else every(**of)
from k2d.cli import main
main()
"""


@dataclass
class Run:
    """One way to label, and what it took in each round."""

    name: str
    tree: Path = HERE
    settings: dict[str, str] = field(default_factory=dict)
    wall_s: list[float] = field(default_factory=list)
    user_s: list[float] = field(default_factory=list)
    system_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def measure(self, recordings: Sequence[Path]) -> None:
        """Label once, in a process of its own."""
        with tempfile.TemporaryDirectory() as store:
            environment = {**os.environ, **self.settings, "K2D_STORE": store, "PYTHONPATH": str(self.tree)}
            command = [sys.executable, "-c", LABEL, "label", "--embedded", "--json", "--validator", "perturbed"]
            started = time.perf_counter()
            process = subprocess.Popen(
                [*command, *map(str, recordings)], env=environment, cwd=self.tree, stdout=subprocess.PIPE
            )
            with process:
                ledger = json.loads(process.stdout.read()) if process.stdout else {}
                _, _, used = os.wait4(process.pid, 0)
            if ledger.get("state") != "done":
                sys.exit(f"{self.name}: {ledger}")
        self.wall_s.append(time.perf_counter() - started)
        self.user_s.append(used.ru_utime)
        self.system_s.append(used.ru_stime)
        self.peak_mb.append(used.ru_maxrss / 1024)


def recordings_of(clips: int, long: int) -> list[Path]:
    """Clips taken evenly from all clean ones, and the first long recordings."""
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text("utf-8").split("\n") if line]
    short = [row for row in rows if row["kind"] in ("clip", "joined")]
    chosen = short[:: max(1, len(short) // clips)][:clips] if clips else []
    return [DATA / row["audio"] for row in (*chosen, *[row for row in rows if row["kind"] == "longform"][:long])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--long", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--run", action="append", default=[], metavar="NAME:K2D_X=1,K2D_Y=2")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    runs = [Run(name, Path(folder)) for name, _, folder in (given.partition("=") for given in arguments.tree)]
    for name, _, given in (run.partition(":") for run in arguments.run or ["greedy:K2D_BEAM_SIZE=1", "as it comes:"]):
        runs.append(Run(name, settings=dict(pair.split("=", 1) for pair in given.split(",") if pair)))
    recordings = recordings_of(arguments.clips, arguments.long)
    for _ in range(arguments.rounds):
        for run in runs:
            run.measure(recordings)
    print(f"{len(recordings)} recordings, medians of {arguments.rounds} rounds")
    print(f"{'':24}{'wall s':>9}{'user s':>9}{'system s':>9}{'peak MB':>9}{'speed':>8}")
    for run in runs:
        speed = median(runs[0].wall_s) / median(run.wall_s)
        figures = [median(values) for values in (run.wall_s, run.user_s, run.system_s, run.peak_mb)]
        print(f"{run.name:24}" + "".join(f"{figure:9.1f}" for figure in figures) + f"{speed:7.2f}×")


if __name__ == "__main__":
    main()

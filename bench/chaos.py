"""Kills and disturbs a running stack at random, and compares what comes out with an undisturbed run.

    python bench/chaos.py [--seed S] [--kills 20] [--flushes 1] [--full-disks 1] [--read-onlys 1] [--clock-steps 1]
        [--documents 0] [--versions 0] [--minutes M] [--servers] [--model packaged:whisper-base]

Everything is real and on this machine alone: `k2d up` with Redis, API and workers, a store on a file system of its own.
The teacher is a small random Whisper unless `--model` names another. Short recordings, some of them bad, are labeled
and frozen once undisturbed. Then in rounds, each with a fresh store, faults drawn from the seed come while it works;
when nothing more happens the batch must be done and the dataset frozen, with nothing but those steps by hand that a
message of the program names. Ledger, chunks, the bytes of all shards and of the dataset, and documents must be equal.

Prints figures and the seed, with which the same faults are drawn again. Exit status 1 where anything differs; the store
of that round is kept.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Final

from chaos_clock import Clock
from chaos_corpus import write_recordings, write_teacher
from chaos_faults import Fault, drawn
from chaos_result import Differences, compare
from chaos_round import Round

PER_ROUND: Final = 12  # faults, before a batch may come to its end

# quick: short jobs, short waits, one thread each, and many retries, since every kill costs one
SETTINGS: Final = {
    "K2D_GROUP_S": "15",
    "K2D_CONCURRENCY": "2",
    "K2D_THREADS": "1",
    "K2D_BEAM_SIZE": "1",
    "K2D_RETRY_S": ",".join(["1"] * 30),
    "K2D_SERVER_PATIENCE_S": "30",
    "K2D_LOG_LEVEL": "warning",
}


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # what runs is stopped then, too
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    work = Path(tempfile.mkdtemp(prefix="k2d-chaos-"))
    print(f"seed {seed}   files {work}", flush=True)
    bench = Bench(arguments, seed, work)
    try:
        failed = bench.run()
    finally:
        print(bench.table(), flush=True)
    repeat = f"python bench/chaos.py --seed {seed} " + " ".join(_asked(arguments))
    if failed:
        sys.exit(f"\nchaos: {failed}\n  repeat: {repeat}\n  files: {work}")
    shutil.rmtree(work)
    print(f"nothing lost, nothing twice, the same bytes   ({repeat})")


class Bench:
    """All rounds of one seed, and their sums."""

    def __init__(self, arguments: argparse.Namespace, seed: int, work: Path) -> None:
        self.arguments, self.seed, self.work = arguments, seed, work
        self.counts: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()  # by hand, as a message said
        self.unsaid: Counter[str] = Counter()  # by hand, though no message said so
        self.rounds = 0
        self.usual_s = 0.0  # what the undisturbed run takes
        self.differences: list[Differences] = []
        self.left: list[str] = []
        self.started = time.monotonic()
        self.recordings = write_recordings(work / "recordings", count=arguments.recordings, seed=seed)
        self.clock = Clock(work / "clocks")
        self.settings = dict(SETTINGS)
        if arguments.model is None:
            teacher = write_teacher(work / "teacher", cache=work / "cache")
            self.settings |= {"K2D_TEACHER": str(teacher), "K2D_CACHE": str(work / "cache")}
        else:
            self.settings |= {"K2D_TEACHER": arguments.model}

    def run(self) -> str:
        """Run all rounds; returns what is wrong, in a sentence."""
        calm = self._round("undisturbed", deque())
        if calm.result is None:
            return f"the undisturbed run did not come to its end: {'; '.join(calm.failures)}"
        self.usual_s = calm.took_s
        kinds = {
            "kill": self.arguments.kills,
            "flush": self.arguments.flushes,
            "full disk": self.arguments.full_disks,
            "read-only": self.arguments.read_onlys,
            "clock step": self.arguments.clock_steps,
            "document": self.arguments.documents,
            "version": self.arguments.versions,
        }
        faults = deque(drawn(kinds, self.seed))
        deadline = self.started + self.arguments.minutes * 60
        while faults and time.monotonic() < deadline:
            self.rounds += 1
            if failed := self._compared(calm, self._round(f"round-{self.rounds:03d}", faults)):
                return failed
        return ""

    def _round(self, name: str, faults: deque[Fault]) -> Round:
        coming = list(faults)[:PER_ROUND]
        self.clock.step(0)
        steps = any(fault.kind == "clock step" for fault in coming)
        run = Round(
            name=name,
            folder=self.work / name,
            recordings=self.recordings,
            settings=self.settings,
            workers=self.arguments.workers,
            serve=self.arguments.servers,
            preload=self.clock.variables if steps else {},
            clock=self.clock,
            counts=self.counts,
            steps=self.steps,
            unsaid=self.unsaid,
            by_content=any(fault.kind in ("version", "document") for fault in coming),
            usual_s=self.usual_s,
        )
        run.run(faults, at_most=PER_ROUND, seed=f"{self.seed}/{name}")
        return run

    def _compared(self, calm: Round, run: Round) -> str:
        sentences = list(run.failures)
        if run.result is not None:
            reference = calm.result_by_content if run.by_content else calm.result
            assert reference is not None
            differences = compare(reference, run.result)
            self.differences.append(differences)
            sentences += differences.sentences()
        self.left += run.left
        if sentences:
            return f"{run.name}: " + "\n  ".join(sentences)
        run.forget()
        return ""

    def table(self) -> str:
        """The figures, as a table."""
        sums = self.differences
        kills = ", ".join(f"{name[5:]} {count}" for name, count in sorted(self.counts.items()) if name[:5] == "kill ")
        rows = [
            ("rounds", str(self.rounds)),
            ("kills", f"{self.counts['kill']}" + (f" ({kills})" if kills else "")),
            *((kind, str(self.counts[kind])) for kind in ("flush", "full disk", "read-only", "clock step")),
            *((kind, str(self.counts[kind])) for kind in ("document", "version")),
            ("seconds unaccounted", f"{sum(item.unaccounted_s for item in sums):.3f}"),
            ("chunks twice", str(sum(item.doubles for item in sums))),
            ("files with other bytes", str(sum(len(item.bytes_differ) for item in sums))),
            ("steps by hand that a message named", _counted(self.steps)),
            ("steps by hand that no message named", _counted(self.unsaid)),
            ("processes left behind", _counted(Counter(self.left))),
            ("minutes", f"{(time.monotonic() - self.started) / 60:.1f}"),
        ]
        return "\n".join(f"  {name:38} {value}" for name, value in rows)


def _counted(counter: Counter[str]) -> str:
    inside = ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
    return f"{counter.total()}" + (f" ({inside})" if inside else "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="Of an earlier run, to draw the same faults.")
    for name, count in (
        ("kills", 20),
        ("flushes", 1),
        ("full-disks", 1),
        ("read-onlys", 1),
        ("clock-steps", 1),
        ("documents", 0),
        ("versions", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="No round begins after so many.")
    parser.add_argument("--recordings", type=int, default=8, help="Good ones; the bad ones come beside them.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", action="store_true", help="The teacher in a server of its own.")
    parser.add_argument("--model", help="The teacher instead of a small random one, such as packaged:whisper-base.")
    return parser.parse_args()


def _asked(arguments: argparse.Namespace) -> list[str]:
    """The options as they were given, for the same run again."""
    words: list[str] = []
    for name, value in vars(arguments).items():
        if name == "seed" or value in (None, False):
            continue
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


if __name__ == "__main__":
    main()

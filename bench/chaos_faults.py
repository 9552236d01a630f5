"""The faults of a chaos run: what is done to a running stack, drawn from a seed."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import psutil
from chaos_clock import Clock
from chaos_stack import ChaosStack
from chaos_volume import Volume
from redis.exceptions import RedisError
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer

from services.filter.queue import QUEUES

CLOCK_STEP_S: Final = 7200
OTHER_VERSION: Final = 'import k2d.version\nk2d.version.__version__ = "0.0.1"'
# what is killed, and how often compared with the others: what works most is what usually dies
TARGETS: Final = {"horse": 5, "worker": 4, "api": 2, "redis": 2, "server": 2, "scheduler": 1, "decoder": 1, "up": 1}
HOLD_S: Final = (0.5, 4.0)  # how long a disk is full or read-only
DOCUMENTS: Final = ("labels", "hypotheses", "facts", "examinations", "batches", "names", "datasets")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to do to the stack. `seed` decides what exactly; what is there at that moment does so too."""

    kind: str
    seed: str


@dataclass(slots=True)
class Faults:
    """Does faults to one stack and counts them in `counts`: by kind, and kills by what was killed.

    faults = Faults(stack, volume, counts=Counter(), clock=Clock(Path("clocks")), say=print)
    faults.do(Fault("kill", "7/1"))
    """

    stack: ChaosStack
    volume: Volume
    counts: Counter[str]
    clock: Clock
    say: Callable[[str], None]
    targets: dict[str, int] = field(default_factory=lambda: dict(TARGETS))

    def do(self, fault: Fault) -> None:
        """Do it, and return when it is over; what the stack makes of it takes longer."""
        draw = random.Random(fault.seed)
        done = getattr(self, f"_{fault.kind.replace(' ', '_').replace('-', '_')}")(draw)
        if done:
            self.counts[fault.kind] += 1
            self.say(done)

    def _kill(self, draw: random.Random) -> str:
        alive = [(role, process) for role, process in self.stack.processes() if role in self.targets]
        roles = sorted({role for role, _ in alive})
        if not roles:
            return ""
        role = draw.choices(roles, [self.targets[role] for role in roles])[0]
        process = draw.choice([process for other, process in alive if other == role])
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            self.counts[f"kill {role}"] += 1
            return f"kill -9 {role} (pid {process.pid})"
        return ""

    def _flush(self, draw: random.Random) -> str:
        try:
            redis = self.stack.redis()
            if redis is None:
                return ""
            redis.flushall()
        except RedisError:
            return ""
        return "FLUSHALL"

    def _full_disk(self, draw: random.Random) -> str:
        hold_s = draw.uniform(*HOLD_S)
        with self.volume.full([process for _, process in self.stack.processes()]):
            time.sleep(hold_s)
        return f"full disk for {hold_s:.1f} s"

    def _read_only(self, draw: random.Random) -> str:
        hold_s = draw.uniform(*HOLD_S)
        with self.volume.read_only():
            time.sleep(hold_s)
        return f"read-only store for {hold_s:.1f} s"

    def _clock_step(self, draw: random.Random) -> str:
        """All clocks of the stack jump, or one worker comes whose clock is wrong; where clocks cannot be changed, the
        schedules look as if one had been there."""
        step_s = draw.choice((-CLOCK_STEP_S, CLOCK_STEP_S))
        if not self.clock.works:
            return self._skew_schedules(step_s)
        if draw.random() < 0.5:
            self.clock.step(step_s)
            return f"clock step of {step_s:+d} s"
        if not self.stack.redis_url():
            return ""
        self.stack.start_worker("", self.clock.wrong(step_s))
        return f"a worker whose clock is {step_s:+d} s wrong"

    def _skew_schedules(self, step_s: int) -> str:
        with contextlib.suppress(RedisError):
            redis = self.stack.redis()
            for queue in QUEUES if redis is not None else ():
                registry = ScheduledJobRegistry(queue, connection=redis, serializer=JSONSerializer)
                for job_id in registry.get_job_ids():
                    redis.zincrby(registry.key, step_s, job_id)
            return f"schedules moved by {step_s:+d} s"
        return ""

    def _version(self, draw: random.Random) -> str:
        if not self.stack.redis_url():
            return ""
        self.stack.start_worker(OTHER_VERSION, {})
        return "a worker of version 0.0.1"

    def _document(self, draw: random.Random) -> str:
        """Cut, garble, empty or remove one file of the store."""
        store = self.volume.store
        paths = sorted(path for folder in DOCUMENTS for path in (store / folder).rglob("*.*") if path.is_file())
        paths = [path for path in paths if path.suffix in (".json", ".parquet", ".arrow")]
        if not paths:
            return ""
        path = draw.choice(paths)
        how = draw.choice(("cut", "garbled", "emptied", "removed"))
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if how == "removed":
                path.unlink()
            else:
                path.write_bytes(_damaged(data, how))
            return f"{path.relative_to(store)} {how}"
        return ""


def _damaged(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {"cut": data[:middle], "garbled": data[:middle] + b"\0\xff" + data[middle + 2 :], "emptied": b""}[how]


def drawn(kinds: dict[str, int], seed: int) -> Iterator[Fault]:
    """Faults in random order: as many of each kind as `kinds` says."""
    names = [kind for kind, count in kinds.items() for _ in range(count)]
    random.Random(seed).shuffle(names)
    for number, kind in enumerate(names):
        yield Fault(kind, f"{seed}/{number}")

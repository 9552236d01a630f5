"""One round of the chaos bench: a fresh store, a batch and a dataset, with faults; and what a person does by hand."""

import json
import random
import shutil
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from chaos_clock import Clock
from chaos_faults import Fault, Faults
from chaos_result import RunResult, collect, unaccounted_s
from chaos_stack import ChaosStack
from chaos_volume import Volume
from redis.exceptions import RedisError

from k2d.client.http import Unreachable
from k2d.documents import BatchOptions, BatchStatus
from k2d.errors import K2DError
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState

BATCH: Final = "recordings"
DATASET: Final = "dataset"
# between faults, as shares of what the undisturbed run took: so they come while work goes on, on any machine
GAP: Final = (0.01, 0.15)
FREEZE_GAP: Final = (0.0, 0.03)  # while a dataset is frozen, which takes less
LOOK_S: Final = 0.15
STALLED_S: Final = 20.0  # a stack that looks after itself has got over a lost Redis by then
STUCK_S: Final = 300.0  # without a change, after which nothing more is expected
GIVEN_UP: Final = ("crashes_worker", "failed")  # reasons that another attempt may undo


@dataclass(slots=True)
class Round:
    """Labels and freezes the recordings in a fresh store while faults come; `run` fills the last members."""

    name: str
    folder: Path
    recordings: Sequence[Path]
    settings: Mapping[str, str]
    workers: int
    serve: bool
    preload: Mapping[str, str]
    clock: Clock
    counts: Counter[str]
    steps: Counter[str]
    unsaid: Counter[str]
    by_content: bool  # rows are compared, not bytes: workers of another version will come, or files be damaged
    usual_s: float  # what the undisturbed run took, from its batch to its dataset
    took_s: float = 0.0
    result: RunResult | None = None
    result_by_content: RunResult | None = None
    failures: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    _state: str = ""
    _since: float = 0.0
    _freezing: bool = False

    def run(self, faults: deque[Fault], *, at_most: int, seed: str) -> None:
        """Take up to `at_most` faults from the queue; end when everything is done after that, or will never be."""
        self.folder.mkdir()
        started = time.monotonic()
        stack = ChaosStack(
            store=self.folder / "volume" / "store",
            mark=self.folder / "t",
            log=self.folder / "log",
            variables=self.settings,
            workers=self.workers,
            serve=self.serve,
            preload=self.preload,
        )
        with Volume(self.folder / "volume") as volume:
            try:
                with stack:
                    self._disturb(stack, volume, faults, at_most=at_most, draw=random.Random(seed))
                    if not self.failures:
                        self._collect(stack, volume)
                    volume.keep = bool(self.failures)
            finally:
                self.left = stack.left
            self.failures += [f"left behind after the end: {name}" for name in self.left]
            self.steps["k2d up"] += stack.starts
            # a difference is found later: the store stays until `forget`
            volume.keep = True
        self._say(f"done in {time.monotonic() - started:.0f} s" if not self.failures else "; ".join(self.failures))

    def forget(self) -> None:
        """Remove the round's files: it was like the undisturbed one."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _disturb(
        self, stack: ChaosStack, volume: Volume, faults: deque[Fault], *, at_most: int, draw: random.Random
    ) -> None:
        actions = Faults(stack, volume, counts=self.counts, clock=self.clock, say=self._say)
        left = min(at_most, len(faults))
        self._changed("posting")
        began = time.monotonic()
        next_at = began + draw.uniform(*GAP) * self.usual_s
        while not self.failures:
            if left and time.monotonic() >= next_at:
                fault = faults.popleft()
                actions.do(fault)
                left -= 1
                if fault.kind == "document":
                    self._repair(stack)
                self._since = time.monotonic()
                gap = draw.uniform(*(FREEZE_GAP if self._freezing else GAP))
                next_at = time.monotonic() + gap * self.usual_s
            if stack.start_again():
                self._say("k2d up started again")
            if self._step(stack):
                self.took_s = time.monotonic() - began
                return
            if time.monotonic() - self._since > STUCK_S:
                self._give_up(stack)
            time.sleep(LOOK_S)

    def _step(self, stack: ChaosStack) -> bool:
        """Look at the batch, and do the next thing for it; returns whether the dataset is there."""
        try:
            if self._state == "posting":
                self._post(stack)
                return False
            if self._freezing:
                return self._freeze(stack)
            status = stack.client.status(BATCH)
            self._watch(stack, status)
            return False
        except (Unreachable, httpx.TransportError):
            return False  # it is started again, or never: STUCK_S
        except K2DError as error:
            self._changed(f"{error.code}: {error.message}", keep_time=True)
            return False

    def _post(self, stack: ChaosStack) -> None:
        stack.client.label([str(path) for path in self.recordings], BatchOptions(name=BATCH))
        self._changed("posted")

    def _watch(self, stack: ChaosStack, status: BatchStatus) -> None:
        counts = status.ledger.recordings
        self._changed(f"{status.state} {counts.labeled} labeled {counts.quarantined} quarantined")
        if lost := unaccounted_s(status):
            self.failures.append(f"while it ran {lost:.3f} s were unaccounted for")
        for_s = time.monotonic() - self._since
        if status.state is BatchState.STALLED and for_s > STALLED_S:
            if status.jobs and status.jobs.jobs_failed:
                self.steps["k2d retry"] += 1
                self._say(f"retry, as `k2d label` says: {status.jobs.last_error}")
                stack.client.retry(BATCH)
            else:
                self.steps["k2d resume"] += 1
                self._say("resume, as `k2d status` says")
                stack.client.resume()
            self._since = time.monotonic()
        if status.state is BatchState.DONE:
            given_up = [item for item in status.quarantined if item.reason in GIVEN_UP]
            if any("k2d retry" in (item.detail or "") for item in given_up):
                self.steps["k2d retry"] += 1
                self._say(f"retry, as the status says: {given_up[0].detail}")
                stack.client.retry(BATCH)
                return
            self._freezing = True
            self._changed("freezing")

    def _freeze(self, stack: ChaosStack) -> bool:
        """Ask for the dataset, until it is there. Who waits for one that was lost is told so, and asks again."""
        request = {
            "name": DATASET,
            "batches": [BATCH],
            "policy": DEFAULT.model_dump(mode="json"),
            "allow_mixed": self.by_content,
        }
        response = stack.client.http.get(f"/v1/datasets/{DATASET}")
        if response.status_code == 404 or response.json().get("state") == "failed":
            if self._state != "freezing":
                self.steps["k2d freeze"] += 1
                self._say(f"freeze again: {response.json().get('error') or response.json().get('detail')}")
            stack.client.http.post("/v1/datasets", json=request)
            self._changed("freeze asked for")
            return False
        return bool(response.json().get("state") == "ready")

    def _repair(self, stack: ChaosStack) -> None:
        """What a person does who sees that a file is damaged: mend the store, then what the command says."""
        self.steps["k2d store check --repair"] += 1
        output = stack.k2d("store", "check", "--repair", "--json").stdout
        to_do = {item["to_do"] or "" for item in json.loads(output)["found"]} if output else set()
        self._say("k2d store check --repair; then " + ("; ".join(filter(None, sorted(to_do))) or "nothing"))
        with suppress(K2DError):  # the batch goes on being watched
            if any("k2d label" in text for text in to_do):
                self.steps["k2d label"] += 1
                self._post(stack)
            if any("k2d resume" in text for text in to_do):
                self.steps["k2d resume"] += 1
                stack.client.resume()

    def _collect(self, stack: ChaosStack, volume: Volume) -> None:
        for attempt in range(20):
            try:
                where = {"batch": BATCH, "dataset": DATASET}
                self.result_by_content = collect(stack.client, volume.store, by_content=True, **where)
                self.result = collect(stack.client, volume.store, by_content=self.by_content, **where)
                return
            except Unreachable:
                time.sleep(1 + attempt / 10)
        self.failures.append("the API did not answer any more")

    def _give_up(self, stack: ChaosStack) -> None:
        """Nothing has changed for a long time: write down what is there, and whether a step by hand helps."""
        found = diagnosis(stack)
        (self.folder / "diagnosis.json").write_text(json.dumps(found, indent=1, default=str), "utf-8")
        self.failures.append(f"stuck for {STUCK_S:.0f} s in {self._state!r}; see {self.folder / 'diagnosis.json'}")
        with suppress(K2DError):
            resumed = stack.client.resume()
            self.unsaid["k2d resume"] += 1
            deadline = time.monotonic() + STUCK_S / 5
            while stack.client.status(BATCH).state is not BatchState.DONE and time.monotonic() < deadline:
                time.sleep(1)
            state = stack.client.status(BATCH).state
            self.failures.append(f"after `k2d resume` (which queued {resumed}) the batch is {state}")

    def _changed(self, state: str, *, keep_time: bool = False) -> None:
        if state != self._state:
            self._state = state
            if not keep_time:
                self._since = time.monotonic()

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {self.name}: {text}"
        print(line, flush=True)
        with (self.folder / "events").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def diagnosis(stack: ChaosStack) -> dict[str, Any]:
    """What the stack is in: processes, the batch, and what Redis has."""
    found: dict[str, Any] = {"processes": [f"{role} {process.pid}" for role, process in stack.processes()]}
    with suppress(K2DError):
        found["status"] = stack.client.status(BATCH).model_dump(mode="json")
    with suppress(RedisError):
        redis = stack.redis()
        for key in sorted(redis.keys("*")) if redis is not None else []:
            name = key.decode()
            kind = redis.type(key).decode()
            read = {"string": redis.get, "hash": redis.hgetall, "set": redis.smembers}.get(kind)
            if kind == "list":
                found[name] = redis.lrange(key, 0, -1)
            elif kind == "zset":
                found[name] = redis.zrange(key, 0, -1, withscores=True)
            elif read is not None:
                found[name] = read(key) if not name.startswith("rq:results") else "…"
    return _plain(found)


def _plain(value: Any) -> Any:
    """What Redis answers as JSON."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value

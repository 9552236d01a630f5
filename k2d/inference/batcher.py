"""The micro-batcher: calls of many recordings and many clients meet in one engine call, in turn, within bounds."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from k2d.errors import DeadlineExceeded, ModelError, Overloaded
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper.engine import Encoding, Engine

LINGER_SHARE = 0.05  # of the last batch's time: the most that waiting for the next to fill may cost
MAX_RETRY_AFTER_S = 60.0


class Observer(Protocol):
    """Callback interface for batch metrics. Called on the event loop."""

    def batch(self, *, size: int, waited_s: Sequence[float], engine_s: float) -> None: ...

    def refused(self, reason: str) -> None:
        """`reason` is an error's code."""
        ...


@dataclass(eq=False, slots=True)
class _Call:
    """One window on its way. Calls of equal `kind` can share an engine call."""

    kind: tuple[str, DecodeOptions]
    window: Window
    text: str
    client: str
    asked_at: float
    answer: asyncio.Future[Any]


class MicroBatcher:
    """A Transcriber over an engine in this process.

    While the engine works, calls gather; when it is free, up to `batch_size` of them go together. Turns go round the
    clients: whoever waited longest for a turn leads, its oldest call says the options, and the others add theirs, one
    at a time each. A free engine lingers for the callers it has just answered, since a recording's next window comes
    right after its last, but never longer than `linger_s` nor than 5 % of the last batch's time.

    At most `max_waiting` calls wait. When that is reached a new call displaces the newest one of the client with the
    most, unless that is its own; the one that has no place fails with Overloaded. A caller that is cancelled, or whose
    time is up, leaves the queue; an engine error reaches exactly the callers of its batch. Belongs to the event loop
    that first calls it.

    After `idle_s` seconds without work `on_idle` is called in the engine's thread (0: never).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch_size: int,
        linger_s: float = 0.25,
        max_waiting: int | None = None,
        observer: Observer | None = None,
        idle_s: float = 0.0,
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._max_waiting = max_waiting
        self._observer = observer
        self._idle_s, self._on_idle = idle_s, on_idle
        self._queues: dict[str, deque[_Call]] = {}  # by client, in the order of their turns
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._runner: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._expected = 0  # calls that may be waiting soon: those that wait, and those just answered
        self._free_at = 0.0
        self._last_batch_s = 0.0
        self._closed = False

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def waiting(self) -> int:
        """Calls that no engine call has taken yet."""
        return sum(1 for _ in self._alive())

    @property
    def retry_after_s(self) -> float:
        """When a refused caller may find room: about when what waits now has been done."""
        rounds = self.waiting / self._batch_size + 1
        return min(MAX_RETRY_AFTER_S, max(1.0, rounds * self._last_batch_s))

    async def transcribe(
        self, window: Window, options: DecodeOptions, *, client: str = "", timeout_s: float | None = None
    ) -> WindowResult:
        """Decode one window.

        Raises:
            BadRequest: the window or the options make no sense to this model.
            Overloaded: the queue is full of others' calls.
            DeadlineExceeded: there is no result after `timeout_s`.
            ModelError: the engine failed, or was closed.
        """
        self._engine.check(window, options)  # here, so that a bad window fails alone
        result: WindowResult = await self._ask("transcribe", window, options, "", client, timeout_s)
        return result

    async def score(
        self, window: Window, text: str, options: DecodeOptions, *, client: str = "", timeout_s: float | None = None
    ) -> TextScore:
        """How likely `text` is for the window; errors as for `transcribe`."""
        self._engine.check(window, options, text)
        result: TextScore = await self._ask("score", window, options, text, client, timeout_s)
        return result

    async def encode(self, window: Window, *, client: str = "", timeout_s: float | None = None) -> Encoding:
        """The encoder's output for the window, shape (1500, width); errors as for `transcribe`."""
        options = DecodeOptions()
        self._engine.check(window, options)
        result: Encoding = await self._ask("encode", window, options, "", client, timeout_s)
        return result

    async def close(self) -> None:
        """Fail the calls that wait, let the engine's current batch end, free the weights."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        for call in list(self._alive()):
            _settle(call, self._gone())
        self._queues.clear()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.close)
        self._thread.shutdown(wait=False)

    async def _ask(
        self, act: str, window: Window, options: DecodeOptions, text: str, client: str, timeout_s: float | None
    ) -> Any:
        if self._closed:
            raise self._gone()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = _Call((act, options), window, text, client, time.monotonic(), answer)
        self._make_room(client)
        self._queues.setdefault(client, deque()).append(call)
        self._arrived.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise self._refusal(DeadlineExceeded(f"no result within {timeout_s:g} s", hint=_HINT)) from None

    def _alive(self) -> Iterator[_Call]:
        return (call for call in chain.from_iterable(self._queues.values()) if not call.answer.done())

    def _make_room(self, client: str) -> None:
        """Refuse `client`, or the newest call of the client with the most, when the queue is full."""
        if self._max_waiting is None or self.waiting < self._max_waiting:
            return
        counts: dict[str, int] = {}
        for call in self._alive():
            counts[call.client] = counts.get(call.client, 0) + 1
        greediest = max(counts, key=lambda name: counts[name])
        error = self._refusal(
            Overloaded(
                f"{self._max_waiting} windows wait already", hint=_HINT, retry_after_s=round(self.retry_after_s, 1)
            )
        )
        if counts[greediest] <= counts.get(client, 0) + 1:
            raise error
        newest = next(call for call in reversed(self._queues[greediest]) if not call.answer.done())
        _settle(newest, error)

    def _refusal(self, error: ModelError) -> ModelError:
        if self._observer is not None:
            self._observer.refused(error.code)
        return error

    async def _run(self) -> None:
        """Work until nobody waits."""
        try:
            await asyncio.sleep(0)  # callers started in the same breath come along
            await self._linger()
            while batch := self._take():
                await self._work(batch)
                await self._linger()
        finally:
            self._runner = None
        if self._on_idle is not None and self._idle_s > 0 and not self._closed:
            self._plan_idle(self._on_idle)

    async def _work(self, batch: list[_Call]) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        started = time.monotonic()
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._answers, batch)
        outcome: Any = (await asyncio.gather(work, return_exceptions=True))[0]
        answers: Sequence[Any] = [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome
        self._free_at = time.monotonic()
        self._last_batch_s = self._free_at - started
        self._expected = self.waiting + sum(not call.answer.done() for call in batch)
        for call, answer in zip(batch, answers, strict=True):
            _settle(call, answer)
        if self._observer is not None:
            waited = [started - call.asked_at for call in batch]
            self._observer.batch(size=len(batch), waited_s=waited, engine_s=self._last_batch_s)

    def _answers(self, batch: list[_Call]) -> Sequence[Any]:
        """One engine call; in the engine's thread."""
        act, options = batch[0].kind
        windows = [call.window for call in batch]
        if act == "score":
            return self._engine.score(windows, [call.text for call in batch], options)
        if act == "encode":
            return list(self._engine.encode(windows))
        return self._engine.transcribe(windows, options)

    async def _linger(self) -> None:
        """Wait for the callers that were just answered, for a little while."""
        until = self._free_at + min(self._linger_s, LINGER_SHARE * self._last_batch_s)
        while not self._closed and self.waiting < min(self._batch_size, self._expected):
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._arrived.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()
            except TimeoutError:
                break

    def _take(self) -> list[_Call]:
        """The next batch: calls of one kind, one of each client in turn, round after round."""
        alive = {
            client: deque(call for call in queue if not call.answer.done()) for client, queue in self._queues.items()
        }
        self._queues = {client: queue for client, queue in alive.items() if queue}
        if not self._queues:
            return []
        kind = next(iter(self._queues.values()))[0].kind
        fitting = {client: [call for call in queue if call.kind == kind] for client, queue in self._queues.items()}
        depth = max(map(len, fitting.values()))
        rounds = (calls[turn] for turn in range(depth) for calls in fitting.values() if turn < len(calls))
        batch = [call for call, _ in zip(rounds, range(self._batch_size), strict=False)]
        taken = set(map(id, batch))
        for client in dict.fromkeys(call.client for call in batch):  # who had a turn goes to the end of the line
            left = deque(call for call in self._queues.pop(client) if id(call) not in taken)
            if left:
                self._queues[client] = left
        return batch

    def _plan_idle(self, on_idle: Callable[[], None]) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()

        def rest() -> None:
            if self._runner is None and not self._closed:
                loop.run_in_executor(self._thread, on_idle)

        self._idle_timer = loop.call_later(self._idle_s, rest)

    def _gone(self) -> ModelError:
        return ModelError(f"{self._engine.model.reference} was closed", hint="open it again")


_HINT = "ask again later, or add servers"


def _settle(call: _Call, outcome: Any) -> None:
    if call.answer.done():
        return
    if isinstance(outcome, BaseException):
        call.answer.set_exception(outcome)
    else:
        call.answer.set_result(outcome)

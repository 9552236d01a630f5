"""Collects the concurrent calls of many recordings and clients into batches for one engine."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol

from k2d.errors import DeadlineExceeded, ModelError, Overloaded
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper.engine import Encoding, Engine

LINGER_SHARE: Final = 0.05  # longest wait for a batch to fill, as a share of the last batch's time
MAX_RETRY_AFTER_S: Final = 60.0


class Observer(Protocol):
    """Callback interface for batch metrics. Called on the event loop."""

    def batch(self, *, size: int, waited_s: Sequence[float], engine_s: float) -> None:
        """A batch of `size` calls is done; `waited_s` has each call's time in the queue, in seconds."""
        ...

    def refused(self, reason: str) -> None:
        """A call was refused; `reason` is the error's code."""
        ...


@dataclass(eq=False, slots=True)
class _Call:
    """A waiting call. Calls of the same `kind` can share a batch."""

    kind: tuple[str, DecodeOptions]  # operation ("transcribe", "score" or "encode") and options
    window: Window
    text: str
    client: str
    submitted_at: float
    answer: asyncio.Future[Any]


class MicroBatcher:
    """A Transcriber over an engine in this process, which batches concurrent calls.

        batcher = MicroBatcher(engine, batch_size=16)
        results = await asyncio.gather(*(batcher.transcribe(window, DecodeOptions()) for window in windows))
        await batcher.close()

    Calls that arrive while the engine works form its next batch, of up to `batch_size`. Clients take turns: the first
    call is the oldest one of the client that has waited longest for a turn, and decides operation and options; then
    each client adds one call, round after round. Before a batch that is not full, the engine waits for the callers it
    has just answered, since a recording's next window follows its last result at once; it waits for `linger_s` at most,
    and for 5 % of the last batch's time at most.

    At most `max_waiting` calls wait. Beyond that a new call replaces the newest waiting call of the client with the
    most, or is refused if its own client has the most; the call without a place fails with Overloaded. A call that is
    cancelled or times out leaves the queue; an engine error is raised to the callers of its batch only. An instance
    belongs to the event loop that first calls it.

    After `idle_s` seconds without work, `on_idle` is called in the engine's thread (0: never). At the end
    `close_engine` is called there, where the engine is to live on; else it is closed.
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
        close_engine: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._max_waiting = max_waiting
        self._observer = observer
        self._idle_s, self._on_idle = idle_s, on_idle
        self._close_engine = close_engine or engine.close
        self._queues: dict[str, deque[_Call]] = {}  # by client, in the order of their turns
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._runner: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._expected = 0  # calls to wait for: those waiting, and one from each caller just answered
        self._free_at = 0.0
        self._last_batch_s = 0.0
        self._closed = False

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def waiting(self) -> int:
        """Number of calls in the queue."""
        return sum(1 for _ in self._waiting_calls())

    @property
    def retry_after_s(self) -> float:
        """When a refused caller should try again: about when the calls waiting now are done."""
        rounds = self.waiting / self._batch_size + 1
        return min(MAX_RETRY_AFTER_S, max(1.0, rounds * self._last_batch_s))

    async def transcribe(
        self, window: Window, options: DecodeOptions, *, client: str = "", timeout_s: float | None = None
    ) -> WindowResult:
        """Decode a window.

        Args:
            client: who calls; clients take turns.

        Raises:
            BadRequest: the model cannot decode this window with these options.
            Overloaded: the queue is full.
            DeadlineExceeded: there is no result after `timeout_s`.
            ModelError: the engine failed, or was closed.
        """
        self._engine.check(window, options)  # before batching, so that a bad window does not fail its batch
        result: WindowResult = await self._submit("transcribe", window, options, "", client, timeout_s)
        return result

    async def score(
        self, window: Window, text: str, options: DecodeOptions, *, client: str = "", timeout_s: float | None = None
    ) -> TextScore:
        """Compute the forced log-probabilities of `text` for the window; errors as for `transcribe`."""
        self._engine.check(window, options, text)
        result: TextScore = await self._submit("score", window, options, text, client, timeout_s)
        return result

    async def encode(self, window: Window, *, client: str = "", timeout_s: float | None = None) -> Encoding:
        """Compute the encoder's output for the window, shape (1500, width); errors as for `transcribe`."""
        options = DecodeOptions()
        self._engine.check(window, options)
        result: Encoding = await self._submit("encode", window, options, "", client, timeout_s)
        return result

    async def close(self) -> None:
        """Fail the waiting calls with ModelError, wait for the current batch, free the weights (or `close_engine`)."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        for call in list(self._waiting_calls()):
            _settle(call, self._closed_error())
        self._queues.clear()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_engine)
        self._thread.shutdown(wait=False)

    async def _submit(
        self, operation: str, window: Window, options: DecodeOptions, text: str, client: str, timeout_s: float | None
    ) -> Any:
        if self._closed:
            raise self._closed_error()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = _Call((operation, options), window, text, client, time.monotonic(), answer)
        self._make_room(client)
        self._queues.setdefault(client, deque()).append(call)
        self._arrived.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise self._refuse(DeadlineExceeded(f"no result within {timeout_s:g} s", hint=_HINT)) from None

    def _waiting_calls(self) -> Iterator[_Call]:
        return (call for call in chain.from_iterable(self._queues.values()) if not call.answer.done())

    def _make_room(self, client: str) -> None:
        """If the queue is full, refuse `client`'s new call, or fail the newest one of the client with the most."""
        if self._max_waiting is None or self.waiting < self._max_waiting:
            return
        counts: dict[str, int] = {}
        for call in self._waiting_calls():
            counts[call.client] = counts.get(call.client, 0) + 1
        largest = max(counts, key=lambda name: counts[name])
        error = self._refuse(
            Overloaded(
                f"{self._max_waiting} windows are waiting already",
                hint=_HINT,
                retry_after_s=round(self.retry_after_s, 1),
            )
        )
        if counts[largest] <= counts.get(client, 0) + 1:
            raise error
        newest = next(call for call in reversed(self._queues[largest]) if not call.answer.done())
        _settle(newest, error)

    def _refuse(self, error: ModelError) -> ModelError:
        """Report a refusal to the observer; returns `error`."""
        if self._observer is not None:
            self._observer.refused(error.code)
        return error

    async def _run(self) -> None:
        """Run batches until the queue is empty."""
        try:
            await asyncio.sleep(0)  # let callers that were started together join the first batch
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
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._call_engine, batch)
        outcome: Any = (await asyncio.gather(work, return_exceptions=True))[0]
        answers: Sequence[Any] = [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome
        self._free_at = time.monotonic()
        self._last_batch_s = self._free_at - started
        self._expected = self.waiting + sum(not call.answer.done() for call in batch)
        for call, answer in zip(batch, answers, strict=True):
            _settle(call, answer)
        if self._observer is not None:
            waited = [started - call.submitted_at for call in batch]
            self._observer.batch(size=len(batch), waited_s=waited, engine_s=self._last_batch_s)

    def _call_engine(self, batch: list[_Call]) -> Sequence[Any]:
        """Run a batch; called in the engine's thread."""
        operation, options = batch[0].kind
        windows = [call.window for call in batch]
        if operation == "score":
            return self._engine.score(windows, [call.text for call in batch], options)
        if operation == "encode":
            return list(self._engine.encode(windows))
        return self._engine.transcribe(windows, options)

    async def _linger(self) -> None:
        """Wait briefly for the next calls of the callers that were just answered."""
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
        """Take the next batch out of the queue: calls of one kind, one of each client, round after round."""
        waiting = {
            client: deque(call for call in queue if not call.answer.done()) for client, queue in self._queues.items()
        }
        self._queues = {client: queue for client, queue in waiting.items() if queue}
        if not self._queues:
            return []
        kind = next(iter(self._queues.values()))[0].kind
        candidates = {client: [call for call in queue if call.kind == kind] for client, queue in self._queues.items()}
        depth = max(map(len, candidates.values()))
        rounds = (calls[turn] for turn in range(depth) for calls in candidates.values() if turn < len(calls))
        batch = [call for call, _ in zip(rounds, range(self._batch_size), strict=False)]
        taken = set(map(id, batch))
        for client in dict.fromkeys(call.client for call in batch):  # who had a turn goes to the end of the queue
            left = deque(call for call in self._queues.pop(client) if id(call) not in taken)
            if left:
                self._queues[client] = left
        return batch

    def _plan_idle(self, on_idle: Callable[[], None]) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()

        def call_if_idle() -> None:
            if self._runner is None and not self._closed:
                loop.run_in_executor(self._thread, on_idle)

        self._idle_timer = loop.call_later(self._idle_s, call_if_idle)

    def _closed_error(self) -> ModelError:
        return ModelError(f"{self._engine.model.reference} was closed", hint="open it again")


_HINT: Final = "try again later, or add servers"


def _settle(call: _Call, outcome: Any) -> None:
    """Give a call its result or error, unless it has been cancelled."""
    if call.answer.done():
        return
    if isinstance(outcome, BaseException):
        call.answer.set_exception(outcome)
    else:
        call.answer.set_result(outcome)

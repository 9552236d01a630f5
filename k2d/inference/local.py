"""An engine in this process, behind the Transcriber protocol: a micro-batcher in front of one worker thread."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, Window, WindowResult
from k2d.whisper.engine import Engine


@dataclass(eq=False, slots=True)
class _Call:
    window: Window
    options: DecodeOptions
    answer: asyncio.Future[WindowResult]


class LocalTranscriber:
    """Concurrent calls with equal options meet in one engine call.

    While the engine works, calls gather; when it is free, the oldest call and those with its options, up to
    `batch_size`, go together. Nobody waits for a batch to fill. A caller that is cancelled leaves the queue; an engine
    error reaches exactly the callers of its batch. Belongs to the event loop that first calls it.
    """

    def __init__(self, engine: Engine, batch_size: int) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._waiting: deque[_Call] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self._engine.check(window, options)  # here, so that a bad window fails alone
        if self._closed:
            raise self._gone()
        call = _Call(window, options, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await call.answer

    async def close(self) -> None:
        """Fail the calls that wait, let the engine's current batch end, free the weights."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            self._settle(self._waiting.popleft(), self._gone())
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.close)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        """Work until nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # callers started in the same breath come along
            while batch := self._take():
                windows = [call.window for call in batch]
                work = loop.run_in_executor(self._thread, self._engine.transcribe, windows, batch[0].options)
                [outcome] = await asyncio.gather(work, return_exceptions=True)
                answers: Sequence[WindowResult | BaseException]
                answers = [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome
                for call, answer in zip(batch, answers, strict=True):
                    self._settle(call, answer)
        finally:
            self._runner = None

    def _take(self) -> list[_Call]:
        """The oldest call and those that can go with it; whoever was cancelled is dropped."""
        alive = [call for call in self._waiting if not call.answer.done()]
        batch = [call for call in alive if call.options == alive[0].options][: self._batch_size]
        taken = set(map(id, batch))
        self._waiting = deque(call for call in alive if id(call) not in taken)
        return batch

    @staticmethod
    def _settle(call: _Call, outcome: WindowResult | BaseException) -> None:
        if call.answer.done():
            return
        if isinstance(outcome, BaseException):
            call.answer.set_exception(outcome)
        else:
            call.answer.set_result(outcome)

    def _gone(self) -> ModelError:
        return ModelError(f"{self._engine.model.reference} was closed", hint="open it again")

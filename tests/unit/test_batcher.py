"""The micro-batcher: who meets whom, who gets which error, and that the event loop never waits."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from k2d.errors import BadRequest, ModelError
from k2d.inference.batcher import MicroBatcher
from k2d.schema import DecodeOptions, ModelInfo, Window, WindowResult

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


ZH, EN = DecodeOptions(language="zh"), DecodeOptions(language="en")


class Recorder:
    """An engine that says which window it got, and can be told to be slow or to fail."""

    model = ModelInfo("recorder", "0" * 64, "recorder", "none", "cpu")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[tuple[list[int], str]] = []
        self.threads: set[str] = set()
        self.closed = False

    def check(self, window: Window, options: DecodeOptions) -> None:
        if window.samples[0] < 0:
            raise BadRequest("bad window")

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        names = [int(w.samples[0]) for w in windows]
        self.batches.append((names, options.language))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if 13 in names:
            raise ModelError("out of memory")
        return [WindowResult(str(n), (), (), None, 0.0, 0.0, 0.0, 0.0, options.language) for n in names]

    def close(self) -> None:
        self.closed = True


def window(name: int) -> Window:
    return Window(np.array([name], np.int16))


async def test_calls_of_one_breath_meet_and_each_gets_its_own_answer() -> None:
    engine = Recorder()
    transcriber = MicroBatcher(engine, batch_size=4)
    results = await asyncio.gather(*(transcriber.transcribe(window(n), ZH) for n in range(10)))
    assert [r.text for r in results] == [str(n) for n in range(10)]
    assert [names for names, _ in engine.batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(engine.threads) == 1
    assert threading.current_thread().name not in engine.threads


async def test_only_equal_options_meet_and_the_oldest_goes_first() -> None:
    engine = Recorder()
    transcriber = MicroBatcher(engine, batch_size=8)
    await asyncio.gather(*(transcriber.transcribe(window(n), (ZH, EN)[n % 2]) for n in range(6)))
    assert engine.batches == [([0, 2, 4], "zh"), ([1, 3, 5], "en")]


async def test_calls_gather_while_the_engine_works() -> None:
    engine = Recorder(0.05)
    transcriber = MicroBatcher(engine, batch_size=8)
    first = asyncio.create_task(transcriber.transcribe(window(0), ZH))
    await asyncio.sleep(0.02)
    await asyncio.gather(first, *(transcriber.transcribe(window(n), ZH) for n in (1, 2, 3)))
    assert [names for names, _ in engine.batches] == [[0], [1, 2, 3]]


async def test_the_event_loop_goes_on() -> None:
    transcriber = MicroBatcher(Recorder(0.3), batch_size=1)
    call = asyncio.create_task(transcriber.transcribe(window(0), ZH))
    ticks = 0
    while not call.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 10


async def test_an_error_reaches_its_batch_alone() -> None:
    transcriber = MicroBatcher(Recorder(), batch_size=2)
    results = await asyncio.gather(
        *(transcriber.transcribe(window(n), ZH) for n in (12, 13, 14, 15)), return_exceptions=True
    )
    assert [type(r).__name__ for r in results] == ["ModelError", "ModelError", "WindowResult", "WindowResult"]


async def test_a_bad_window_fails_alone() -> None:
    engine = Recorder()
    transcriber = MicroBatcher(engine, batch_size=4)
    results = await asyncio.gather(*(transcriber.transcribe(window(n), ZH) for n in (1, -1, 2)), return_exceptions=True)
    assert [type(r).__name__ for r in results] == ["WindowResult", "BadRequest", "WindowResult"]
    assert engine.batches == [([1, 2], "zh")]


async def test_a_cancelled_caller_leaves_the_queue_and_nobody_else_notices() -> None:
    engine = Recorder(0.05)
    transcriber = MicroBatcher(engine, batch_size=1)
    calls = [asyncio.create_task(transcriber.transcribe(window(n), ZH)) for n in range(3)]
    await asyncio.sleep(0.02)
    calls[0].cancel()  # in the engine's hands
    calls[1].cancel()  # still waiting
    assert (await calls[2]).text == "2"
    assert [names for names, _ in engine.batches] == [[0], [2]]
    assert (await transcriber.transcribe(window(4), ZH)).text == "4"


async def test_closing_fails_who_waits_and_frees_the_engine() -> None:
    engine = Recorder(0.05)
    transcriber = MicroBatcher(engine, batch_size=1)
    calls = [asyncio.create_task(transcriber.transcribe(window(n), ZH)) for n in range(3)]
    await asyncio.sleep(0.02)
    await transcriber.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r).__name__ for r in results] == ["WindowResult", "ModelError", "ModelError"]
    assert engine.closed
    with pytest.raises(ModelError, match="closed"):
        await transcriber.transcribe(window(9), ZH)
    await transcriber.close()

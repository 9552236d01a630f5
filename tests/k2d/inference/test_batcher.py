"""The micro-batcher: who meets whom, who gets which error, and that the event loop never waits."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from k2d.errors import BadRequest, DeadlineExceeded, ModelError, Overloaded
from k2d.inference.batcher import MicroBatcher
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

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

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
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

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        self.batches.append(([int(w.samples[0]) for w in windows], "score"))
        return [TextScore((), (), -float(len(text))) for text in texts]

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


class Notes:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.waited_s: list[float] = []
        self.reasons: list[str] = []

    def batch(self, *, size: int, waited_s: Sequence[float], engine_s: float) -> None:
        self.sizes.append(size)
        self.waited_s += waited_s

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)


async def test_clients_take_turns_however_many_calls_one_of_them_has() -> None:
    engine = Recorder(0.02)
    transcriber = MicroBatcher(engine, batch_size=2)
    greedy = [asyncio.create_task(transcriber.transcribe(window(n), ZH, client="greedy")) for n in range(8)]
    await asyncio.sleep(0.01)  # the first two are in the engine
    modest = [asyncio.create_task(transcriber.transcribe(window(n), ZH, client="modest")) for n in (20, 21)]
    await asyncio.gather(*greedy, *modest)
    assert [names for names, _ in engine.batches] == [[0, 1], [2, 20], [3, 21], [4, 5], [6, 7]]


async def test_a_client_with_other_options_gets_its_turn_too() -> None:
    engine = Recorder(0.02)
    transcriber = MicroBatcher(engine, batch_size=2)
    greedy = [asyncio.create_task(transcriber.transcribe(window(n), ZH, client="greedy")) for n in range(6)]
    await asyncio.sleep(0.01)
    other = asyncio.create_task(transcriber.transcribe(window(20), EN, client="other"))
    await asyncio.gather(*greedy, other)
    assert engine.batches[2] == ([20], "en")  # after one more turn of the greedy client


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    notes = Notes()
    transcriber = MicroBatcher(Recorder(0.1), batch_size=1, max_waiting=2, observer=notes)
    calls = [asyncio.create_task(transcriber.transcribe(window(n), ZH)) for n in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 windows are waiting already") as refused:
        await transcriber.transcribe(window(9), ZH)
    assert refused.value.status == 503
    assert refused.value.details["retry_after_s"] >= 1
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert notes.reasons.count("overloaded") == 1 + sum(isinstance(r, Overloaded) for r in results)


async def test_a_full_queue_of_one_client_has_room_for_another() -> None:
    transcriber = MicroBatcher(Recorder(0.05), batch_size=1, max_waiting=4)
    greedy = [asyncio.create_task(transcriber.transcribe(window(n), ZH, client="greedy")) for n in range(4)]
    await asyncio.sleep(0.01)  # one is in the engine, three wait
    greedy.append(asyncio.create_task(transcriber.transcribe(window(4), ZH, client="greedy")))
    modest = asyncio.create_task(transcriber.transcribe(window(20), ZH, client="modest"))
    results = await asyncio.gather(*greedy, modest, return_exceptions=True)
    assert [isinstance(r, Overloaded) for r in results] == [False] * 4 + [True, False]  # the newest made room


async def test_a_deadline_passes_waiting_or_working_and_the_queue_goes_on() -> None:
    engine, notes = Recorder(0.2), Notes()
    transcriber = MicroBatcher(engine, batch_size=1, observer=notes)
    calls = [asyncio.create_task(transcriber.transcribe(window(n), ZH, timeout_s=0.05)) for n in range(2)]
    patient = asyncio.create_task(transcriber.transcribe(window(2), ZH))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r) for r in results] == [DeadlineExceeded, DeadlineExceeded]
    assert (await patient).text == "2"
    assert [names for names, _ in engine.batches] == [[0], [2]]  # the second was never begun
    assert notes.reasons == ["deadline_exceeded"] * 2


async def test_scores_go_through_the_same_queue_and_never_mix_with_texts() -> None:
    engine = Recorder()
    transcriber = MicroBatcher(engine, batch_size=4)
    text, score = await asyncio.gather(transcriber.transcribe(window(1), ZH), transcriber.score(window(2), "four", ZH))
    assert (text.text, score.avg_logprob) == ("1", -4.0)
    assert engine.batches == [([1], "zh"), ([2], "score")]


async def test_callers_that_come_back_one_by_one_still_meet() -> None:
    """Recordings ask for their next window a few milliseconds after the last: the engine waits for them."""
    engine, notes = Recorder(0.4), Notes()
    transcriber = MicroBatcher(engine, batch_size=4, observer=notes)

    async def recording(number: int) -> None:
        for _ in range(4):
            await transcriber.transcribe(window(number), ZH)
            await asyncio.sleep(0.001 * number)

    await asyncio.gather(*map(recording, range(1, 5)))
    assert notes.sizes == [4, 4, 4, 4]


async def test_a_lone_recording_never_lingers() -> None:
    notes = Notes()
    transcriber = MicroBatcher(Recorder(0.2), batch_size=16, linger_s=10.0, observer=notes)
    for _ in range(3):
        await transcriber.transcribe(window(1), ZH)
    assert max(notes.waited_s) < 0.01


async def test_what_is_idle_is_told_once_and_woken_by_the_next_call() -> None:
    rested: list[str] = []
    transcriber = MicroBatcher(
        Recorder(), batch_size=1, idle_s=0.05, on_idle=lambda: rested.append(threading.current_thread().name)
    )
    await transcriber.transcribe(window(1), ZH)
    await asyncio.sleep(0.15)
    assert rested == ["engine_0"]
    assert (await transcriber.transcribe(window(2), ZH)).text == "2"
    await transcriber.close()
    await asyncio.sleep(0.1)
    assert rested == ["engine_0"]

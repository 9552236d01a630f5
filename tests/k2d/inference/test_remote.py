"""Routing, retries and the circuit breaker, over endpoints that do exactly what a test says."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from k2d.errors import BadRequest, ModelError, ServerUnavailable
from k2d.inference import remote, wire
from k2d.inference.remote import RemoteTranscriber, connect
from k2d.inference.wire import Head
from k2d.schema import DecodeOptions, ModelInfo, Samples, TextScore, Window, WindowResult

pytestmark = pytest.mark.anyio

MODEL = ModelInfo("some/model", "ab" * 32, "ctranslate2", "int8", "cpu")
OTHER = ModelInfo("some/other", "cd" * 32, "ctranslate2", "int8", "cpu")
WINDOW, OPTIONS = Window(np.zeros(10, np.int16), (1, 2)), DecodeOptions()
DOWN = ServerUnavailable("connection refused")

Answer = Callable[[Head], Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same policy, a hundred times as fast."""
    for name in ("FIRST_WAIT_S", "MAX_WAIT_S", "OPEN_S", "MAX_OPEN_S", "OTHER_MODEL_S"):
        monkeypatch.setattr(remote, name, getattr(remote, name) / 100)


class Clock:
    """Time that only passes while someone waits, and what was waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(remote, "asyncio", SimpleNamespace(sleep=clock.sleep, gather=asyncio.gather))
    return clock


class Scripted:
    """An endpoint that answers from a list, and well when the list is over."""

    def __init__(
        self, *script: Any, address: str = "http://one:1", model: ModelInfo = MODEL, takes_s: float = 0
    ) -> None:
        self.script = list(script)
        self.address = address
        self.model = model
        self.takes_s = takes_s
        self.heads: list[Head] = []
        self.outstanding = self.most_outstanding = 0
        self.closed = False

    async def call(self, head: Head, samples: Samples, *, timeout_s: float) -> dict[str, Any]:
        self.heads.append(head)
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        try:
            await asyncio.sleep(self.takes_s)
            step = self.script.pop(0) if self.script else None
            if isinstance(step, BaseException):
                raise step
            if step is not None:
                return dict(step)
            if head.act == "describe":
                return wire.describe(self.model, batch_size=4, golden="你好")
            if head.act == "score":
                return wire.answer(TextScore((1,), (-1.0,), -1.0), self.model)
            result = WindowResult(self.address, (), (), None, 0.0, 0.0, 0.0, 0.0, "zh")
            return wire.answer(result, self.model)
        finally:
            self.outstanding -= 1

    async def close(self) -> None:
        self.closed = True


def over(*endpoints: Scripted, patience_s: float = 2.0) -> RemoteTranscriber:
    return RemoteTranscriber(endpoints, model=MODEL, timeout_s=30.0, patience_s=patience_s)


async def test_the_request_says_all_that_matters() -> None:
    server = Scripted()
    transcriber = over(server)
    assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://one:1"
    assert (await transcriber.score(WINDOW, "你好", OPTIONS)).avg_logprob == -1.0
    first, second = server.heads
    assert (first.act, first.prompt, first.options, first.timeout_s) == ("transcribe", (1, 2), OPTIONS, 30.0)
    assert (second.act, second.text) == ("score", "你好")
    assert first.client  # so that servers can take turns between workers
    await transcriber.close()
    assert server.closed


async def test_what_may_pass_is_tried_again() -> None:
    server = Scripted(DOWN, ServerUnavailable("full", busy=True, retry_after_s=0.01), DOWN)
    transcriber = over(server)
    assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://one:1"
    assert (transcriber.retries, transcriber.refusals) == (3, 1)


async def test_what_only_happens_again_is_not() -> None:
    for error in (BadRequest("31 s of audio"), ModelError("out of memory")):
        server = Scripted(error)
        with pytest.raises(type(error), match=str(error)):
            await over(server).transcribe(WINDOW, OPTIONS)
        assert len(server.heads) == 1


async def test_another_server_is_asked_at_once(clock: Clock) -> None:
    sick, well = Scripted(*[DOWN] * 9, address="http://sick:1"), Scripted(address="http://well:1")
    transcriber = over(sick, well)
    for _ in range(20):
        assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://well:1"
    # in all twenty calls: nothing after a first failure, then twice and four times the first wait at most
    assert sum(clock.waits) <= 6 * remote.FIRST_WAIT_S
    assert len(sick.heads) <= remote.OPEN_AFTER + 2  # then it was left alone, but for a trial now and then


async def test_a_server_that_comes_back_is_used_again() -> None:
    back = Scripted(*[DOWN] * remote.OPEN_AFTER, address="http://back:1")
    transcriber = over(back)
    assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://back:1"
    assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://back:1"


async def test_a_sick_server_gets_one_call_at_a_time_until_it_is_well() -> None:
    server = Scripted(*[DOWN] * remote.OPEN_AFTER, takes_s=0.02)
    transcriber = over(server)
    await transcriber.transcribe(WINDOW, OPTIONS)  # it was found sick, and then well
    server.script = [DOWN] * (remote.OPEN_AFTER + 2)
    server.most_outstanding = 0
    first = [asyncio.create_task(transcriber.transcribe(WINDOW, OPTIONS)) for _ in range(remote.OPEN_AFTER)]
    await asyncio.sleep(0.03)  # all failed together: the breaker is open
    server.most_outstanding = 0
    late = [asyncio.create_task(transcriber.transcribe(WINDOW, OPTIONS)) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert server.most_outstanding <= 1
    await asyncio.gather(*first, *late)


async def test_calls_go_where_the_fewest_are() -> None:
    slow, fast = Scripted(takes_s=0.2, address="http://slow:1"), Scripted(takes_s=0.01, address="http://fast:1")
    transcriber = over(slow, fast)
    lanes = [asyncio.create_task(_lane(transcriber, 8)) for _ in range(4)]
    await asyncio.gather(*lanes)
    assert len(fast.heads) > 2 * len(slow.heads)
    assert slow.most_outstanding <= 3


async def _lane(transcriber: RemoteTranscriber, calls: int) -> None:
    for _ in range(calls):
        await transcriber.transcribe(WINDOW, OPTIONS)


async def test_patience_ends_and_says_who_did_not_answer(clock: Clock) -> None:
    transcriber = over(Scripted(*[DOWN] * 1000), patience_s=0.3)
    with pytest.raises(ModelError, match=r"no answer within 0\.3 s from http://one:1: .*refused"):
        await transcriber.transcribe(WINDOW, OPTIONS)
    assert 0.3 <= clock.now <= 0.3 + remote.MAX_WAIT_S + 1.0  # one wait more, of at most a second, once it is over


async def test_a_full_queue_is_waited_for_longer_than_a_dead_server() -> None:
    full = [ServerUnavailable("full", busy=True)] * 12
    transcriber = over(Scripted(*full), patience_s=0.05)
    assert (await transcriber.transcribe(WINDOW, OPTIONS)).text == "http://one:1"


async def test_a_server_with_another_model_never_labels() -> None:
    changed, right = Scripted(address="http://changed:1", model=OTHER), Scripted(address="http://right:1")
    transcriber = over(changed, right)
    texts = {(await transcriber.transcribe(WINDOW, OPTIONS)).text for _ in range(10)}
    assert texts == {"http://right:1"}
    with pytest.raises(ModelError, match="has another model now"):
        await over(Scripted(model=OTHER), patience_s=0.1).transcribe(WINDOW, OPTIONS)


async def test_cancelling_a_call_frees_its_place() -> None:
    server = Scripted(takes_s=5.0)
    call = asyncio.create_task(over(server).transcribe(WINDOW, OPTIONS))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert server.outstanding == 0


async def test_connecting_waits_for_the_first_server_and_asks_what_it_has() -> None:
    starting, dead = Scripted(DOWN, DOWN), Scripted(*[DOWN] * 99, address="http://dead:1")
    transcriber = await connect([starting, dead], timeout_s=1.0, patience_s=2.0)
    assert transcriber.model == MODEL


async def test_connecting_refuses_servers_that_disagree_or_are_not_there() -> None:
    with pytest.raises(ModelError, match=r"different models: http://one:1: some/model .*http://two:1: some/other"):
        await connect([Scripted(), Scripted(address="http://two:1", model=OTHER)], timeout_s=1.0, patience_s=1.0)
    with pytest.raises(ModelError, match="no inference server answers at http://one:1: connection refused"):
        await connect([Scripted(*[DOWN] * 99)], timeout_s=1.0, patience_s=0.05)
    with pytest.raises(ModelError, match="token"):
        await connect([Scripted(ModelError("a token is required"))], timeout_s=1.0, patience_s=1.0)
    with pytest.raises(ModelError, match="not an inference server of this version"):
        await connect([Scripted({"models": []})], timeout_s=1.0, patience_s=1.0)


async def test_an_answer_of_another_version_is_an_error_not_a_label() -> None:
    server = Scripted({"model": MODEL.fingerprint, "txt": "?"})
    with pytest.raises(ModelError, match="another version"):
        await over(server).transcribe(WINDOW, OPTIONS)

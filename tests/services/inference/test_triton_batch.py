"""One batch of Triton requests: which share an engine call, which get an error, and that each is answered once."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from k2d.errors import BadRequest, K2DError, ModelError
from k2d.inference.triton_errors import RequestCancelled
from k2d.inference.wire import Head, dump
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, ModelInfo, Samples, TextScore, Window, WindowResult
from services.inference.triton_batch import BatchHandler, TritonAnswer, TritonRequest

ZH, EN = DecodeOptions(language="zh"), DecodeOptions(language="en")
BUG, SICK, LATE_REFUSAL = 11, 13, 17  # windows with a first sample that provokes it


class Scripted:
    """An engine that says which windows it got, and fails at certain ones."""

    model = ModelInfo("scripted", "0" * 64, "scripted", "none", "cpu")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[tuple[str, list[int]]] = []

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
        if window.samples[0] < 0:
            raise BadRequest("bad window")

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        names = self._called(options.language, windows)
        return [WindowResult(str(n), (), (), None, 0.0, 0.0, 0.0, 0.0, options.language) for n in names]

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        self._called("score", windows)
        return [TextScore((), (), -float(len(text))) for text in texts]

    def close(self) -> None: ...

    def _called(self, what: str, windows: Sequence[Window]) -> list[int]:
        names = [int(window.samples[0]) for window in windows]
        self.calls.append((what, names))
        time.sleep(self.seconds)
        if BUG in names:
            raise ZeroDivisionError("a bug")
        if SICK in names:
            raise ModelError("out of memory")
        if LATE_REFUSAL in names:
            raise BadRequest("refused only now")
        return names


class Exchange:
    """A request and its answers."""

    def __init__(self, head: Head | bytes, samples: Samples, cancelled: bool = False) -> None:
        self.answers: list[TritonAnswer] = []
        line = head if isinstance(head, bytes) else dump(head)
        self.request = TritonRequest(line, samples, lambda: cancelled, self.answers.append)

    @property
    def answer(self) -> Any:
        [answer] = self.answers
        return answer


def ask(name: int, options: DecodeOptions = ZH, **members: Any) -> Exchange:
    return Exchange(Head(options=options, **members), np.array([name], np.int16))


def run(engine: Scripted, asked: Sequence[Exchange], batch_size: int = 8) -> list[tuple[int, float]]:
    observed: list[tuple[int, float]] = []
    handler = BatchHandler(engine, batch_size, {"I": "am"}, observe=lambda n, seconds: observed.append((n, seconds)))
    handler([exchange.request for exchange in asked])
    return observed


def test_equal_options_meet_in_calls_of_at_most_a_batch() -> None:
    engine = Scripted()
    asked = [ask(n, (ZH, EN)[n % 3 == 0]) for n in range(1, 9)]
    observed = run(engine, asked, batch_size=4)
    assert engine.calls == [("zh", [1, 2, 4, 5]), ("zh", [7, 8]), ("en", [3, 6])]
    assert [exchange.answer["text"] for exchange in asked] == [str(n) for n in range(1, 9)]
    assert {exchange.answer["model"] for exchange in asked} == {engine.model.fingerprint}
    assert [n for n, _ in observed] == [4, 2, 2]


def test_bad_requests_fail_alone() -> None:
    engine = Scripted()
    bad = [
        Exchange(b"{", np.array([1], np.int16)),
        Exchange(b'{"options":{"beams":3}}', np.array([1], np.int16)),
        Exchange(Head(), np.zeros(0, np.int16)),
        Exchange(Head(), np.zeros(WINDOW_SAMPLES + 1, np.int16)),
        ask(-1),
        ask(1, act="score"),
    ]
    good = [ask(1), ask(2)]
    run(engine, [good[0], *bad, good[1]])
    assert [type(exchange.answer) for exchange in bad] == [BadRequest] * len(bad)
    assert [exchange.answer["text"] for exchange in good] == ["1", "2"]
    assert engine.calls == [("zh", [1, 2])]


def test_a_refusal_inside_the_engine_does_not_take_the_neighbours_with_it() -> None:
    engine = Scripted()
    asked = [ask(1), ask(LATE_REFUSAL), ask(2)]
    run(engine, asked)
    assert type(asked[1].answer) is BadRequest
    assert [asked[0].answer["text"], asked[2].answer["text"]] == ["1", "2"]


@pytest.mark.parametrize(("name", "kind"), [(SICK, ModelError), (BUG, K2DError)])
def test_a_failing_engine_fails_its_call_and_no_other(name: int, kind: type[K2DError]) -> None:
    engine = Scripted()
    asked = [ask(1), ask(name), ask(2, EN)]
    run(engine, asked)
    assert [type(exchange.answer) for exchange in asked[:2]] == [kind, kind]
    assert "a bug" not in asked[0].answer.message  # what went wrong inside is the log's business
    assert asked[2].answer["text"] == "2"


def test_whoever_has_gone_or_is_too_late_costs_no_engine_call() -> None:
    engine = Scripted(seconds=0.05)
    gone = Exchange(Head(options=EN), np.array([3], np.int16), cancelled=True)
    asked = [ask(1), gone, ask(2, EN, timeout_s=0.01), ask(4, EN, timeout_s=60)]
    run(engine, asked)
    assert isinstance(gone.answer, RequestCancelled)
    assert asked[2].answer.code == "deadline_exceeded"
    assert engine.calls == [("zh", [1]), ("en", [4])]
    engine.calls.clear()
    run(engine, [gone])
    assert engine.calls == []


def test_describing_and_scoring() -> None:
    engine = Scripted()
    asked = [ask(1, act="describe"), ask(1, act="score", text="你好"), ask(2, act="score", text="")]
    run(engine, asked)
    assert asked[0].answer == {"I": "am"}
    assert [exchange.answer["avg_logprob"] for exchange in asked[1:]] == [-2.0, 0.0]
    assert engine.calls == [("score", [1, 2])]

"""Parts of a step: the learning rate over a run, and requests to stop."""

import os
import signal

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from trainer.options import Recipe
from trainer.run.loop import StopRequest, catch_signals
from trainer.run.step import learning_rate


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 2, [0.5, 1.0, 1.0, 1.0]),
        ("linear", 0, [1.0, 0.75, 0.5, 0.25]),  # 0 after the last step, not at it
        ("linear", 2, [0.5, 1.0, 1.0, 0.5]),
        ("linear", 4, [0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_the_learning_rate_of_each_step(schedule: str, warmup: int, rates: list[float]) -> None:
    recipe = Recipe(steps=4, learning_rate=1.0, warmup_steps=warmup, schedule=schedule)
    assert [learning_rate(recipe, step) for step in (1, 2, 3, 4)] == pytest.approx(rates)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_is_as_usual(number: signal.Signals) -> None:
    reached = []
    before = signal.signal(number, lambda *_: reached.append(number))
    try:
        stop = StopRequest()
        with catch_signals(stop):
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            assert not reached
            os.kill(os.getpid(), number)
        assert reached == [number]
        os.kill(os.getpid(), number)  # the handler is back
        assert len(reached) == 2
    finally:
        signal.signal(number, before)

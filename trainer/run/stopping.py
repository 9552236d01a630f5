"""Ctrl-C and SIGTERM as a request to stop after the step in hand."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Note SIGINT and SIGTERM; a second one of a kind ends the process as usual."""
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        stop.asked = True
        signal.signal(number, before[number])

    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[wanted] = signal.signal(wanted, note)
    except ValueError:  # not the main thread: whoever called decides when to stop
        pass
    try:
        yield
    finally:
        for heard, handler in before.items():
            signal.signal(heard, handler)

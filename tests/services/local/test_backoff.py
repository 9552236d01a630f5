"""Waits between starts: they grow while a process keeps ending at once, and are short again after it ran."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from k2d.errors import QueueError
from services.local.backoff import FIRST_S, HEALTHY_S, MOST_S, delay_s, failures_after
from services.local.child import Child


def test_waits_double_up_to_the_most():
    assert [delay_s(failures) for failures in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(0, 10_000))
def test_waits_never_shrink_and_have_an_end(failures):
    assert delay_s(failures) <= delay_s(failures + 1) <= MOST_S


@given(st.integers(0, 10_000), st.floats(0, 1e6))
def test_a_healthy_while_resets_them(failures, lived_s):
    after = failures_after(failures, lived_s)
    assert after == (1 if lived_s >= HEALTHY_S else failures + 1)
    assert delay_s(after) >= FIRST_S


def test_a_child_that_dies_at_once_is_not_started_again_and_again():
    """At every look, twice a second for ten minutes of a clock that we turn."""
    starts = []

    def start():
        starts.append(None)
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
        process.wait()
        return process

    now = [0.0]
    child = Child("worker-0", start=start, clock=lambda: now[0])
    child.spawn()
    for _ in range(1200):
        now[0] += 0.5
        child.look()
    assert len(starts) in range(13, 17)  # after 1, 2, 4, 8, 16, 32, 60, 60 … s
    assert child.code == 3


def test_a_start_that_fails_is_tried_again_later_and_said_once():
    attempts = []

    def start():
        attempts.append(None)
        if len(attempts) < 4:
            raise QueueError("no space left", hint="free some")
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)

    now = [0.0]
    child = Child("redis", start=start, clock=lambda: now[0])
    with pytest.raises(QueueError):
        child.spawn()
    child.due_at = 0.0
    with capture_logs() as lines:
        while not child.look():
            now[0] = child.due_at
    assert len(attempts) == 4
    assert str(lines).count("no space left") == 1
    child.process.communicate(b"\n")

"""Numbers with their nouns, lengths and times, and the nearest known word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.wording import audio_length, counted, did_you_mean, estimated_time


@pytest.mark.parametrize(
    ("number", "noun", "plural", "words"),
    [
        (0, "chunk", None, "0 chunks"),
        (1, "chunk", None, "1 chunk"),
        (2, "chunk", None, "2 chunks"),
        (1, "process", "processes", "1 process"),
        (3, "process", "processes", "3 processes"),
        (1024, "unfinished recording", None, "1,024 unfinished recordings"),
    ],
)
def test_counted(number: int, noun: str, plural: str | None, words: str) -> None:
    assert counted(number, noun, plural) == words


def test_did_you_mean() -> None:
    assert did_you_mean("stps", ["steps", "batch"]) == "did you mean steps? "
    assert did_you_mean("something else", ["steps", "batch"]) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"), (0.0004, "0.001 s"), (0.04, "0.040 s"), (12.34, "12.3 s"), (119.0, "119.0 s"),
        (120.0, "2.0 min"), (5400.0, "90.0 min"), (7200.0, "2.0 h"), (216_000_000.0, "60,000.0 h"),
    ],
)  # fmt: skip
def test_audio_length(seconds: float, words: str) -> None:
    assert audio_length(seconds) == words


@given(st.floats(0, 1e9, exclude_min=True))
def test_what_has_a_length_is_not_shown_as_nothing(seconds: float) -> None:
    amount = audio_length(seconds).split()[0].replace(",", "")
    assert float(amount) > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "less than a minute"), (59.9, "less than a minute"), (60.0, "about 1 min"), (3599.0, "about 1 h 0 min"),
        (12_000.0, "about 3 h 20 min"), (187_200.0, "about 2 days 4 h"),
    ],
)  # fmt: skip
def test_estimated_time(seconds: float, words: str) -> None:
    assert estimated_time(seconds) == words

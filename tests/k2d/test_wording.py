"""Numbers with their nouns, and the nearest known word."""

import pytest

from k2d.wording import counted, did_you_mean


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

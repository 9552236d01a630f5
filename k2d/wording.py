"""Wording that messages of all rooms share."""

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 chunk", "2 chunks", "1,024 chunks"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The start of a hint, "did you mean alpha? ", with the known word that is most like `name`; "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""

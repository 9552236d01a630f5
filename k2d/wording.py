"""Wording that messages of all rooms share."""

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 chunk", "2 chunks", "1,024 chunks"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def in_bytes(size: int) -> str:
    """A size for people, in decimal units: "850 bytes", "1.2 MB", "3.5 TB"."""
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def audio_length(seconds: float) -> str:
    """A length of audio: seconds up to two minutes, minutes up to two hours, then hours; only nothing is "0.0 s".

    audio_length(5400) == "90.0 min"
    """
    if 0 < seconds < 0.05:
        return f"{max(seconds, 0.001):.3f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def estimated_time(seconds: float) -> str:
    """An estimate of how long something takes: "less than a minute", "about 12 min", "about 3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"about {hours} h {minutes} min" if hours < 48 else f"about {hours // 24} days {hours % 24} h"


def listed(values: Iterable[str]) -> str:
    """Choices for people: "`a`, `b` or `c`"."""
    *others, last = [f"`{value}`" for value in values]
    return f"{', '.join(others)} or {last}" if others else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The start of a hint, "did you mean alpha? ", with the known word that is most like `name`; "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""

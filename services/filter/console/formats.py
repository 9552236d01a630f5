"""How numbers, lengths and times are written on pages."""

import re
from collections.abc import Callable
from typing import Any, Final

from markupsafe import Markup, escape

from k2d.wording import audio_length
from services.filter.console.words import Words

UNITS: Final = {"s": "{count} s", "min": "{count} min", "h": "{count} h", "d": "{count} d"}  # of time
_TIME: Final = re.compile(rf"([\d.,]+) ({'|'.join(UNITS)})\b")


def clock(seconds: float) -> str:
    """A position in a recording: clock(3725.5) == "1:02:05.5"."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    whole, minute = divmod(minutes, 60)
    return (f"{whole}:{minute:02d}" if whole else f"{minute}") + f":{rest / 10:04.1f}"


def share(part: float, whole: float) -> str:
    """A share in per cent with one digit; a dash where there is no whole: share(1, 8) == "12.5 %"."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def when(moment: str) -> str:
    """An ISO 8601 moment to the minute, in UTC: "2026-11-22 14:00"."""
    return moment[:16].replace("T", " ")


def number(value: float) -> str:
    """A number with separators: number(1234567) == "1,234,567"."""
    return f"{value:,}"


def hours(seconds: float, words: Words) -> str:
    """A length of audio as `audio_length` has it: hours(5400, Words("zh-Hant")) == "90.0 分鐘"."""
    return with_units(audio_length(seconds), words)


def duration(seconds: float, words: Words) -> str:
    """A time to wait, in whole units: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    return with_units(_duration(seconds), words)


def with_units(text: str, words: Words) -> str:
    """A text whose units of time are in the reader's language."""
    return _TIME.sub(lambda found: words(UNITS[found[2]], count=found[1]), text)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hour, minute = divmod(minutes, 60)
    return f"{hour} h {minute} min" if hour < 48 else f"{hour // 24} d {hour % 24} h"


def size(count: float) -> str:
    """A number of bytes in powers of 1,000: size(1_300_000) == "1.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def code(text: str) -> Markup:
    """A text in which what stands between backticks is code: code("`a<b`") == "<code>a&lt;b</code>"."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def beside(value: float, alpha: float) -> tuple[str, str]:
    """A number and the α that it is compared with, with as many digits as show which of them is larger.

    beside(0.30004, 0.3) == ("0.30004", "0.3")
    """
    side = (value > alpha, value < alpha)
    for digits in range(3, 17):
        number, limit = f"{value:.{digits}f}", f"{alpha:.{max(6, digits)}g}"
        if (float(number) > float(limit), float(number) < float(limit)) == side:
            return number, limit
    return str(value), str(alpha)


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "hours": hours,
    "clock": clock,
    "share": share,
    "when": when,
    "number": number,
    "duration": duration,
    "bytes": size,
    "code": code,
    "beside": beside,
}

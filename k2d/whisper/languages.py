"""The languages of a prompt: which ones may be asked for, and what detection says about one window."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from k2d.errors import BadRequest
from k2d.schema import AUTO, LANGUAGES, MIXED
from k2d.whisper.fallback import DECIMALS

KEPT = 5  # most likely languages that a record keeps; the rest carries no news


@dataclass(frozen=True, slots=True)
class WindowLanguage:
    """A window's language as prompted; `probs`, highest first, when it was detected."""

    code: str
    probs: tuple[tuple[str, float], ...]


def check_language(
    language: str, *, known: Collection[str] = LANGUAGES, besides: Collection[str] = (MIXED, AUTO)
) -> str:
    """Return the language if it may be asked for.

    Args:
        known: the codes of the model's vocabulary; Whisper's where no model is at hand.
        besides: what else is allowed.

    Raises:
        BadRequest: it is neither.
    """
    if language not in known and language not in besides:
        hint = f"one of {', '.join([*besides, *sorted(known)])} (zh-en: one prompt for both; auto: per window)"
        raise BadRequest(f"unknown language: {language[:40]!r}", hint=hint)
    return language


def detected(probabilities: Mapping[str, float]) -> WindowLanguage:
    """The most likely language; of equals the first by name, so that the choice never depends on an order."""
    ranked = sorted(
        ((code, round(p, DECIMALS)) for code, p in probabilities.items()), key=lambda pair: (-pair[1], pair[0])
    )
    return WindowLanguage(ranked[0][0], tuple(ranked[:KEPT]))

"""The language of a window: which ones may be requested, and the result of detection."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from k2d.errors import BadRequest
from k2d.schema import AUTO, LANGUAGES, MIXED
from k2d.whisper.fallback import DECIMALS

KEPT: Final = 5  # number of most likely languages that a record keeps


@dataclass(frozen=True, slots=True)
class WindowLanguage:
    """The language a window is prompted with; if it was detected, also probabilities, highest first."""

    code: str
    probs: tuple[tuple[str, float], ...]


def check_language(
    language: str, *, known: Collection[str] = LANGUAGES, besides: Collection[str] = (MIXED, AUTO)
) -> str:
    """Return the language if it may be requested.

    Args:
        known: the codes in the model's vocabulary; by default all of Whisper's.
        besides: other values that are allowed.

    Raises:
        BadRequest: it is unknown.
    """
    if language not in known and language not in besides:
        hint = f"one of {', '.join([*besides, *sorted(known)])} (zh-en: one prompt for both; auto: per window)"
        raise BadRequest(f"unknown language: {language[:40]!r}", hint=hint)
    return language


def most_likely(probabilities: Mapping[str, float]) -> WindowLanguage:
    """The most likely language; among equals the first by code, so that the result does not depend on the order."""
    ranked = sorted(
        ((code, round(p, DECIMALS)) for code, p in probabilities.items()), key=lambda pair: (-pair[1], pair[0])
    )
    return WindowLanguage(ranked[0][0], tuple(ranked[:KEPT]))

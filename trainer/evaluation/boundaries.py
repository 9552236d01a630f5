"""Where a sentence changes language, and which of its tokens are next to a change. Pure."""

from collections.abc import Sequence
from typing import Final

from k2d.text.tokens import is_han, is_latin

ZH: Final = "zh"
EN: Final = "en"
OTHER: Final = ""


def languages(tokens: Sequence[str]) -> tuple[str, ...]:
    """The language of each normalised mixed token: Han is zh, Latin is en, any other script is neither ("").

        languages(["我", "用", "model", "3"])  # ("zh", "zh", "en", "en")

    A number is written alike in both languages, so it is no switch by itself: it takes the language of the token
    before it, or of the first word when it opens the sentence.
    """
    by_script = [_language(token) for token in tokens]
    current = next((language for language in by_script if language is not None), OTHER)
    spoken = []
    for language in by_script:
        current = current if language is None else language
        spoken.append(current)
    return tuple(spoken)


def _language(token: str) -> str | None:
    """By script; None for a number."""
    if is_han(token):
        return ZH
    if is_latin(token):
        return EN if any(letter.isalpha() for letter in token) else None
    return OTHER


def switches(spoken: Sequence[str]) -> frozenset[int]:
    """Boundaries between zh and en: i where token i - 1 is in one language and token i in the other."""
    return frozenset(i for i in range(1, len(spoken)) if {spoken[i - 1], spoken[i]} == {ZH, EN})


def switch_tokens(spoken: Sequence[str]) -> frozenset[int]:
    """The tokens within one position of a zh↔en boundary: the last one before it and the first one after it."""
    return frozenset(token for boundary in switches(spoken) for token in (boundary - 1, boundary))


def points_of_interest(spoken: Sequence[str], embedded: str) -> frozenset[int]:
    """The tokens of the embedded language in a sentence that has both; none in a monolingual sentence.

    Source: Ugan et al., "PIER: A Novel Metric for Evaluating What Matters in Code-Switching", 2025 (arXiv 2501.09512).
    """
    if ZH not in spoken or EN not in spoken:
        return frozenset()
    return frozenset(index for index, language in enumerate(spoken) if language == embedded)

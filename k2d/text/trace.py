"""Maps normalised tokens to their positions in the original text, so that a diff can show the text as written."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from k2d.text.normalise import BRACKETS, HAS_INNER, HAS_SPOKEN, LETTERS, LOOSE, SPOKEN, Replacement, fold
from k2d.text.tokens import TOKEN


class TracedText(NamedTuple):
    """A text on its way to being normalised."""

    text: str
    offsets: Sequence[int]  # of each character: its offset in the original text


def token_starts(text: str) -> list[int] | None:
    """Return the offset in `text` at which each of its mixed tokens begins, in order.

    Several tokens that come from one symbol share its offset. Returns None when the text does not normalise character
    by character (a base letter and its accent as two code points). Where `simplify` changes a text's length, which is
    rare, there are as many offsets as tokens before that.

        token_starts("Hi，你好")  # [0, 3, 4]
    """
    traced = TracedText(text, range(len(text)))
    traced = _substitute(traced, BRACKETS)
    traced, unfolded = _replaced(traced, _folded), traced.text
    if traced.text != fold(unfolded):
        return None
    if HAS_SPOKEN.search(traced.text):
        traced = _substitute(traced, SPOKEN)
    traced = _replaced(traced, lambda character: LETTERS[ord(character)])
    if HAS_INNER.search(traced.text):
        traced = _substitute(traced, [(LOOSE, " ")])
    cleaned, offsets = traced
    return [offsets[match.start()] for match in TOKEN.finditer(cleaned)]


_folded = lru_cache(maxsize=65_536)(fold)  # of single characters


def _replaced(traced: TracedText, replacement: Callable[[str], str]) -> TracedText:
    """The text with each character replaced; what replaces one gets its offset."""
    parts = list(map(replacement, traced.text))
    text = "".join(parts)
    if set(map(len, parts)) <= {1}:  # nearly always
        return TracedText(text, traced.offsets)
    places = [offset for offset, part in zip(traced.offsets, parts, strict=True) for _ in part]
    return TracedText(text, places)


def _substitute(traced: TracedText, edits: Iterable[tuple[re.Pattern[str], Replacement]]) -> TracedText:
    """`Pattern.sub` for traced text: a replacement gets the offset at which its match began."""
    for pattern, replacement in edits:
        text, offsets = traced
        parts: list[str] = []
        places: list[int] = []
        done = 0
        for match in pattern.finditer(text):
            new = replacement if isinstance(replacement, str) else replacement(match)
            parts += (text[done : match.start()], new)
            places += offsets[done : match.start()]
            places += [offsets[match.start()]] * len(new)
            done = match.end()
        if done:
            traced = TracedText("".join(parts) + text[done:], [*places, *offsets[done:]])
    return traced

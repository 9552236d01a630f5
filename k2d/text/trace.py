"""Maps normalised tokens to their positions in the original text, so that a diff can show the text as written."""

import re
from collections.abc import Iterable

from k2d.text.normalise import BRACKETS, LETTERS, LOOSE, SPOKEN, Replacement, clean, fold, simplify
from k2d.text.tokens import TOKEN

Traced = list[tuple[str, int]]  # characters of the normalised text, each with its offset in the original text


def token_starts(text: str) -> list[int] | None:
    """Return the offset in `text` at which each of its mixed tokens begins, in order.

    Several tokens that come from one symbol share its offset. Returns None when the text does not normalise character
    by character (a base letter and its accent as two code points).

        token_starts("Hi，你好")  # [0, 3, 4]
    """
    traced: Traced = [(character, offset) for offset, character in enumerate(text)]
    traced = _substitute(traced, BRACKETS)
    traced = [(folded, offset) for character, offset in traced for folded in fold(character)]
    traced = _substitute(traced, SPOKEN)
    traced = [(kept, offset) for character, offset in traced for kept in LETTERS[ord(character)]]
    traced = _substitute(traced, [(LOOSE, " ")])
    cleaned = "".join(character for character, _ in traced)
    simplified = simplify(cleaned)
    if " ".join(cleaned.split()) != clean(text) or len(simplified) != len(cleaned):
        return None
    return [traced[match.start()][1] for match in TOKEN.finditer(simplified)]


def _substitute(traced: Traced, edits: Iterable[tuple[re.Pattern[str], Replacement]]) -> Traced:
    """`Pattern.sub` for traced text: a replacement gets the offset at which its match began."""
    for pattern, replacement in edits:
        text = "".join(character for character, _ in traced)
        out: Traced = []
        done = 0
        for match in pattern.finditer(text):
            new = replacement if isinstance(replacement, str) else replacement(match)
            out += traced[done : match.start()]
            out += [(character, traced[match.start()][1]) for character in new]
            done = match.end()
        traced = out + traced[done:]
    return traced

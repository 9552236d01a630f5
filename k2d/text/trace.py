"""Find normalised tokens in the text they came from, so that a diff can show what was written."""

import re
from collections.abc import Iterable

from k2d.text.normalise import BRACKETS, LETTERS, LOOSE, SPOKEN, Replacement, clean, fold, simplify
from k2d.text.tokens import TOKEN

Traced = list[tuple[str, int]]  # a character of the normalised text, and the offset in the text it stems from


def token_starts(text: str) -> list[int] | None:
    """Offset in `text` at which each of its mixed tokens begins, in order; tokens of one symbol can share an offset.

    None when the text does not normalise character by character (a base letter and its accent written apart).
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
    """`Pattern.sub` for traced text: what replaces a match stems from where the match began."""
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

"""Phonemes: the unit of the phoneme error rate.

Mandarin is read to toneless pinyin initials and finals (lower-case: `zh`, `iang`), English to ARPAbet without stress
(upper-case: `JH`), so the two alphabets never meet. Numbers are read the same way however they are written
(`k2d.text.numbers`). Other scripts give one unit a character. Source: method.md, section 2; the lexicon trap named
there (unknown words vanish) is closed: every token yields at least one unit.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import add

from k2d.text.english import pronounce
from k2d.text.mandarin import longest_phrase, phrase_prefixes, pinyin_units, respell
from k2d.text.numbers import read_numbers
from k2d.text.tokens import is_han, is_latin


def phonemes(tokens: Sequence[str]) -> list[str]:
    """Read mixed tokens aloud. Neighbouring Han characters are read together, so that polyphones find their context."""
    tokens = respell(read_numbers(tokens))
    prefixes = phrase_prefixes()
    # One look-up finds out whether a phrase can begin at a token; most do not, and this loop is where the time goes.
    begins = [pair in prefixes for pair in map(add, tokens, tokens[1:])]
    units: list[str] = []
    position = 0
    for start, token in enumerate(tokens):
        if start < position:
            continue
        word, position = token, start + 1
        if start < len(begins) and begins[start]:
            word, position = longest_phrase(tokens, start, prefixes)
        units += _units(word)
    return units


@lru_cache(maxsize=131_072)  # pypinyin's dictionary has 47,000 phrases; the rest is room for English
def _units(word: str) -> tuple[str, ...]:
    if is_han(word):
        return pinyin_units(word)
    return pronounce(word) if is_latin(word) else tuple(word)

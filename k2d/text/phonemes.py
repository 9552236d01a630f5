"""Phonemes: the unit of the phoneme error rate.

Mandarin is read to toneless pinyin initials and finals (lower-case: `zh`, `iang`), English to ARPAbet without stress
(upper-case: `JH`), so the two alphabets never meet. Numbers are read the same way however they are written
(`k2d.text.numbers`). Other scripts give one unit a character. Source: method.md, section 2; the lexicon trap named
there (unknown words vanish) is closed: every token yields at least one unit.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import add

from k2d.text.english import pronounce
from k2d.text.mandarin import longest_phrase, phrase_prefixes, pinyin_units, respell
from k2d.text.numbers import read_numbers
from k2d.text.tokens import is_han, is_latin


def phonemes(tokens: Sequence[str]) -> list[str]:
    """Read mixed tokens aloud. Neighbouring Han characters are read together, so that polyphones find their context."""
    tokens = respell(read_numbers(tokens))
    prefixes = phrase_prefixes()
    words: list[str] = []
    done = 0
    # One look-up finds out whether a phrase can begin at a token; most cannot, and this is where the time goes.
    for start, begins in enumerate(map(prefixes.__contains__, map(add, tokens, tokens[1:]))):
        if begins and start >= done:
            word, end = longest_phrase(tokens, start, prefixes)
            words += tokens[done:start]
            words.append(word)
            done = end
    words += tokens[done:]
    return list(chain.from_iterable(map(_units, words)))


@lru_cache(maxsize=131_072)  # pypinyin's dictionary has 47,000 phrases; the rest is room for English
def _units(word: str) -> tuple[str, ...]:
    if is_han(word):
        return pinyin_units(word)
    return pronounce(word) if is_latin(word) else tuple(word)

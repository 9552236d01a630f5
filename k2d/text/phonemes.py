"""Phonemes: the unit of the phoneme error rate.

Mandarin is read to toneless pinyin initials and finals (lower-case: `zh`, `iang`), English to ARPAbet without stress
(upper-case: `JH`), so the two alphabets never meet. Numbers are read the same way however they are written
(`k2d.text.numbers`). Other scripts give one unit a character. Source: method.md, section 2; the lexicon trap named
there (unknown words vanish) is closed: every token yields at least one unit.
"""

from collections.abc import Sequence

from k2d.text.sounds import decode, sounds


def phonemes(tokens: Sequence[str]) -> list[str]:
    """Read mixed tokens aloud. Neighbouring Han characters are read together, so that polyphones find their context."""
    return list(decode("".join(sounds(tokens))))

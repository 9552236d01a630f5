"""Phonemes: the unit of the phoneme error rate (PER).

Mandarin becomes toneless pinyin initials and finals (lower-case: `zh`, `iang`), English becomes ARPAbet without stress
(upper-case: `JH`), so no phoneme belongs to both. Numbers are read the same way in every notation (`k2d.text.numbers`).
Other scripts give one phoneme per character. Source: docs/method.md; unlike in the paper's code, words outside the
lexicon are not dropped.
"""

from collections.abc import Sequence

from k2d.text.sounds import decode, sounds


def phonemes(tokens: Sequence[str]) -> list[str]:
    """Return the phonemes of mixed tokens. Neighbouring Han characters are read together, which resolves polyphones.

    phonemes(["2", "个", "gpu"])  # ['er', 'g', 'e', 'JH', 'IY', 'P', 'IY', 'Y', 'UW']
    """
    return list(decode("".join(sounds(tokens))))

"""Measures of repetition in a text: the most frequent n-gram and the compression ratio."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

from k2d.text.normalise import normalise

# n and c of the paper's repetition flag, observed in the authors' code (docs/method.md).
NGRAM: Final = 6  # characters
REPETITION_MAX: Final = 5  # a text loops when some n-gram occurs more often than this


def repetition(text: str, n: int = NGRAM) -> int:
    """Count the occurrences of the most frequent character n-gram of a text, after normalisation.

    Windows slide by one character and may overlap; spaces count as characters. 0 when the text is shorter than n.

        repetition("謝謝大家" * 7)  # 6

    A unit of p characters repeated k times in a row gives about k - (n - p) / p equal windows when p < n, and k when
    p ≥ n. With n = 6 and the paper's limit (more than 5) 謝謝大家 is a loop from the 7th repetition on, a sentence from
    the 6th; shorter loops are found by `k2d.text.loops` and `k2d.text.phrases`. The rule also flags a chunk in which
    one long word ("learning") occurs six times, because it counts characters and not words.
    """
    return count_ngrams(normalise(text), n)


def count_ngrams(normalised: str, n: int = NGRAM) -> int:
    """`repetition` for already normalised text."""
    windows = [normalised[start : start + n] for start in range(len(normalised) - n + 1)]
    if len(set(windows)) == len(windows):  # true for most texts, and a set is cheaper than counting
        return min(1, len(windows))
    return max(Counter(windows).values())


def count_tokens(tokens: Sequence[str], n: int = NGRAM) -> int:
    """The same count over mixed tokens, where an English word is one token.

    At most `count_ngrams` of the same text without its spaces ("a 好" and "a好" are the same tokens).
    """
    windows = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return max(Counter(windows).values(), default=0)


def compression_ratio(text: str) -> float:
    """UTF-8 length over zlib-compressed length, as in openai/whisper; 0 for an empty text."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))

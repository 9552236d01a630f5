"""Measures of repetition in a text: the most frequent n-gram and the compression ratio."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

# n and c of the paper's repetition flag, observed in the authors' code (docs/method.md): the occurrences of the most
# frequent window of n characters of the normalised text (`k2d.text.reading.Reading.repetition`). Windows slide by one
# character and may overlap; spaces count as characters. A unit of p characters repeated k times in a row gives about
# k - (n - p) / p equal windows when p < n, and k when p ≥ n: 謝謝大家 is a loop from the 7th repetition on. Shorter
# loops are found by `k2d.text.loops` and `k2d.text.phrases`. The rule also flags a chunk in which one long word
# ("learning") occurs six times, because it counts characters and not words.
NGRAM: Final = 6  # characters
REPETITION_MAX: Final = 5  # a text loops when some n-gram occurs more often than this


def count_tokens(tokens: Sequence[str], n: int = NGRAM) -> int:
    """The occurrences of the most frequent run of n mixed tokens, where an English word is one token.

    At most the count over characters of the same text without its spaces ("a 好" and "a好" are the same tokens).
    """
    windows = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return max(Counter(windows).values(), default=0)


def compression_ratio(text: str) -> float:
    """UTF-8 length over zlib-compressed length, as in openai/whisper; 0 for an empty text."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))

"""Signs that a text loops: the most frequent character n-gram, and how well it compresses."""

import zlib
from collections import Counter
from collections.abc import Sequence

from k2d.text.normalise import normalise

NGRAM = 6  # characters; with REPETITION_MAX as observed in the authors' code (method.md, section 2)
REPETITION_MAX = 5  # a text loops when its count is *greater*: 6 times or more


def repetition(text: str, n: int = NGRAM) -> int:
    """Count the most frequent character n-gram of the normalised text, in windows that slide by one character.

    Spaces count as characters. 0 when the text is shorter than n characters. Windows overlap, so a loop over one
    character counts too: 好 written 20 times has 15 equal windows.

    What it sees and what it does not: a unit of p characters said k times in a row gives about k - (n - p) / p windows
    when p < n and k when p ≥ n. At n = 6 and the paper's limit (more than 5), 謝謝大家 is seen from the 7th time on, a
    sentence from the 6th. Shorter loops are what `k2d.text.loops` and `k2d.text.phrases` are for. A 30 s chunk that
    says one long word six times ("learning") is flagged as well: the price of a rule that knows no words.
    """
    return count_ngrams(normalise(text), n)


def count_ngrams(normalised: str, n: int = NGRAM) -> int:
    """`repetition` for text that `normalise` has been over."""
    windows = [normalised[start : start + n] for start in range(len(normalised) - n + 1)]
    if len(set(windows)) == len(windows):  # most texts; a set is cheaper than a count
        return min(1, len(windows))
    return max(Counter(windows).values())


def count_tokens(tokens: Sequence[str], n: int = NGRAM) -> int:
    """The same count over mixed tokens: for Han characters the paper's, but a long English word is one token.

    Never above `count_ngrams` of the text that the tokens are of, without its spaces: a 好 and a好 are the same tokens.
    """
    windows = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return max(Counter(windows).values(), default=0)


def compression_ratio(text: str) -> float:
    """Length of the UTF-8 bytes over their zlib-compressed length, as Whisper computes it; 0 for an empty text."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))

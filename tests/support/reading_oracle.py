"""Texts read plainly, one at a time: what `k2d.text.reading` must give. Short and slow on purpose."""

from collections import Counter
from collections.abc import Sequence
from itertools import compress, count
from operator import add

from k2d.text import mandarin
from k2d.text.normalise import clean, simplify
from k2d.text.numbers import SHORT_FORMS
from k2d.text.repetition import NGRAM
from k2d.text.sounds import ALONE, NUMBER, RESPELLED, ContextPlaces, decode, sounds_in_context
from k2d.text.tokens import TOKEN


def normalise(text: str) -> str:
    """Normalise text for comparison: lower-case, Simplified characters, words separated by single spaces.

        normalise("今天的 Meeting 改到 3.5 點，20% 的人說 don't（笑）")
        # "今天的 meeting 改到 3.5 点 20 percent 的人说 don't"

    Idempotent. Accepts text of any length and script and never raises. Source: docs/method.md.
    """
    return simplify(clean(text))


def mixed_tokens(text: str) -> list[str]:
    """Normalise text and split it into mixed tokens.

    mixed_tokens("今天的 Meeting，don't 遲到！")  # ['今', '天', '的', 'meeting', "don't", '迟', '到']
    """
    return split_normalised(normalise(text))


def split_normalised(normalised: str) -> list[str]:
    """Split already normalised text into mixed tokens. The tokens joined are the text without its spaces."""
    return TOKEN.findall(normalised)


def sounds(tokens: Sequence[str]) -> list[str]:
    """Return the sound of each mixed token in its context; joined, they are the phonemes of the text in order.

    The phonemes of a number of several words belong to its first word, and those of 百分之 to the last token of its
    number, so the other tokens of a number may have none; every other token has at least one. `tokens` may be those of
    many texts with SEPARATOR between them.

        [decode(sound) for sound in sounds(["银", "行"])]  # [('in',), ('h', 'ang')]
    """
    odd = mandarin.odd_phrases()
    alone = list(map(ALONE.__getitem__, tokens))
    places = ContextPlaces(
        respelled=[place for place, token in enumerate(tokens) if token in RESPELLED],
        numbers=_places_of(NUMBER, alone),
        units=[place for place, token in enumerate(tokens) if token in tuple(SHORT_FORMS)],
        odd=list(compress(count(), map(odd.__contains__, map(add, tokens, tokens[1:])))),
    )
    return sounds_in_context(tokens, alone, places)


def _places_of(wanted: str, among: Sequence[str]) -> list[int]:
    return list(compress(count(), map(wanted.__eq__, among))) if wanted in among else []


def phonemes(tokens: Sequence[str]) -> list[str]:
    """Return the phonemes of mixed tokens. Neighbouring Han characters are read together, which resolves polyphones.

    phonemes(["2", "个", "gpu"])  # ['er', 'g', 'e', 'JH', 'IY', 'P', 'IY', 'Y', 'UW']
    """
    return list(decode("".join(sounds(tokens))))


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

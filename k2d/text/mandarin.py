"""Pronunciation of Mandarin as toneless pinyin initials and finals.

Readings are pypinyin's, in context: its phrase dictionary tells 银行 (yin hang) from 行人 (xing ren), by the longest
match from the left, as pypinyin itself segments. The segmentation is reimplemented here over tokens, with one look-up
per character, because it takes most of the time.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Final

from k2d.text.tokens import is_han

# All initials and finals that occur in pypinyin's readings of single characters.
_INITIALS: Final = "b p m f d t n l g k h j q x zh ch sh r z c s"
_FINALS: Final = """
a o e i u v ai ei ao ou an en ang eng er ong ia ie iao iou ian in iang ing iong
ua uo uai uei uan uen uang ueng ve van vn
"""
UNITS: Final = (*_INITIALS.split(), *_FINALS.split())

_TONELESS: Final = str.maketrans("āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜńňǹḿ", "aaaaeeeeiiiioooouuuuüüüünnnm")
_TWO: Final = "两"
_TWO_UNITS: Final = ("er",)  # so that 兩個 and 2 個 get the same phonemes, see k2d.text.numbers

# Neighbours of 著 read zhu (著名, 名著). Elsewhere it is the particle of 看著, which Simplified text writes 着;
# OpenCC's t2s does not convert it.
_BEFORE_ZHU: Final = frozenset("显名原编土专论巨卓昭译遗拙合")
_AFTER_ZHU: Final = frozenset("名作者书述称录")

RESPELLED: Final = ("著", "々")  # the tokens that `respell` may replace


def respell(tokens: Sequence[str], places: Sequence[int]) -> Sequence[str]:
    """Replace the particle 著 by 着, and 々 by the character it repeats. `places`: indices of RESPELLED tokens."""
    if not places:
        return tokens
    out = list(tokens)
    for index in places:
        before = tokens[index - 1] if index else ""
        after = tokens[index + 1] if index + 1 < len(tokens) else ""
        if tokens[index] == "々":
            if is_han(before):
                out[index] = before
        elif before not in _BEFORE_ZHU and after not in _AFTER_ZHU:
            out[index] = "着"
    return out


def longest_phrase(tokens: Sequence[str], start: int, prefixes: Mapping[str, bool]) -> tuple[str, int]:
    """Return the longest dictionary phrase that begins at token `start` (or that token alone), and its end index."""
    phrase, end = tokens[start], start + 1
    text = phrase
    for index in range(end, len(tokens)):
        text += tokens[index]
        whole = prefixes.get(text)
        if whole is None:
            break
        if whole:
            phrase, end = text, index + 1
    return phrase, end


@cache
def phrase_prefixes() -> dict[str, bool]:
    """Every prefix (two characters or more) of a dictionary phrase, and whether it is itself a phrase."""
    from pypinyin.constants import PHRASES_DICT  # takes 0.3 s and 30 MB, so it is imported only when needed

    prefixes: dict[str, bool] = {}
    for phrase in PHRASES_DICT:
        if not re.search("[a-z]", phrase):  # not to catch Latin tokens
            for length in range(2, len(phrase)):
                prefixes.setdefault(phrase[:length], False)
            prefixes[phrase] = True
    return prefixes


@cache
def odd_phrases() -> dict[str, tuple[str, ...]]:
    """The phrases that are not read like their single characters (长大, 银行), by their first two characters.

    That is one phrase in fourteen. A text without any of them reads like its single characters, however it is
    segmented.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

    alone: dict[str, str] = {}  # toneless; a character without a reading makes its phrases odd
    for code, readings in PINYIN_DICT.items():
        alone[chr(code)] = readings.split(",")[0].translate(_TONELESS)
    pairs: dict[str, list[str]] = {}
    for phrase, syllables in PHRASES_DICT.items():
        in_phrase = [readings[0].translate(_TONELESS) for readings in syllables]
        if in_phrase != [alone.get(character) for character in phrase]:
            pairs.setdefault(phrase[:2], []).append(phrase)
    return {pair: tuple(phrases) for pair, phrases in pairs.items()}


def pinyin_units(word: str) -> tuple[str, ...]:
    """Return the initials and finals of a dictionary phrase or a single Han character.

        pinyin_units("谢谢")  # ('x', 'ie', 'x', 'ie')

    At least one for every character; a character without a known reading is returned as itself.
    """
    return tuple(chain.from_iterable(phrase_reading(word)))


def phrase_reading(word: str) -> tuple[tuple[str, ...], ...]:
    """`pinyin_units`, grouped by character: one tuple for each."""
    from pypinyin import Style, lazy_pinyin

    syllables = lazy_pinyin(word, style=Style.NORMAL)  # characters it cannot read come back unchanged
    return tuple(
        _TWO_UNITS if character == _TWO else _split(syllable)
        for syllable, character in zip(syllables, word, strict=True)
    )


@cache  # bounded: Mandarin has 430 syllables, the rest are characters without a reading
def _split(syllable: str) -> tuple[str, ...]:
    """Split a syllable: liang → l iang, yu → v, er → er. Anything that is not a syllable stays whole."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    if not syllable.isascii():
        return (syllable,)
    units = tuple(unit for unit in (to_initials(syllable), to_finals(syllable)) if unit)
    return units or (syllable,)

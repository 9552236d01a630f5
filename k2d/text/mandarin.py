"""How Mandarin is said: toneless pinyin initials and finals.

Readings are pypinyin's, in context: its phrase dictionary decides 银行 (yin hang) and 行人 (xing ren) by the longest
match from the left, as pypinyin itself cuts. The cutting is done here, over tokens, because it is most of the work: one
look-up a character.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain

from k2d.text.tokens import is_han

# Every unit that pypinyin's readings of single characters have.
_INITIALS = "b p m f d t n l g k h j q x zh ch sh r z c s"
_FINALS = """
a o e i u v ai ei ao ou an en ang eng er ong ia ie iao iou ian in iang ing iong
ua uo uai uei uan uen uang ueng ve van vn
"""
UNITS = (*_INITIALS.split(), *_FINALS.split())

_TONELESS = str.maketrans("āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜńňǹḿ", "aaaaeeeeiiiioooouuuuüüüünnnm")
_TWO = "两"
_TWO_UNITS = ("er",)  # 2 個 and 兩個 are one sound written twice, see k2d.text.numbers

# Neighbours of 著 zhu (著名, 名著). Elsewhere it is the particle of 看著, which OpenCC's t2s leaves as it is where
# Simplified text has 着.
_BEFORE_ZHU = frozenset("显名原编土专论巨卓昭译遗拙合")
_AFTER_ZHU = frozenset("名作者书述称录")


RESPELLED = ("著", "々")


def respell(tokens: Sequence[str], places: Sequence[int]) -> Sequence[str]:
    """Write 着 for the particle 著, and the repeated character for 々; other tokens stay. They are at `places`."""
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
    """The longest phrase of the dictionary that begins at token `start` (or that token alone), and where it ends."""
    found, end = tokens[start], start + 1
    text = found
    for index in range(end, len(tokens)):
        text += tokens[index]
        whole = prefixes.get(text)
        if whole is None:
            break
        if whole:
            found, end = text, index + 1
    return found, end


@cache
def phrase_prefixes() -> dict[str, bool]:
    """Every beginning (two characters or more) of a phrase, and whether it is a phrase by itself."""
    from pypinyin.constants import PHRASES_DICT  # 0.3 s and 30 MB: only when something is read aloud

    prefixes: dict[str, bool] = {}
    for phrase in PHRASES_DICT:
        if not re.search("[a-z]", phrase):  # not to catch Latin tokens
            for length in range(2, len(phrase)):
                prefixes.setdefault(phrase[:length], False)
            prefixes[phrase] = True
    return prefixes


@cache
def odd_phrases() -> dict[str, tuple[str, ...]]:
    """The phrases that are not read as their characters alone are (长大, 银行), by their first two characters.

    One phrase in fourteen: where none of them occurs, a text reads as its characters do, however it is cut.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

    alone: dict[str, str] = {}  # toneless; an unknown character has no reading, so its phrases count as odd
    for code, readings in PINYIN_DICT.items():
        alone[chr(code)] = readings.split(",")[0].translate(_TONELESS)
    pairs: dict[str, list[str]] = {}
    for phrase, syllables in PHRASES_DICT.items():
        said = [readings[0].translate(_TONELESS) for readings in syllables]
        if said != [alone.get(character) for character in phrase]:
            pairs.setdefault(phrase[:2], []).append(phrase)
    return {pair: tuple(phrases) for pair, phrases in pairs.items()}


def pinyin_units(word: str) -> tuple[str, ...]:
    """Initials and finals of a phrase of the dictionary or a single Han character: 谢谢 → x ie x ie.

    At least one unit a character; one without a known reading stands for itself.
    """
    return tuple(chain.from_iterable(phrase_reading(word)))


def phrase_reading(word: str) -> tuple[tuple[str, ...], ...]:
    """`pinyin_units`, character by character."""
    from pypinyin import Style, lazy_pinyin

    syllables = lazy_pinyin(word, style=Style.NORMAL)  # what it cannot read comes back as it is
    return tuple(
        _TWO_UNITS if character == _TWO else _split(syllable)
        for syllable, character in zip(syllables, word, strict=True)
    )


@cache  # bounded by Mandarin's 430 syllables and the characters without a reading
def _split(syllable: str) -> tuple[str, ...]:
    """liang → l iang; yu → v; er → er; what is no syllable stays whole."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    if not syllable.isascii():
        return (syllable,)
    units = tuple(unit for unit in (to_initials(syllable), to_finals(syllable)) if unit)
    return units or (syllable,)

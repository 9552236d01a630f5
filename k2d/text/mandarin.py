"""Pronunciation of Mandarin as toneless pinyin initials and finals.

Readings are pypinyin's, in context: its phrase dictionary tells 银行 (yin hang) from 行人 (xing ren). Text is cut into
phrases by the longest match from the right, which is wrong less often than from the left (试着|重复, not 试|着重|复).
What depends on more than a phrase has rules here: 行 of lines, 重 of doing again, 地 of adverbs, and the 儿 that is no
syllable.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Final

from k2d.text.tokens import is_han, is_latin

# All initials and finals that occur in pypinyin's readings of single characters.
_INITIALS: Final = "b p m f d t n l g k h j q x zh ch sh r z c s"
_FINALS: Final = """
a o e i u v ai ei ao ou an en ang eng er ong ia ie iao iou ian in iang ing iong
ua uo uai uei uan uen uang ueng ve van vn
"""
UNITS: Final = (*_INITIALS.split(), *_FINALS.split())

_TONELESS: Final = str.maketrans("āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜńňǹḿ", "aaaaeeeeiiiioooouuuuüüüünnnm")
# Characters that by themselves are read otherwise than pypinyin's first reading says; in its phrases they are not. 两
# and 俩 are read like 二, so that 兩個 and 2 個 get the same phonemes (k2d.text.numbers). Interjections (欸 诶 嗯 喽 …)
# are written with whatever character is at hand: those that are said alike get one reading.
_ALONE: Final = {
    **dict.fromkeys("两俩", "er"),
    "调": "tiao",
    "长": "chang",
    "薄": "bao",
    "似": "si",
    "嚼": "jiao",
    "勒": "le",
    "嘞": "le",
    "吓": "xia",
    **dict.fromkeys("欸诶誒欵", "ei"),
    **dict.fromkeys("嗯唔呣", "en"),
    **dict.fromkeys("咯喽嘍囉啰", "luo"),
    **dict.fromkeys("哦喔噢", "o"),
    **dict.fromkeys("哟唷呦", "yo"),
    **dict.fromkeys("哎唉嗳", "ai"),
    **dict.fromkeys("啊嗄", "a"),
    **dict.fromkeys("呃痾", "e"),
    "蛤": "ha",
    "耶": "ye",
}

_ALWAYS: Final = frozenset("两俩")  # read so in phrases too

# The sounds of Bopomofo letters, with which Taiwan writes interjections (ㄟ, ㄏㄏ). A consonant is not followed by the
# vowel of its name, so that ㄏㄚ is ha.
_BOPOMOFO_SOUNDS: Final = "b p m f d t n l g k h j q x zh ch sh r z c s a o e ie ai ei ao ou an en ang eng er i u v"
BOPOMOFO: Final = {chr(ord("ㄅ") + place): unit for place, unit in enumerate(_BOPOMOFO_SOUNDS.split())}

# ---- characters that are read by their neighbours ------------------------------------------------------------------

RESPELLED: Final = "々地儿行重"  # the Han characters that `respell` may replace
SILENT: Final = ""  # the 儿 of 一点儿 colours the vowel before it, and is often not written
_NUMERALS: Final = frozenset("零〇一二三四五六七八九十百千万两几数")
# 行 is a line (hang) after a number or these, unless one of those follows it (一行人, 这行不行, 三行动)
_LINES: Final = frozenset("这那哪每整逐空首末")
_NO_LINE: Final = frozenset("人动为走驶使政贿李")
_NO_LINE_AFTER_THIS: Final = _NO_LINE | frozenset("不得吗吧了程")
# 重 is again (chong) before these verbs. pypinyin's dictionary has those of general use (重复, 重新), not those of
# computing and study.
_AGAIN: Final = frozenset(
    "跑做写来装开训试置构载启设算排刷拍录传发播读看考选建编译连采抽用学打登推整制绘画"
    "组审测映拾回返归聚申印刻演述练灌抄买组签查问听讲说改"
)
# 儿 is a syllable in words for children and people: before and after these.
_CHILD_BEFORE: Final = frozenset("女幼婴孤少健男胎宠育托侄弃患产生血孩妻乞孙小娇骄")
_CHILD_AFTER: Final = frozenset("子童女媳科歌时戏孙郎")
# 地 is land (di), and not the end of an adverb (de), after and before these; also in the dictionary's words with it.
_LAND_AFTER: Final = frozenset("块片这那哪此该某各每的在到于满着了下上两几一二三四五六七八九十是有买卖")
_LAND_BEFORE: Final = frozenset("的是也了吗呢吧有")
# 开心地笑, 小心地走: words with 心, and no 心地. 力地 of the dictionary is the end of 努力地, 用力地.
_HEARTS: Final = frozenset("开小耐细专用好放真热诚苦衷粗精甘安关全贴虚痴有无")
_WORDS_AHEAD: Final = 9  # characters after 地 that are cut into words to see whether it is in one of them


def respell(tokens: Sequence[str], places: Sequence[int]) -> Sequence[str]:
    """Replace characters by others that sound as they do here. `places`: indices of RESPELLED tokens.

        respell(["第", "三", "行"], [2])  # ['第', '三', '航']

    々 becomes the character it repeats, 行 of lines 航, 重 of doing again 虫, 地 of adverbs 的, and 儿 that is no
    syllable SILENT. All others stay.
    """
    if not places:
        return tokens
    out = list(tokens)
    for index in places:
        out[index] = _respelled(out, index)
    return out


def _respelled(tokens: Sequence[str], index: int) -> str:
    written = tokens[index]
    before = tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    match written:
        case "々":
            return before if is_han(before) else written
        case "行":
            return "航" if _is_line(before, after) else written
        case "重":
            is_again = after in _AGAIN and not {f"重{after}", f"{before}重"} & phrase_words()
            return "虫" if is_again else written
        case "儿":
            is_child = before in _CHILD_BEFORE or after in _CHILD_AFTER
            return written if is_child or not is_han(before) else SILENT
        case _:
            return "的" if _is_adverb(tokens, index, before, after) else written


def _is_line(before: str, after: str) -> bool:
    if before in _NUMERALS or before.isdecimal():
        return after not in _NO_LINE
    return before in _LINES and after not in _NO_LINE_AFTER_THIS


def _is_adverb(tokens: Sequence[str], index: int, before: str, after: str) -> bool:
    """Whether 地 at `index` ends an adverb: 慢慢地走, 很快地跑完, 認真地聽; not 當地的人, 地方."""
    if not is_han(before) or not (is_han(after) or is_latin(after)):
        return False
    if index > 1 and tokens[index - 2] == before:  # 慢慢地, whatever follows
        return True
    if before in _LAND_AFTER or after in _LAND_BEFORE:
        return False
    end = index + 1
    while end < min(len(tokens), index + _WORDS_AHEAD) and is_han(tokens[end]):
        end += 1
    suffixes = phrase_suffixes()
    word = ""
    while end > index:
        word, end = longest_phrase(tokens, end, suffixes)
    if word == "心地" and index > 1:
        return tokens[index - 2] in _HEARTS
    return word in ("地", "力地")


# ---- phrases --------------------------------------------------------------------------------------------------------


def longest_phrase(tokens: Sequence[str], end: int, suffixes: Mapping[str, bool]) -> tuple[str, int]:
    """Return the longest dictionary phrase that ends before token `end`, or that one token, and its first index."""
    start = end - 1
    phrase = text = tokens[start]
    for index in range(start - 1, -1, -1):
        text = tokens[index] + text
        whole = suffixes.get(text)
        if whole is None:
            break
        if whole:
            phrase, start = text, index
    return phrase, start


@cache
def phrase_suffixes() -> dict[str, bool]:
    """Every suffix (two characters or more) of a dictionary phrase, and whether it is itself a phrase."""
    suffixes: dict[str, bool] = {}
    for phrase in phrase_words():
        for start in range(len(phrase) - 2, 0, -1):
            suffixes.setdefault(phrase[start:], False)
        suffixes[phrase] = True
    return suffixes


@cache
def phrase_words() -> frozenset[str]:
    """The phrases of pypinyin's dictionary."""
    from pypinyin.constants import PHRASES_DICT  # takes 0.3 s and 30 MB, so it is imported only when needed

    return frozenset(phrase for phrase in PHRASES_DICT if not re.search("[a-z]", phrase))  # not to catch Latin tokens


@cache
def odd_phrases() -> dict[str, tuple[str, ...]]:
    """The phrases that are not read like their single characters (长大, 银行), by their first two characters.

    Shortest first. That is one phrase in fourteen. A text without any of them reads like its single characters,
    however it is segmented.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

    alone: dict[str, str] = {}  # toneless; a character without a reading makes its phrases odd
    for code, readings in PINYIN_DICT.items():
        alone[chr(code)] = readings.split(",")[0].translate(_TONELESS)
    alone |= _ALONE
    pairs: dict[str, list[str]] = {}
    for phrase, syllables in PHRASES_DICT.items():
        in_phrase = [readings[0].translate(_TONELESS) for readings in syllables]
        if in_phrase != [alone.get(character) for character in phrase]:
            pairs.setdefault(phrase[:2], []).append(phrase)
    return {pair: tuple(sorted(phrases, key=len)) for pair, phrases in pairs.items()}


def pinyin_units(word: str) -> tuple[str, ...]:
    """Return the initials and finals of a dictionary phrase or a single Han character.

        pinyin_units("谢谢")  # ('x', 'ie', 'x', 'ie')

    At least one for every character; a character without a known reading is returned as itself.
    """
    return tuple(chain.from_iterable(phrase_reading(word)))


def phrase_reading(word: str) -> tuple[tuple[str, ...], ...]:
    """`pinyin_units`, grouped by character: one tuple for each."""
    from pypinyin import Style, lazy_pinyin

    if word in _ALONE:
        return (_split(_ALONE[word]),)
    syllables = lazy_pinyin(word, style=Style.NORMAL)  # characters it cannot read come back unchanged
    return tuple(
        _split(_ALONE[character] if character in _ALWAYS else syllable)
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

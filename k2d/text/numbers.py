"""Reads numbers in every notation the same way, before phonemes are computed.

One model writes 2 where another writes 二, 兩 or two; that is not a recognition error. So digits and English number
words are replaced by the Mandarin numeral of their value: 25, 二十五 and "twenty-five" all become 二十五. Han numerals
stay unchanged, since they are also part of other words (一些, 萬一). Rules:

- 兩 has the phonemes of 二 (`k2d.text.mandarin`), so 2 個 equals 兩個.
- Years are read digit by digit: four digits before 年, or 1700–2099 unless a multiple of 100 ("nineteen ninety-nine" =
  1999 = 一九九九). So are numbers with leading zeros, and non-round numbers of more than 8 digits (telephone numbers).
- Decimals are read digit by digit after 點: 3.5 = 三點五 = "three point five". With several points each part is read as
  an integer.
- 百分之二十 becomes 二十 percent, like 20%. 1st becomes "first".

A side effect: "to" for "two" counts two phoneme edits although both sound the same.
"""

import re
from collections.abc import Sequence
from typing import Final

_DIGITS: Final = "零一二三四五六七八九"
_SMALL_WORDS: Final = """
zero one two three four five six seven eight nine ten
eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
"""
_TEN_WORDS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_WORDS: Final = """
first second third fourth fifth sixth seventh eighth ninth tenth
eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_SMALL: Final = {word: value for value, word in enumerate(_SMALL_WORDS.split())}
_TENS: Final = {word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), 2)}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORDS: Final = frozenset((*_SMALL, *_TENS, *_SCALES, "hundred"))
_ORDINALS: Final = dict(enumerate(_ORDINAL_WORDS.split(), 1)) | {30: "thirtieth"}

_HAN_NUMERAL: Final = frozenset("零〇一二两三四五六七八九十百千万亿点半几")
_PERCENT_OF: Final = "百 分 之"  # three tokens
_IN_NUMERALS: Final = _WORDS | _HAN_NUMERAL | {"a", "and", "point", "分", "之", "年"}
_AFTER_A: Final = frozenset(("hundred", *_SCALES))  # a hundred is 100
_ASCII_DIGITS: Final = frozenset("0123456789")

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_PIECES: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*|[^0-9]+")
_DIGIT_OR_HYPHEN: Final = re.compile(r"[0-9-]")
_ORDINAL: Final = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_LONGEST_VALUE: Final = 8  # digits; chosen: a longer number is read as a telephone number, unless it is round
_LONGEST_ROUND: Final = 12  # digits of a multiple of 10,000: the limit of `read_integer`
_CENTURIES: Final = range(17, 21)  # first half of a year in English: "nineteen" ninety-nine
_YEARS: Final = range(1700, 2100)


def read_numbers(tokens: Sequence[str]) -> Sequence[str]:
    """Replace every number in mixed tokens by the Han characters of its reading, one token each.

        read_numbers(["gpt-4o", "twenty", "five"])  # ['gpt', '四', 'o', '二', '十', '五']

    Numbers inside words are read too. Tokens without a number are returned unchanged.
    """
    text = " ".join(tokens)
    if not (_DIGIT_OR_HYPHEN.search(text) or _PERCENT_OF in text) and _WORDS.isdisjoint(tokens):
        return tokens
    return trace_numbers(tokens)[0]


def trace_numbers(tokens: Sequence[str]) -> tuple[list[str], list[int]]:
    """`read_numbers`, and for each returned token the index of the input token it comes from, never descending.

    A number of several words ("twenty five") comes from its first word; of 百分之二十, "percent" comes from 十, and no
    token comes from 百分之.
    """
    split = [(part, place) for place, token in enumerate(tokens) for part in _split(token)]
    parts, places = [part for part, _ in split], [place for _, place in split]
    if "百" in parts:
        parts, places = _percent(parts, places)
    return _values(parts, places)


def names_number(token: str) -> bool:
    """Whether a Latin token can only be read with its neighbours: it has digits or a hyphen, or is a number word."""
    return token in _WORDS or _DIGIT_OR_HYPHEN.search(token) is not None


def in_numeral(token: str) -> bool:
    """Whether a token can be part of a number, or next to one and affect its reading (年)."""
    return token in _IN_NUMERALS or _DIGIT_OR_HYPHEN.search(token) is not None


def read_integer(value: int) -> str:
    """Return the Mandarin numeral of a value from 0 to 10^12 - 1: 10 → 十, 105 → 一百零五, 12000 → 一万二千."""
    if value == 0:
        return "零"
    text, gap = "", False
    for power, unit in ((8, "亿"), (4, "万"), (0, "")):
        group = value // 10**power % 10_000
        if group:
            text += "零" if text and (gap or group < 1000) else ""
            text += _read_group(group) + unit
        gap = bool(text) and not group
    return text[1:] if text.startswith("一十") else text


def _read_group(group: int) -> str:
    """The numeral of 1…9999, with 零 for zeros between digits."""
    text, gap = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = group // power % 10
        if digit:
            text += ("零" if text and gap else "") + _DIGITS[digit] + unit
        gap = not digit
    return text


def read_digits(number: str, *, year: bool = False) -> str:
    """Return the Mandarin reading of ASCII digits with or without points; `year`: 年 follows."""
    whole, *rest = number.split(".")
    if len(rest) > 1:
        return "点".join(_read_whole(part, year=False) for part in (whole, *rest))
    return _read_whole(whole, year=year) + "".join("点" + _one_by_one(part) for part in rest)


def _read_whole(digits: str, *, year: bool) -> str:
    like_a_year = len(digits) == 4 and (year or (int(digits) in _YEARS and int(digits) % 100 != 0))
    telephone = len(digits) > _LONGEST_VALUE and (int(digits) % 10_000 != 0 or len(digits) > _LONGEST_ROUND)
    if like_a_year or telephone or (digits[0] == "0" and len(digits) > 1):
        return _one_by_one(digits)
    return read_integer(int(digits))


def _one_by_one(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _split(token: str) -> list[str]:
    """Split a token at hyphens and between digits and letters, except ordinals: gpt-4o → gpt 4 o, 1st → 1st."""
    if token.isalpha():
        return [token]
    parts: list[str] = []
    for piece in token.split("-"):
        parts += [piece] if _ORDINAL.fullmatch(piece) else _PIECES.findall(piece)
    return parts


def _percent(parts: Sequence[str], places: Sequence[int]) -> tuple[list[str], list[int]]:
    """百 分 之 二 十 → 二 十 percent."""
    out: list[str] = []
    stems: list[int] = []
    index = 0
    while index < len(parts):
        end = start = index + 3
        if parts[index] == "百" and " ".join(parts[index:start]) == _PERCENT_OF:
            while end < len(parts) and (parts[end] in _HAN_NUMERAL or _NUMBER.fullmatch(parts[end])):
                end += 1
        if end > start:
            out += [*parts[start:end], "percent"]
            stems += [*places[start:end], places[end - 1]]
            index = end
        else:
            out.append(parts[index])
            stems.append(places[index])
            index += 1
    return out, stems


def _values(parts: Sequence[str], places: Sequence[int]) -> tuple[list[str], list[int]]:
    out: list[str] = []
    stems: list[int] = []
    index = 0
    while index < len(parts):
        part = parts[index]
        number, end = None, index + 1
        if part[0] in _ASCII_DIGITS:
            if ordinal := _ORDINAL.fullmatch(part):
                out += _read_ordinal(int(ordinal[1]))
                stems += [places[index]] * (len(out) - len(stems))
                index = end
                continue
            number, end = _scaled(part, parts, end)
        elif part in _WORDS or part == "a":
            number, end = _spelled(parts, index)
        out += read_digits(number, year=_at(parts, end) == "年") if number else [part]
        stems += [places[index]] * (len(out) - len(stems))
        index = end
    return out, stems


def _read_ordinal(value: int) -> list[str]:
    """1 → first, 21 → 二 十 first, 100 → 一 百 th."""
    if value in _ORDINALS:
        return [_ORDINALS[value]]
    rest = value % 10
    if rest and value % 100 > 20:
        return [*read_digits(str(value - rest)), _ORDINALS[rest]]
    return [*read_digits(str(value)), "th"]


def _scaled(digits: str, parts: Sequence[str], end: int) -> tuple[str, int]:
    """Apply a scale word: 3 million → 3000000, 3.5 thousand → 3500. Returns the digits and the end of the number."""
    scale = _SCALES.get(_at(parts, end))
    whole, _, fraction = digits.partition(".")
    if scale is None or "." in fraction or len(fraction) > 3 or len(whole) > 3:
        return digits, end
    return str(int(whole) * scale + int(fraction.ljust(3, "0")) * scale // 1000), end + 1


# ---- English numerals ---------------------------------------------------------------------------------------------
# Each function takes the parts and a start index, and returns the value there (None: no numeral) and its end index.


def _spelled(parts: Sequence[str], start: int) -> tuple[str | None, int]:
    """The digits of an English numeral, year (nineteen ninety-nine) or decimal (three point five)."""
    skipped = start + (parts[start] == "a" and _at(parts, start + 1) in _AFTER_A)
    value, end = _numeral(parts, skipped)
    if value is None:
        return None, start + 1
    if end == start + 1 and value in _CENTURIES:
        rest, rest_end = _below_hundred(parts, end)
        if rest is not None and rest >= 10:
            return f"{value}{rest}", rest_end
    decimals = end + 1
    if _at(parts, end) == "point":
        while _SMALL.get(_at(parts, decimals), 10) < 10:
            decimals += 1
    if decimals > end + 1:
        return f"{value}." + "".join(str(_SMALL[part]) for part in parts[end + 1 : decimals]), decimals
    return str(value), end


def _numeral(parts: Sequence[str], start: int) -> tuple[int | None, int]:
    """The longest numeral: "two hundred and five thousand" is one, "one two" are two."""
    total, least, index = 0, 10**12, start
    while True:
        group, end = _below_thousand(parts, _skip_and(parts, index) if index > start else index)
        scale = _SCALES.get(_at(parts, end))
        if scale is None or scale >= least or group == 0 or (group is None and index > start):
            if group is not None and scale is None:
                total, index = total + group, end
            return (total, index) if index > start else (None, start)
        total += (1 if group is None else group) * scale
        least, index = scale, end + 1


def _below_thousand(parts: Sequence[str], start: int) -> tuple[int | None, int]:
    value, end = _below_hundred(parts, start)
    if _at(parts, end) != "hundred" or value == 0:
        return value, end
    rest, rest_end = _below_hundred(parts, _skip_and(parts, end + 1))
    hundreds = 100 * (1 if value is None else value)
    return (hundreds + rest, rest_end) if rest else (hundreds, end + 1)


def _below_hundred(parts: Sequence[str], start: int) -> tuple[int | None, int]:
    word = _at(parts, start)
    if word in _SMALL:
        return _SMALL[word], start + 1
    if word not in _TENS:
        return None, start
    unit = _SMALL.get(_at(parts, start + 1), 0)
    return (_TENS[word] + unit, start + 2) if 0 < unit < 10 else (_TENS[word], start + 1)


def _skip_and(parts: Sequence[str], index: int) -> int:
    return index + 1 if _at(parts, index) == "and" else index


def _at(parts: Sequence[str], index: int) -> str:
    return parts[index] if index < len(parts) else ""

"""Reads numbers in every notation the same way, before phonemes are computed.

One model writes 2 where another writes 二, 兩 or two; that is not a recognition error. So digits and English number
words are replaced by the Mandarin numeral of their value: 25, 二十五 and "twenty-five" all become 二十五. Han numerals
stay, since they are also part of other words (一些, 萬一), but for short forms, which are read in full: 一萬二 becomes
一萬二千, 廿五 becomes 二十五. Rules:

- 兩 has the phonemes of 二 (`k2d.text.mandarin`), so 2 個 equals 兩個.
- Years are read digit by digit: four digits before 年, or 1700–2099 unless a multiple of 100 ("nineteen ninety-nine" =
  1999 = 一九九九). So are numbers with leading zeros, non-round numbers of more than 8 digits, and telephone numbers in
  groups (0912-345-678, 0912 345 678, 2345-6789; not the range 1500-2000).
- Decimals are read digit by digit after 點: 3.5 = 三點五 = "three point five". With several points each part is read as
  an integer. A scale word multiplies: "one point five million" = 1.5 million = 1500000.
- 百分之二十 becomes 二十 percent, like 20%. 1st becomes "first".

A side effect: "to" for "two" counts two phoneme edits although both sound the same.
"""

import re
from collections.abc import Sequence
from typing import Final

from k2d.text.english import ENDINGS, LETTER_A

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
_DECIMAL: Final = _SMALL | {"oh": 0}
_TENS: Final = {word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), 2)}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORDS: Final = frozenset((*_SMALL, *_TENS, *_SCALES, "hundred"))
_ORDINALS: Final = dict(enumerate(_ORDINAL_WORDS.split(), 1)) | {30: "thirtieth"}

_HAN_DIGITS: Final = frozenset("一二两三四五六七八九")
_SHORT_TENS: Final = {"廿": "二十", "卅": "三十", "卌": "四十"}
_OMITTED: Final = {"百": "十", "千": "百", "万": "千", "亿": "千万", "兆": "千亿"}  # what 一百五 leaves out at its end
_HAN_NUMERAL: Final = frozenset("零〇一二两三四五六七八九十百千万亿兆点半几") | frozenset(_SHORT_TENS)
SHORT_FORMS: Final = "百千万亿兆廿卅卌"  # tokens of Han numerals that may have to be read in full
_PERCENT_OF: Final = "百 分 之"  # three tokens
_IN_NUMERALS: Final = _WORDS | _HAN_NUMERAL | {"a", "and", "point", "half", "oh", "分", "之", "年"}
_AFTER_A: Final = frozenset(("hundred", *_SCALES))  # a hundred is 100
_ASCII_DIGITS: Final = frozenset("0123456789")

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_PIECES: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*|[^0-9]+")
_DIGIT: Final = re.compile(r"[0-9]")
_ORDINAL: Final = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_AREA_CODE: Final = re.compile(r"0[0-9]{1,3}|1[3-9][0-9]")
_GROUP: Final = re.compile(r"[0-9]{3,8}")
_SHORT_FORM_SET: Final = frozenset(SHORT_FORMS)
_LONGEST_VALUE: Final = 8  # digits; chosen: a longer number is read as a telephone number, unless it is round
_LONGEST_ROUND: Final = 16  # digits of a multiple of 10,000: the limit of `read_integer`
_TELEPHONE_DIGITS: Final = range(7, 16)  # E.164 allows 15; chosen: shorter groups are ranges and scores
_CENTURIES: Final = range(17, 21)  # first half of a year in English: "nineteen" ninety-nine
_YEARS: Final = range(1700, 2100)


def read_numbers(tokens: Sequence[str]) -> Sequence[str]:
    """Replace every number in mixed tokens by the Han characters of its reading, one token each.

        read_numbers(["gpt-4o", "twenty", "five"])  # ['gpt', '四', 'o', '二', '十', '五']

    Numbers inside words are read too. Tokens without a number are returned unchanged.
    """
    if not any(map(in_numeral, tokens)):
        return tokens
    return trace_numbers(tokens)[0]


def trace_numbers(tokens: Sequence[str]) -> tuple[list[str], list[int]]:
    """`read_numbers`, and for each returned token the index of the input token it comes from, never descending.

    A number of several words ("twenty five") comes from its first word; of 百分之二十, "percent" comes from 十, and no
    token comes from 百分之. What is added to a short form (千 in 一萬二) comes from its last token.
    """
    spaced = _spaced_telephones(tokens)
    split = [
        (part, place)
        for place, token in enumerate(tokens)
        for part in (list(token) if place in spaced else _split(token))
    ]
    parts, places = [part for part, _ in split], [place for _, place in split]
    if "百" in parts:
        parts, places = _percent(parts, places)
    if not _SHORT_FORM_SET.isdisjoint(parts):
        parts, places = _in_full(parts, places)
    return _values(parts, places)


def names_number(token: str) -> bool:
    """Whether a Latin token can only be read with its neighbours: it has digits, or a number word (between hyphens).

    names_number("twenty-five"), names_number("wi-fi")  # (True, False)
    """
    if token in _WORDS or _DIGIT.search(token):
        return True
    return "-" in token and not _WORDS.isdisjoint(token.split("-"))


def in_numeral(token: str) -> bool:
    """Whether a token can be part of a number, or next to one and affect its reading (年)."""
    return token in _IN_NUMERALS or names_number(token)


def read_integer(value: int) -> str:
    """Return the Mandarin numeral of a value from 0 to 10^16 - 1: 10 → 十, 105 → 一百零五, 12000 → 一万二千."""
    if value == 0:
        return "零"
    text, gap = "", False
    for power, unit in ((12, "兆"), (8, "亿"), (4, "万"), (0, "")):
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
    """Split a token with numbers at hyphens and between digits and letters: gpt-4o → gpt 4 o. Ordinals stay (1st).

    A telephone number becomes one part a digit. 1990s is 1990's: 1990 's.
    """
    if token.isalpha() or not names_number(token):
        return [token]
    if _is_telephone(re.split("[.-]", token), points="." in token):
        return [digit for digit in token if digit in _ASCII_DIGITS]
    parts: list[str] = []
    for piece in token.split("-"):
        if _ORDINAL.fullmatch(piece):
            parts.append(piece)
            continue
        for match in _PIECES.finditer(piece):
            parts += _beside_digits(match[0], first=match.start() == 0)
    return parts


def _beside_digits(piece: str, *, first: bool) -> list[str]:
    """The parts of a run of digits, or of other characters, of a token with digits."""
    if piece[0] in _ASCII_DIGITS:
        return [piece]
    if not first and piece in ENDINGS:
        return [piece]
    if not first and piece == "s":
        return ["'s"]
    piece = piece.strip("'.")
    return [LETTER_A if piece == "a" else piece] if piece else []


def _is_telephone(groups: Sequence[str], *, points: bool = False) -> bool:
    """Whether groups of digits are a telephone number: an area code with 0, or groups of three and four digits.

    Ranges are not: of years (1995-2005), from a multiple of 100, or between multiples of 10.
    """
    if len(groups) < 2 or not all(group.isdecimal() for group in groups):
        return False
    first, *rest = groups
    if sum(map(len, groups)) not in _TELEPHONE_DIGITS or min(map(len, rest)) < 3:
        return False
    if first[0] == "0" and len(first) in (2, 3, 4):
        return True
    if points:  # an address: 192.168.100.200
        return False
    if len(groups) > 2:
        return len(first) <= 4 and max(map(len, rest)) <= 4
    values = [int(group) for group in groups]
    is_range = values[0] % 100 == 0 or all(value % 10 == 0 for value in values) or all(map(_YEARS.__contains__, values))
    return 3 <= len(first) <= 4 and len(rest[0]) <= 4 and not is_range


def _spaced_telephones(tokens: Sequence[str]) -> set[int]:
    """The indices of tokens that are the groups of a telephone number: 0912 345 678, or 138 1234 5678."""
    groups: set[int] = set()
    for start, token in enumerate(tokens):
        if start in groups or not _AREA_CODE.fullmatch(token):
            continue
        end = start + 1
        while end < len(tokens) and _GROUP.fullmatch(tokens[end]) and end - start < 4:
            end += 1
        lengths = list(map(len, tokens[start:end]))
        if (token[0] == "0" and end > start + 1 and sum(lengths) in _TELEPHONE_DIGITS) or lengths == [3, 4, 4]:
            groups |= set(range(start, end))
    return groups


def may_shorten(tokens: Sequence[str], place: int) -> bool:
    """Whether a token of SHORT_FORMS begins 百分之, or may end a short form (一萬二). A quick test for most texts."""
    if tokens[place] in _SHORT_TENS:
        return True
    after = _at(tokens, place + 1)
    if after == "分":
        return tokens[place] == "百" and _at(tokens, place + 2) == "之"
    return (after in _HAN_DIGITS or after.isdecimal()) and _at(tokens, place + 2) not in _HAN_NUMERAL


def _in_full(parts: Sequence[str], places: Sequence[int]) -> tuple[list[str], list[int]]:
    """Read short forms in full: 一 万 二 → 一 万 二 千, 廿 五 → 二 十 五."""
    out: list[str] = []
    stems: list[int] = []
    for index, part in enumerate(parts):
        full = _SHORT_TENS.get(part, (part,))
        before, unit = _at(parts, index - 2) if index > 1 else "", _at(parts, index - 1) if index else ""
        if unit in _OMITTED and (part in _HAN_DIGITS or (len(part) == 1 and part in "123456789")):
            counted = before in _HAN_DIGITS or before in _OMITTED or before == "十" or before.isdecimal()
            following = _at(parts, index + 1)
            if counted and following not in _HAN_NUMERAL and following != "分" and not _NUMBER.fullmatch(following):
                full = (part, *_OMITTED[unit])
        out += full
        stems += [places[index]] * len(full)
    return out, stems


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
        elif part == "half" and _at(parts, end) == "a" and (scale := _SCALES.get(_at(parts, end + 1))):
            number, end = str(scale // 2), end + 2
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
        while _DECIMAL.get(_at(parts, decimals), 10) < 10:
            decimals += 1
    if decimals > end + 1:
        digits = "".join(str(_DECIMAL[part]) for part in parts[end + 1 : decimals])
        return _scaled(f"{value}.{digits}", parts, decimals)
    if list(parts[end : end + 3]) == ["and", "a", "half"]:
        return _scaled(f"{value}.5", parts, end + 3)
    return str(value), end


def _numeral(parts: Sequence[str], start: int) -> tuple[int | None, int]:
    """The longest numeral: "two hundred and five thousand" is one, "one two" are two."""
    total, least, index = 0, 10**16, start
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

"""Arrays of characters: cleans many texts at once, in a few passes over one array of code points.

The result is that of `k2d.text.normalise.clean` for each text. A text with signs whose meaning depends on more than
their neighbours (brackets, %, letters followed by combining accents …) is cleaned by `clean` itself first; the passes
then leave it unchanged.
"""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from k2d.text.normalise import ABBREVIATIONS, LETTERS, clean, fold
from k2d.text.tokens import is_han, is_latin, is_single

Codes = npt.NDArray[np.uint32]  # code points
Places = npt.NDArray[np.intp]  # indices
Kinds = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Table = TypeVar("Table", Codes, Kinds)

# Kinds of tokens, and of characters.
BLANK, HAN_KIND, LATIN_KIND, SINGLE, OTHER, SIGN = range(6)

NEWLINE, SPACE = 10, 32  # code points
_COMMA, _POINT = 44, 46
_DROPPED, _HARD = 0, 2**32 - 2  # entries of the table that are not code points
# brackets, spoken signs, and the letter with two lower-case forms; signs of money are hard too
_HARD_SIGNS: Final = frozenset("<[＜［(（【〔%+&@#Σ")
_MOST_CODES: Final = 0x110000


def clean_texts(texts: Sequence[str]) -> tuple[Codes, Places]:
    """Clean texts like `k2d.text.normalise.clean`.

    Returns the code points of all cleaned texts, a newline after each, shape (characters,); and for each of them the
    index in its original text that it comes from, -1 where that is not known.
    """
    lines = [text.replace("\n", " ") if "\n" in text else text for text in texts]
    raw, line, place = _characters(lines)
    codes, hard = _folded(raw)
    if hard.any():
        is_hard = np.zeros(len(lines), np.bool_)
        is_hard[line[hard]] = True
        for index in np.flatnonzero(is_hard).tolist():
            lines[index] = clean(lines[index])
        raw, line, place = _characters(lines)
        codes, _ = _folded(raw)
        done = is_hard[line]
        codes[done] = raw[done]
        place[done] = -1
    kept = codes != _DROPPED
    codes, place = codes[kept], place[kept]
    _blank_loose(codes)
    blank = (codes == SPACE) | (codes == NEWLINE)
    kept = ~((codes == SPACE) & np.concatenate(([True], blank[:-1])))
    codes, place = codes[kept], place[kept]
    kept = ~((codes == SPACE) & np.concatenate((codes[1:] == NEWLINE, [False])))
    return codes[kept], place[kept]


def _characters(lines: Sequence[str]) -> tuple[Codes, Places, Places]:
    """The code points of all lines with a newline after each; the line of each, and its index in that line."""
    raw = encode_codes("\n".join([*lines, ""]))
    ends = np.flatnonzero(raw == NEWLINE)
    lengths = np.diff(ends, prepend=-1)
    line = np.repeat(np.arange(len(lines)), lengths)
    return raw, line, np.arange(len(raw)) - np.repeat(ends + 1 - lengths, lengths)


def _folded(raw: Codes) -> tuple[Codes, Flags]:
    """The cleaned form of each character by itself, and which characters cannot be cleaned by themselves."""
    codes = _lookup(_FOLDED, raw, _fold)
    hard = codes == _HARD
    commas = np.flatnonzero(codes == _COMMA)
    digit = (codes >= 48) & (codes <= 57)
    hard[commas] |= digit[commas - 1] & digit[commas + 1]  # a newline is always last, so both indices exist
    codes[commas] = SPACE
    points = np.flatnonzero(codes == _POINT)
    if len(points):
        after = codes[points + 1]
        before = codes[np.maximum(points[:, None] - np.arange(1, 5), -1)]  # (points, 4); the last code is a newline
        letters = np.where(before - np.uint32(ord("a")) < 26, before - np.uint32(ord("a") - 1), 0)  # 1…26, else 0
        letters[:, 1:] *= np.logical_and.accumulate(letters[:, :-1] > 0, axis=1)  # only those of the word before
        word = letters[:, 0] + 27 * letters[:, 1] + 729 * letters[:, 2]
        is_initial = (word > 0) & (word < 27) & (after - np.uint32(ord("a")) < 26)
        hard[points] |= is_initial | (_IS_ABBREVIATION[word] & (letters[:, 3] == 0))
    return codes, hard


_IS_ABBREVIATION: Final = np.zeros(27**3, np.bool_)  # words of up to three letters, the last one first
_IS_ABBREVIATION[
    [sum((ord(letter) - 96) * 27**place for place, letter in enumerate(reversed(word))) for word in ABBREVIATIONS]
] = True


def _blank_loose(codes: Codes) -> None:
    """`normalise.LOOSE`: replace apostrophes and hyphens outside of words, and points outside of numbers, by spaces."""
    kinds = kinds_of(codes)
    signs = np.flatnonzero(kinds == SIGN)
    before, after = signs - 1, signs + 1  # a newline is last, and index -1 is that newline
    latin = (kinds[before] == LATIN_KIND) & (kinds[after] == LATIN_KIND)
    digits = (codes[before] - 48 < 10) & (
        codes[after] - 48 < 10
    )  # unsigned: codes below 48 wrap around to large values
    codes[signs[~np.where(codes[signs] == _POINT, digits, latin)]] = SPACE


def _fold(character: str) -> int:
    folded = fold(character)
    if len(folded) != 1 or character in _HARD_SIGNS or folded in _HARD_SIGNS or unicodedata.category(folded) == "Sc":
        return _HARD
    code = ord(character)
    if any(unicodedata.category(form)[0] == "M" or _is_jamo(form) for form in (character, folded)):
        return _HARD  # may be composed with the character before it
    if code > 0xFFFF and not is_han(folded):
        return _HARD  # rare, and some newer scripts have composing characters
    if folded in ("\n", ","):
        return ord(folded)
    kept = LETTERS[ord(folded)]
    return ord(kept) if kept else _DROPPED


def _is_jamo(character: str) -> bool:
    return "\u1100" <= character <= "\u11ff" or "\ua960" <= character <= "\ua97f" or "\ud7b0" <= character <= "\ud7ff"


def _kind(character: str) -> int:
    if character.isspace():
        return BLANK
    if character in "'-.":
        return SIGN
    if is_han(character):
        return HAN_KIND
    return LATIN_KIND if is_latin(character) else SINGLE if is_single(character) else OTHER


# Tables over all code points, filled on first use of a character; untouched pages take no memory.
_FOLDED: Final = np.zeros(_MOST_CODES, np.uint32)
_KINDS: Final = np.zeros(_MOST_CODES, np.uint8)


def kinds_of(codes: Codes) -> Kinds:
    """The kind of each character (BLANK … SIGN), shape (characters,)."""
    return _lookup(_KINDS, codes, _kind)


def _lookup(table: Table, codes: Codes, compute: Callable[[str], int]) -> Table:
    """The table's entry of each code. Entries are stored plus one, so that 0 marks those not computed yet."""
    entries = table[codes]
    if not entries.all():
        for code in np.unique(codes[entries == 0]).tolist():
            table[code] = compute(chr(code)) + 1
        entries = table[codes]
    entries -= 1
    return entries


def encode_codes(text: str) -> Codes:
    """The code points of a text, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def decode_codes(codes: Codes) -> str:
    """The text of code points; the inverse of `encode_codes`."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")

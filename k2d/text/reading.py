"""Readings: many texts normalised, split and read aloud at once.

What `normalise`, `mixed_tokens`, `phonemes` and `count_ngrams` find in each text by itself, found for all of them in a
few passes over one long array of characters. A text with signs that mean more than their neighbourhood shows (brackets,
%, letters with loose accents …) goes through `clean` first; the passes then leave it as it is.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from k2d.text.mandarin import RESPELLED, odd_phrases
from k2d.text.normalise import LETTERS, clean, fold, simplify
from k2d.text.repetition import NGRAM
from k2d.text.sounds import ALONE, NUMBER, SEPARATOR, Notable, decode, sounds_in_context
from k2d.text.tokens import is_han, is_latin, is_single

Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]
Kinds = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Table = TypeVar("Table", Codes, Kinds)

# Kinds of tokens, and of characters.
BLANK, HAN_KIND, LATIN_KIND, SINGLE, OTHER, SIGN = range(6)

_ZHU, _AGAIN = map(ord, RESPELLED)
_HUNDRED = ord("百")
_NEWLINE, _SPACE, _COMMA, _POINT = 10, 32, 44, 46
_DROPPED, _HARD = 0, 2**32 - 2  # besides code points
_HARD_SIGNS = frozenset("<[＜［(（【〔%+&@#Σ")  # brackets, signs that are spoken, the letter with two lower cases
_FIRST_WORD: Final = 0xF0000  # code points that no text keeps: one for each word of several letters
_MOST_CODES: Final = 0x110000
_TABLE_CODES: Final = 0x10000  # rarer characters are looked up one by one
_PAIR_HASHES: Final = 2**18  # for the 2,860 pairs that odd phrases begin with

# Windows of NGRAM characters are counted by a hash of 64 bits less those that the number of texts needs; in a batch of
# a hundred texts of 200 characters two different windows share one with a probability of 10^-11.
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads neighbours far apart


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """All that a comparison needs to know of one transcript."""

    normalised: str
    tokens: tuple[str, ...]
    sound: str  # one character a phoneme (k2d.text.sounds)
    written: str  # one character a token; the same for equal tokens of one `read_many`
    repetition: int  # `count_ngrams`

    @property
    def phonemes(self) -> tuple[str, ...]:
        """The phonemes by name."""
        return decode(self.sound)


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Readings of many texts, and where in the texts their tokens are."""

    normalised: list[str]
    repetition: list[int]
    codes: Codes  # of all normalised texts, a newline after each
    places: Places  # (tokens,): where in `codes` each token begins
    tokens: list[str]  # of all texts, SEPARATOR after each
    sounds: list[str]  # of each token
    sound: str  # of all tokens, joined
    words: Codes  # of each token: a code point, the same for equal tokens
    kinds: Kinds  # of each token
    starts: Places | None  # of each token: where it begins in its own text; -1 where that is not known
    writing: str  # `words` as characters
    bounds: Places  # (texts, 2): each text's first token and its separator
    stretches: list[list[int]]  # the same as lists
    sounding: list[list[int]]  # of each text: where its phonemes begin and end in `sound`
    units: Places  # (tokens + 1,): where each token's phonemes begin in `sound`

    def __getitem__(self, text: int) -> Reading:
        first, end = self.stretches[text]
        return Reading(
            normalised=self.normalised[text],
            tokens=tuple(self.tokens[first:end]),
            sound=self.said(text),
            written=self.written(text),
            repetition=self.repetition[text],
        )

    def written(self, text: int) -> str:
        """A text's tokens, one character each."""
        first, end = self.stretches[text]
        return self.writing[first:end]

    def recurring(self, n: int) -> list[int]:
        """How often the most frequent run of n tokens occurs in each text."""
        text = np.repeat(np.arange(len(self.bounds)), np.diff(self.bounds[:, 1], prepend=-1))
        text[self.bounds[:, 1]] = -1
        return count_windows(self.words, text, len(self.bounds), n=n)

    def said(self, text: int) -> str:
        """A text's phonemes, one character each."""
        first, end = self.sounding[text]
        return self.sound[first:end]


def read_many(texts: Sequence[str]) -> Readings:
    """Read texts, which may be of any length and script. All are in memory at once, some fifty bytes a character."""
    codes, place = _cleaned(texts)
    offsets: Places | None = place
    cleaned = _decode(codes)
    simplified = simplify(cleaned)
    lines = simplified.split("\n")[:-1]
    if len(simplified) != len(cleaned):  # rare compositions: offsets are lost
        offsets = None
    codes = _encode(simplified)
    kinds = _lookup(_KINDS, codes, _kind)
    kinds[kinds == SIGN] = LATIN_KIND  # what LOOSE has left is inside a word
    before = np.roll(kinds, 1)
    newline = codes == _NEWLINE
    is_start = (kinds == HAN_KIND) | (kinds == SINGLE) | newline | ((kinds != BLANK) & (kinds != before))
    at = np.flatnonzero(is_start)
    tokens, words, alone, numbers = _tokens(simplified, codes, kinds, at)
    first = codes[at]
    notable = Notable(
        respelled=np.flatnonzero((first == _ZHU) | (first == _AGAIN)).tolist(),
        numbers=numbers,
        hundreds=np.flatnonzero(first == _HUNDRED).tolist(),
        odd=_odd_pairs(first),
    )
    separators = np.flatnonzero(newline[at])
    bounds = np.stack((np.concatenate(([0], separators[:-1] + 1)), separators), axis=1)
    read = sounds_in_context(tokens, alone, notable)
    marked = SEPARATOR.join([*read, ""])
    ends = np.flatnonzero(_encode(marked) == 0) - np.arange(len(read))  # in the sound without the marks
    units = np.concatenate(([0], ends))
    return Readings(
        normalised=lines,
        codes=codes,
        places=at,
        repetition=count_windows(codes, np.where(newline, -1, np.cumsum(newline)), len(texts)),
        tokens=tokens,
        sounds=read,
        sound=marked.replace(SEPARATOR, ""),
        words=words,
        kinds=kinds[at],
        starts=None if offsets is None else offsets[at],
        writing=_decode(words),
        bounds=bounds,
        stretches=bounds.tolist(),
        sounding=units[bounds].tolist(),
        units=units,
    )


def _tokens(text: str, codes: Codes, kinds: Kinds, at: Places) -> tuple[list[str], Codes, list[str], list[int]]:
    """The tokens that begin at the given places; a code point for each, its own or (words of several letters) a
    private one; what each sounds like by itself; and where numbers are.

    Most tokens are Han characters, which tables of objects turn into strings and sounds without a look at each.
    """
    words = codes[at]
    table_kinds = kinds[at]
    is_word = (table_kinds == LATIN_KIND) | (table_kinds == OTHER) | (words >= _TABLE_CODES)
    single = np.where(is_word, _SPACE, words)
    if not _IN_TABLE[single].all():
        for code in np.unique(single[~_IN_TABLE[single]]).tolist():
            token = SEPARATOR if code == _NEWLINE else chr(code)
            _SINGLES[code], _SINGLE_SOUNDS[code], _IN_TABLE[code] = token, ALONE[token], True
    found, alone = _SINGLES[single], _SINGLE_SOUNDS[single]
    places = np.flatnonzero(is_word)
    ends = at[places + 1]  # a separator is always last
    ends = ends - (kinds[ends - 1] == BLANK)
    written = [text[start:end] for start, end in zip(at[places].tolist(), ends.tolist(), strict=True)]
    said = list(map(ALONE.__getitem__, written))
    found[places], alone[places] = written, said
    known: dict[str, int] = {}
    names = np.fromiter(map(known.setdefault, written, count()), np.uint32, len(written)) + _FIRST_WORD
    words[places] = np.where(ends - at[places] > 1, names, words[places])
    numbers = places[[place for place, sound in enumerate(said) if sound is NUMBER]].tolist() if NUMBER in said else []
    return found.tolist(), words, alone.tolist(), numbers


def _odd_pairs(first: Codes) -> list[int]:
    """Where two characters stand with which a phrase may begin that is not read as its characters are; one place in a
    hundred is found for nothing."""
    found: list[int] = np.flatnonzero(_odd_table()[_pair_hash(first[:-1], first[1:])]).tolist()
    return found


@cache
def _odd_table() -> Flags:
    pairs = _encode("".join(odd_phrases())).reshape(-1, 2)
    table = np.zeros(_PAIR_HASHES, np.bool_)
    table[_pair_hash(pairs[:, 0], pairs[:, 1])] = True
    return table


def _pair_hash(first: Codes, second: Codes) -> Codes:
    return (first * np.uint32(31_337) + second * np.uint32(7)) & np.uint32(_PAIR_HASHES - 1)


def count_windows(codes: Codes, group: Places, groups: int, *, n: int = NGRAM) -> list[int]:
    """How often the most frequent window of n codes occurs in each group; 0 where a group is shorter.

    `group` says where each code belongs, shape of `codes`: groups are stretches, in order; -1 belongs nowhere. All
    windows are sorted at once, and the longest run of equal ones is found.
    """
    counts = np.zeros(groups, np.int64)
    windows = max(0, len(codes) - n + 1)
    whole = (group[:windows] == group[n - 1 :][:windows]) & (group[:windows] >= 0)
    hashed = np.zeros(windows, np.uint64)
    wide = codes.astype(np.uint64)
    for place in range(n):
        hashed *= _MULTIPLIER
        hashed += wide[place : place + windows]
    hashed *= _MULTIPLIER
    bits = np.uint64(groups.bit_length())
    where = group[:windows][whole].astype(np.uint64) << (np.uint64(64) - bits)
    hashed = np.sort((hashed[whole] >> bits) | where)
    if len(hashed):
        changes = np.flatnonzero(hashed[1:] != hashed[:-1]) + 1
        edges = np.concatenate(([0], changes, [len(hashed)]))
        owners = (hashed[edges[:-1]] >> (np.uint64(64) - bits)).astype(np.intp)  # sorted
        firsts = np.concatenate(([0], np.flatnonzero(owners[1:] != owners[:-1]) + 1))
        counts[owners[firsts]] = np.maximum.reduceat(edges[1:] - edges[:-1], firsts)
    found: list[int] = counts.tolist()
    return found


# ---- characters ---------------------------------------------------------------------------------------------------


def _cleaned(texts: Sequence[str]) -> tuple[Codes, Places]:
    """`clean` of all texts, a newline after each; and of each character the place in its text that it stems from."""
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
    blank = (codes == _SPACE) | (codes == _NEWLINE)
    kept = ~((codes == _SPACE) & np.concatenate(([True], blank[:-1])))
    codes, place = codes[kept], place[kept]
    kept = ~((codes == _SPACE) & np.concatenate((codes[1:] == _NEWLINE, [False])))
    return codes[kept], place[kept]


def _characters(lines: Sequence[str]) -> tuple[Codes, Places, Places]:
    """All characters, a newline after each line; the line of each, and its place in it."""
    raw = _encode("\n".join([*lines, ""]))
    ends = np.flatnonzero(raw == _NEWLINE)
    lengths = np.diff(ends, prepend=-1)
    line = np.repeat(np.arange(len(lines)), lengths)
    return raw, line, np.arange(len(raw)) - np.repeat(ends + 1 - lengths, lengths)


def _folded(raw: Codes) -> tuple[Codes, Flags]:
    """What each character becomes by itself, and which ones cannot be judged by themselves."""
    codes = _lookup(_FOLDED, raw, _fold)
    hard = codes == _HARD
    commas = np.flatnonzero(codes == _COMMA)
    digit = (codes >= 48) & (codes <= 57)
    hard[commas] |= digit[commas - 1] & digit[commas + 1]  # a newline is always last
    codes[commas] = _SPACE
    return codes, hard


def _blank_loose(codes: Codes) -> None:
    """`LOOSE`: spaces for apostrophes and hyphens that are not inside a word, for points not inside a number."""
    kinds = _lookup(_KINDS, codes, _kind)
    signs = np.flatnonzero(kinds == SIGN)
    before, after = signs - 1, signs + 1  # a newline is always last, and before the first
    latin = (kinds[before] == LATIN_KIND) & (kinds[after] == LATIN_KIND)
    digits = (codes[before] - 48 < 10) & (codes[after] - 48 < 10)  # unsigned: what is below 48 is huge
    codes[signs[~np.where(codes[signs] == _POINT, digits, latin)]] = _SPACE


def _fold(character: str) -> int:
    folded = fold(character)
    if len(folded) != 1 or character in _HARD_SIGNS or folded in _HARD_SIGNS:
        return _HARD
    code = ord(character)
    if any(unicodedata.category(one)[0] == "M" or _is_jamo(one) for one in (character, folded)):
        return _HARD  # may be composed with what stands before
    if code > 0xFFFF and not is_han(folded):
        return _HARD  # seldom met, and some newer scripts compose
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


# Of the characters that are tokens by themselves, below _TABLE_CODES: as strings, how they sound, which are known.
_SINGLES = np.empty(_TABLE_CODES, object)
_SINGLE_SOUNDS = np.empty(_TABLE_CODES, object)
_IN_TABLE = np.zeros(_TABLE_CODES, np.bool_)

# Tables over all code points, filled when a character is first met; untouched pages take no memory.
_FOLDED = np.zeros(_MOST_CODES, np.uint32)
_KINDS = np.zeros(_MOST_CODES, np.uint8)


def _lookup(table: Table, codes: Codes, work_out: Callable[[str], int]) -> Table:
    """The table's entry of each character; entries are stored plus one, so that 0 is what nobody has asked for."""
    found = table[codes]
    if not found.all():
        for code in np.unique(codes[found == 0]).tolist():
            table[code] = work_out(chr(code)) + 1
        found = table[codes]
    found -= 1
    return found


def _encode(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _decode(codes: Codes) -> str:
    return codes.tobytes().decode("utf-32-le", "surrogatepass")

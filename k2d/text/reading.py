"""Reads texts: normalised text, mixed tokens, phonemes and repetition count of each.

Many texts are read in a few passes over one array of all their characters (`k2d.text.characters`); each reads as it
would by itself.

    reading = read("我有兩個")  # or read_many(["我有 2 個", "我有兩個"])[1]
    reading.tokens    # ('我', '有', '两', '个')
    reading.phonemes  # ('uo', 'iou', 'er', 'g', 'e')
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from typing import Final

import numpy as np

from k2d.text.characters import (
    BLANK,
    HAN_KIND,
    LATIN_KIND,
    NEWLINE,
    OTHER,
    SIGN,
    SINGLE,
    SPACE,
    Codes,
    Flags,
    Kinds,
    Places,
    clean_texts,
    decode_codes,
    encode_codes,
    kinds_of,
)
from k2d.text.mandarin import odd_phrases
from k2d.text.normalise import simplify
from k2d.text.numbers import SHORT_FORMS
from k2d.text.repetition import NGRAM
from k2d.text.sounds import ALONE, NUMBER, RESPELLED, SEPARATOR, ContextPlaces, decode, sounds_in_context

_FIRST_WORD: Final = 0xF0000  # private code points: one for each distinct word of several letters
_TABLE_CODES: Final = 0x10000  # rarer characters are looked up one by one
_PAIR_HASHES: Final = 2**18  # for the 2,860 pairs with which odd phrases begin

# Windows of NGRAM characters are counted by a hash of 64 bits less those that the number of texts needs. In a batch of
# a hundred texts of 200 characters, two different windows share a hash with a probability of 10^-11.
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Fibonacci hashing)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One text in all the forms in which texts are compared."""

    normalised: str
    tokens: tuple[str, ...]
    sound: str  # phonemes, one character each (k2d.text.sounds)
    written: str  # tokens, one character each; equal tokens of one `read_many` have the same character
    repetition: int  # occurrences of the most frequent window of NGRAM characters (k2d.text.repetition)

    @property
    def phonemes(self) -> tuple[str, ...]:
        """The phonemes by name."""
        return decode(self.sound)


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The readings of many texts, joined: tokens and phonemes of all texts in a row, and where each text's are."""

    normalised: list[str]
    repetition: list[int]
    codes: Codes  # of all normalised texts, a newline after each
    places: Places  # (tokens,): index in `codes` at which each token begins
    tokens: list[str]  # of all texts, SEPARATOR after each
    sounds: list[str]  # of each token
    sound: str  # of all tokens, joined
    words: Codes  # (tokens,): a code point for each token, the same for equal tokens
    kinds: Kinds  # (tokens,)
    starts: Places | None  # (tokens,): offset of each token in its own text, -1 where unknown; None: all unknown
    writing: str  # `words` as characters
    bounds: Places  # (texts, 2): each text's first token, and its separator
    token_ranges: list[list[int]]  # `bounds` as lists
    sound_ranges: list[list[int]]  # of each text: begin and end of its phonemes in `sound`
    phoneme_starts: Places  # (tokens + 1,): where each token's phonemes begin in `sound`

    def __getitem__(self, text: int) -> Reading:
        first, end = self.token_ranges[text]
        return Reading(
            normalised=self.normalised[text],
            tokens=tuple(self.tokens[first:end]),
            sound=self.sound_of(text),
            written=self.written(text),
            repetition=self.repetition[text],
        )

    def written(self, text: int) -> str:
        """The tokens of a text, one character each."""
        first, end = self.token_ranges[text]
        return self.writing[first:end]

    def sound_of(self, text: int) -> str:
        """The phonemes of a text, one character each."""
        first, end = self.sound_ranges[text]
        return self.sound[first:end]

    def recurring(self, n: int) -> list[int]:
        """For each text, the occurrences of its most frequent run of n tokens."""
        text = np.repeat(np.arange(len(self.bounds)), np.diff(self.bounds[:, 1], prepend=-1))
        text[self.bounds[:, 1]] = -1
        return count_windows(self.words, text, len(self.bounds), n=n)


@lru_cache(maxsize=1024)
def read(text: str) -> Reading:
    """Normalise, split and read one text. Cached; `read_many` is many times faster for many texts.

    read("今天的 Meeting，don't 遲到！").tokens  # ('今', '天', '的', 'meeting', "don't", '迟', '到')
    """
    return read_many([text])[0]


def read_many(texts: Sequence[str]) -> Readings:
    """Normalise, split and read texts of any length and script.

        read_many(["今天 meeting"])[0].tokens  # ('今', '天', 'meeting')

    All texts are in memory at once, about fifty bytes per character.
    """
    codes, place = clean_texts(texts)
    offsets: Places | None = place
    cleaned = decode_codes(codes)
    simplified = simplify(cleaned)
    lines = simplified.split("\n")[:-1]
    if len(simplified) != len(cleaned):  # rare compositions: the offsets are lost
        offsets = None
    codes = encode_codes(simplified)
    kinds = kinds_of(codes)
    kinds[kinds == SIGN] = LATIN_KIND  # the signs that are left are inside words
    before = np.roll(kinds, 1)
    newline = codes == NEWLINE
    is_start = (kinds == HAN_KIND) | (kinds == SINGLE) | newline | ((kinds != BLANK) & (kinds != before))
    at = np.flatnonzero(is_start)
    tokens, words, alone, numbers = _tokens(simplified, codes, kinds, at)
    first = codes[at]
    context = ContextPlaces(
        respelled=_places_of(words, _RESPELLED),
        numbers=numbers,
        units=_places_of(words, _UNITS),
        odd=_odd_pairs(first),
    )
    separators = np.flatnonzero(newline[at])
    bounds = np.stack((np.concatenate(([0], separators[:-1] + 1)), separators), axis=1)
    sounds = sounds_in_context(tokens, alone, context)
    marked = SEPARATOR.join([*sounds, ""])
    ends = np.flatnonzero(encode_codes(marked) == 0) - np.arange(len(sounds))  # in the sound without separators
    phoneme_starts = np.concatenate(([0], ends))
    return Readings(
        normalised=lines,
        codes=codes,
        places=at,
        repetition=count_windows(codes, np.where(newline, -1, np.cumsum(newline)), len(texts)),
        tokens=tokens,
        sounds=sounds,
        sound=marked.replace(SEPARATOR, ""),
        words=words,
        kinds=kinds[at],
        starts=None if offsets is None else offsets[at],
        writing=decode_codes(words),
        bounds=bounds,
        token_ranges=bounds.tolist(),
        sound_ranges=phoneme_starts[bounds].tolist(),
        phoneme_starts=phoneme_starts,
    )


def _tokens(text: str, codes: Codes, kinds: Kinds, at: Places) -> tuple[list[str], Codes, list[str], list[int]]:
    """The tokens that begin at the indices `at`.

    Returns the tokens; a code point for each (its own, or a private one for a word of several letters); the sound of
    each by itself; and the indices of the tokens that can only be read as numbers.

    Most tokens are Han characters: tables of objects turn those into strings and sounds without a Python loop.
    """
    words = codes[at]
    table_kinds = kinds[at]
    is_word = (table_kinds == LATIN_KIND) | (table_kinds == OTHER) | (words >= _TABLE_CODES)
    single = np.where(is_word, SPACE, words)
    if not _IN_TABLE[single].all():
        for code in np.unique(single[~_IN_TABLE[single]]).tolist():
            token = SEPARATOR if code == NEWLINE else chr(code)
            _SINGLES[code], _SINGLE_SOUNDS[code], _IN_TABLE[code] = token, ALONE[token], True
    tokens, alone = _SINGLES[single], _SINGLE_SOUNDS[single]
    places = np.flatnonzero(is_word)
    ends = at[places + 1]  # a separator is always last
    ends = ends - (kinds[ends - 1] == BLANK)
    written = [text[start:end] for start, end in zip(at[places].tolist(), ends.tolist(), strict=True)]
    word_sounds = list(map(ALONE.__getitem__, written))
    tokens[places], alone[places] = written, word_sounds
    known: dict[str, int] = {}
    names = np.fromiter(map(known.setdefault, written, count()), np.uint32, len(written)) + _FIRST_WORD
    words[places] = np.where(ends - at[places] > 1, names, words[places])
    is_number = [place for place, sound in enumerate(word_sounds) if sound is NUMBER] if NUMBER in word_sounds else []
    numbers = places[is_number].tolist() if is_number else []
    return tokens.tolist(), words, alone.tolist(), numbers


# Of characters below _TABLE_CODES that are tokens by themselves: the token, its sound, and which are filled in.
_SINGLES: Final = np.empty(_TABLE_CODES, object)
_SINGLE_SOUNDS: Final = np.empty(_TABLE_CODES, object)
_IN_TABLE: Final = np.zeros(_TABLE_CODES, np.bool_)


_RESPELLED: Final = np.zeros(_TABLE_CODES, np.bool_)
_RESPELLED[list(map(ord, RESPELLED))] = True
_UNITS: Final = np.zeros(_TABLE_CODES, np.bool_)
_UNITS[list(map(ord, SHORT_FORMS))] = True


def _places_of(words: Codes, table: Flags) -> list[int]:
    """Indices of the tokens that are in a table of single characters."""
    places: list[int] = np.flatnonzero(table[np.minimum(words, _TABLE_CODES - 1)]).tolist()
    return places


def _odd_pairs(first: Codes) -> list[int]:
    """Indices of tokens that begin, with the next one, an odd phrase (`mandarin.odd_phrases`).

    By hash, so about one place in a hundred is returned without need.
    """
    places: list[int] = np.flatnonzero(_odd_table()[_pair_hash(first[:-1], first[1:])]).tolist()
    return places


@cache
def _odd_table() -> Flags:
    pairs = encode_codes("".join(odd_phrases())).reshape(-1, 2)
    table = np.zeros(_PAIR_HASHES, np.bool_)
    table[_pair_hash(pairs[:, 0], pairs[:, 1])] = True
    return table


def _pair_hash(first: Codes, second: Codes) -> Codes:
    return (first * np.uint32(31_337) + second * np.uint32(7)) & np.uint32(_PAIR_HASHES - 1)  # arbitrary odd factors


def count_windows(codes: Codes, group: Places, groups: int, *, n: int = NGRAM) -> list[int]:
    """For each group, the occurrences of its most frequent window of n codes; 0 where a group is shorter.

    Args:
        codes: shape (codes,).
        group: the group of each code, shape (codes,). Groups are contiguous and in order; -1: in no group.
        groups: how many groups there are.

    All windows are hashed and sorted at once; equal windows are then neighbours.
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
    result: list[int] = counts.tolist()
    return result

"""Sounds: what each mixed token sounds like, as a short string with one character a phoneme.

The phonemes are those of `k2d.text.phonemes`. As characters of one string they align many times faster than as a list
of strings, and a token keeps what is its own, so that an alignment by sound says which tokens were heard.

Mandarin units are the characters from 1, ARPAbet phones those from 128; a sign of another script stands for itself
above 255 and gets a private character below.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, count
from operator import add
from typing import Final

from k2d.text import english, mandarin
from k2d.text.numbers import in_numeral, names_number, trace_numbers
from k2d.text.tokens import is_han, is_latin

SEPARATOR: Final = "\0"  # a token between texts: it has no sound, and nothing is read across it

_FIRST_PHONE: Final = 128
_FIRST_PRIVATE: Final = 0xF0000
_CODES: Final[dict[str, str]] = {unit: chr(1 + place) for place, unit in enumerate(mandarin.UNITS)}
_CODES.update({phone: chr(_FIRST_PHONE + place) for place, phone in enumerate(english.PHONES)})
_NAMES: Final[dict[str, str]] = {code: unit for unit, code in _CODES.items()}
NUMBER: Final = "\0number"  # stands for the sound of a token that can only be read with its neighbours
_MOST_KEPT: Final = 131_072  # distinct tokens; then the table starts anew: Han characters are 20,000, English the rest


def encode(units: Iterable[str]) -> str:
    """Phonemes to one character each."""
    return "".join(map(_code, units))


def decode(sound: str) -> tuple[str, ...]:
    """The phonemes of a sound, by name."""
    return tuple(_NAMES.get(code, code) for code in sound)


def is_mandarin(code: str) -> bool:
    """Whether one character of a sound is a Mandarin initial or final."""
    return code < chr(_FIRST_PHONE)


def is_english(code: str) -> bool:
    """Whether one character of a sound is an English phone."""
    return chr(_FIRST_PHONE) <= code < chr(_FIRST_PHONE + len(english.PHONES))


def sounds(tokens: Sequence[str]) -> list[str]:
    """What each mixed token sounds like, in its context. Joined, they are the text's phonemes in order.

    A number of several words sounds at its first word and in the others not at all, and 百分之 at its number's end;
    every other token has at least one phoneme. `tokens` may be those of many texts with SEPARATOR between them.
    """
    odd = mandarin.odd_phrases()
    alone = list(map(ALONE.__getitem__, tokens))
    notable = Notable(
        respelled=[place for sign in mandarin.RESPELLED for place in _places_of(sign, tokens)],
        numbers=_places_of(NUMBER, alone),
        hundreds=_places_of("百", tokens),
        odd=list(compress(count(), map(odd.__contains__, map(add, tokens, tokens[1:])))),
    )
    return sounds_in_context(tokens, alone, notable)


@dataclass(frozen=True, slots=True)
class Notable:
    """Where tokens stand, in order, whose sound may depend on their neighbours."""

    respelled: list[int]  # mandarin.RESPELLED
    numbers: list[int]  # tokens whose sound is NUMBER
    hundreds: list[int]  # 百
    odd: list[int]  # pairs that odd phrases begin with, and any others


def sounds_in_context(tokens: Sequence[str], alone: list[str], notable: Notable) -> list[str]:
    """`sounds`, given what each token sounds like by itself (by ALONE; this list is changed)."""
    respelled, odd = mandarin.respell(tokens, notable.respelled), notable.odd
    for place in notable.respelled:
        alone[place] = ALONE[respelled[place]]
    if notable.respelled:
        odd = sorted({*odd, *notable.respelled, *(place - 1 for place in notable.respelled if place)})
    percents = [place for place in notable.hundreds if list(tokens[place + 1 : place + 3]) == ["分", "之"]]
    spans = _numerals(respelled, sorted([*notable.numbers, *percents]))
    if not spans:
        _read_odd_phrases(respelled, alone, odd)
        return alone
    read, parts, places = _with_numbers_read(respelled, alone, spans)
    _read_odd_phrases(read, parts, _moved(odd, spans, places))
    return _gathered(parts, places, spans, len(tokens))


def _places_of(wanted: str, among: Sequence[str]) -> list[int]:
    return list(compress(count(), map(wanted.__eq__, among))) if wanted in among else []


class _Sounds(dict[str, str]):
    """Each token's sound by itself, worked out when the token is first met."""

    def __missing__(self, token: str) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        if token == SEPARATOR:
            sound = ""
        elif is_han(token):
            sound = encode(mandarin.pinyin_units(token))
        elif not is_latin(token):
            sound = encode(token)
        else:
            sound = NUMBER if names_number(token) else encode(english.pronounce(token))
        self[token] = sound
        return sound


ALONE: Final = _Sounds()


def _code(unit: str) -> str:
    code = _CODES.get(unit)
    if code is None:
        if len(unit) == 1 and ord(unit) > 255:
            return unit
        code = chr(_FIRST_PRIVATE + len(_CODES))
        _CODES[unit] = code
        _NAMES[code] = unit
    return code


# ---- numbers ------------------------------------------------------------------------------------------------------


def _numerals(tokens: Sequence[str], seeds: Iterable[int]) -> list[tuple[int, int]]:
    """The stretches around seeds that numbers may be in: nothing outside of them bears on how they are read."""
    spans: list[tuple[int, int]] = []
    for seed in seeds:
        if spans and seed < spans[-1][1]:
            continue
        start, end = seed, seed + 1
        while start > 0 and in_numeral(tokens[start - 1]):
            start -= 1
        while end < len(tokens) and in_numeral(tokens[end]):
            end += 1
        spans.append((start, end))
    return spans


def _with_numbers_read(
    tokens: Sequence[str], found: Sequence[str], spans: Iterable[tuple[int, int]]
) -> tuple[list[str], list[str], list[list[int]]]:
    """All tokens with the spans' numbers read, the sound of each, and where within each span its parts stem from."""
    read: list[str] = []
    parts: list[str] = []
    places: list[list[int]] = []
    done = 0
    for start, end in spans:
        numbers, stems = _numbers(tuple(tokens[start:end]))
        read += tokens[done:start]
        read += numbers
        parts += found[done:start]
        parts += map(ALONE.__getitem__, numbers)
        places.append(stems)
        done = end
    read += tokens[done:]
    parts += found[done:]
    return read, parts, places


@lru_cache(maxsize=16_384)  # most numbers are short and come back
def _numbers(span: tuple[str, ...]) -> tuple[list[str], list[int]]:
    return trace_numbers(span)


def _moved(suspects: Sequence[int], spans: Sequence[tuple[int, int]], places: Sequence[Sequence[int]]) -> list[int]:
    """Suspects among all tokens to suspects among those that have the spans' numbers read: these all are suspect."""
    moved: list[int] = []
    shift = done = 0
    for (start, end), stems in zip(spans, places, strict=True):
        stop = bisect_left(suspects, max(0, start - 1))
        moved += [suspect + shift for suspect in suspects[done:stop]]
        moved += range(max(0, start - 1 + shift), start + shift + len(stems))
        done = bisect_left(suspects, end)
        shift += len(stems) - (end - start)
    moved += [suspect + shift for suspect in suspects[done:]]
    return moved


def _gathered(
    parts: Sequence[str], places: Iterable[Sequence[int]], spans: Iterable[tuple[int, int]], length: int
) -> list[str]:
    """The sounds of read tokens, put together to those of the tokens that they stem from."""
    found: list[str] = []
    done = 0
    for (start, end), stems in zip(spans, places, strict=True):
        plain = start - len(found)
        found += parts[done : done + plain]
        done += plain
        span = [""] * (end - start)
        for stem in stems:
            span[stem] += parts[done]
            done += 1
        found += span
    found += parts[done : done + length - len(found)]
    return found


# ---- characters that are read otherwise in some words -------------------------------------------------------------


def _read_odd_phrases(tokens: Sequence[str], found: list[str], suspects: Iterable[int]) -> None:
    """Correct the sounds of polyphones in words, in place. Words are cut as pypinyin does."""
    odd = mandarin.odd_phrases()
    done = 0
    for place in suspects:
        if place < done:
            continue
        phrases = odd.get("".join(tokens[place : place + 2]))
        if phrases is None:
            continue
        here = "".join(tokens[place : place + max(map(len, phrases))])
        if any(map(here.startswith, phrases)):
            done = _read_run(tokens, found, place)


def _read_run(tokens: Sequence[str], found: list[str], place: int) -> int:
    """Read the run of Han characters around `place`, longest words from its left; returns where it ends."""
    prefixes, odd = mandarin.phrase_prefixes(), mandarin.odd_phrases()
    start = end = place
    while start > 0 and is_han(tokens[start - 1]):
        start -= 1
    while end < len(tokens) and is_han(tokens[end]):
        end += 1
    run = tokens[start:end]
    pairs = [*map(add, run, run[1:]), ""]
    at = 0
    while at < len(run):
        if pairs[at] not in prefixes:
            at += 1
            continue
        word, stop = mandarin.longest_phrase(run, at, prefixes)
        if word in odd.get(pairs[at], ()):
            found[start + at : start + stop] = _phrase_sounds(word)
        at = stop
    return end


@lru_cache(maxsize=8192)  # there are 3,437 such phrases
def _phrase_sounds(word: str) -> tuple[str, ...]:
    return tuple(map(encode, mandarin.phrase_reading(word)))

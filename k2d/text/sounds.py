"""The sound of each mixed token: its phonemes as a short string, one character per phoneme.

Phonemes are the unit of the phoneme error rate (PER). Mandarin becomes toneless pinyin initials and finals (lower-case:
`zh`, `iang`), English becomes ARPAbet without stress (upper-case: `JH`), so no phoneme belongs to both. Numbers are
read the same way in every notation (`k2d.text.numbers`). Other scripts give one phoneme per character. Source:
docs/method.md; unlike in the paper's code, words outside the lexicon are not dropped.

Strings align many times faster than lists of phoneme names, and since every token has its own string, an alignment by
sound can be mapped back to tokens.

Mandarin initials and finals are the characters from 1 on, ARPAbet phones those from 128 on. A character of another
script stands for itself if its code point is above 255, and is mapped to a private code point otherwise.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import add
from typing import Final

from k2d.text import english, mandarin
from k2d.text.greek import letter_names
from k2d.text.numbers import in_numeral, may_shorten, names_number, trace_numbers
from k2d.text.tokens import is_han, is_latin

SEPARATOR: Final = "\0"  # a token between texts: it has no sound, and no phrase or number extends across it

FIRST_PHONE: Final = 128  # code of the first ARPAbet phone; Mandarin's are below
_FIRST_PRIVATE: Final = 0xF0000
_CODES: Final[dict[str, str]] = {unit: chr(1 + place) for place, unit in enumerate(mandarin.UNITS)}
_CODES.update({phone: chr(FIRST_PHONE + place) for place, phone in enumerate(english.PHONES)})
_NAMES: Final[dict[str, str]] = {code: unit for unit, code in _CODES.items()}
NUMBER: Final = "\0number"  # placeholder for the sound of a token that can only be read with its neighbours
# Distinct tokens kept in memory before the table is emptied; chosen: 20,000 Han characters and over 100,000 words.
_MOST_KEPT: Final = 131_072


def encode(units: Iterable[str]) -> str:
    """Encode phonemes as a string of one character each."""
    return "".join(map(_code, units))


def decode(sound: str) -> tuple[str, ...]:
    """Return the phonemes of a sound by name; the inverse of `encode`."""
    return tuple(_NAMES.get(code, code) for code in sound)


def is_mandarin(code: str) -> bool:
    """Whether one character of a sound is a Mandarin initial or final."""
    return code < chr(FIRST_PHONE)


def is_english(code: str) -> bool:
    """Whether one character of a sound is an English phone."""
    return chr(FIRST_PHONE) <= code < chr(FIRST_PHONE + len(english.PHONES))


@dataclass(frozen=True, slots=True)
class ContextPlaces:
    """Indices, ascending, of the tokens whose sound may depend on their neighbours."""

    respelled: list[int]  # tokens in RESPELLED
    numbers: list[int]  # tokens whose sound is NUMBER
    units: list[int]  # tokens in numbers.SHORT_FORMS
    odd: list[int]  # pairs with which odd phrases begin; others may be among them


RESPELLED: Final = ("a", *mandarin.RESPELLED)  # the tokens that are read by their neighbours


def sounds_in_context(tokens: Sequence[str], alone: list[str], context: ContextPlaces) -> list[str]:
    """Return the sound of each mixed token in its context; joined, they are the phonemes of the text in order.

    The phonemes of a number of several words belong to its first word, and those of 百分之 to the last token of its
    number, so the other tokens of a number may have none; every other token has at least one.

    Args:
        tokens: of one text, or of many with SEPARATOR between them.
        alone: the sound of each token by itself, from ALONE; this list is modified.
    """
    respelled, odd = respell(tokens, context.respelled), context.odd
    changed = [place for place in context.respelled if respelled[place] != tokens[place]]
    for place in changed:
        alone[place] = ALONE[respelled[place]]
    if changed:
        odd = sorted({*odd, *changed, *(place - 1 for place in changed if place)})
    spans = _numerals(respelled, sorted([*context.numbers, *filter(partial(may_shorten, tokens), context.units)]))
    if not spans:
        _read_odd_phrases(respelled, alone, odd)
        return alone
    read, parts, places = _with_numbers_read(respelled, alone, spans)
    _read_odd_phrases(read, parts, _moved(odd, spans, places))
    return _gathered(parts, places, spans, len(tokens))


def respell(tokens: Sequence[str], places: Sequence[int]) -> Sequence[str]:
    """Replace tokens by others that sound as they do here. `places`: indices of RESPELLED tokens.

    The word a becomes the letter where no English word follows it: plan A 跟, A B C. The rest is `mandarin.respell`.
    """
    out = list(mandarin.respell(tokens, [place for place in places if tokens[place] != "a"])) if places else tokens
    for place in places:
        if tokens[place] == "a":
            before, after = tokens[place - 1] if place else "", tokens[place + 1] if place + 1 < len(tokens) else ""
            is_article = is_latin(after) and len(after) > 1 and not _is_letter(before)
            out[place] = "a" if is_article else english.LETTER_A  # type: ignore[index]
    return out


def _is_letter(token: str) -> bool:
    return len(token) == 1 and "a" <= token <= "z"


class _Sounds(dict[str, str]):
    """The sound of each token by itself, computed on first use of the token."""

    def __missing__(self, token: str) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        if token in (SEPARATOR, mandarin.SILENT):
            sound = ""
        elif is_han(token):
            sound = encode(mandarin.pinyin_units(token))
        elif token in english.ENDINGS:
            sound = encode(english.ENDINGS[token])
        elif token in mandarin.BOPOMOFO:
            sound = encode((mandarin.BOPOMOFO[token],))
        elif not is_latin(token):
            sound = encode(token) if (name := letter_names(token)) is None else "".join(map(self.__getitem__, name))
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
    """The spans around `seeds` that may be numbers; tokens outside of a span do not affect how it is read."""
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
    tokens: Sequence[str], sounds: Sequence[str], spans: Iterable[tuple[int, int]]
) -> tuple[list[str], list[str], list[list[int]]]:
    """Replace the spans' numbers by their readings.

    Returns all tokens, the sound of each, and for each span the indices (within it) that its new tokens come from.
    """
    read: list[str] = []
    parts: list[str] = []
    places: list[list[int]] = []
    done = 0
    for start, end in spans:
        numbers, stems = _numbers(tuple(tokens[start:end]))
        read += tokens[done:start]
        read += numbers
        parts += sounds[done:start]
        parts += map(ALONE.__getitem__, numbers)
        places.append(stems)
        done = end
    read += tokens[done:]
    parts += sounds[done:]
    return read, parts, places


@lru_cache(maxsize=16_384)  # most numbers are short and recur
def _numbers(span: tuple[str, ...]) -> tuple[list[str], list[int]]:
    return trace_numbers(span)


def _moved(odd: Sequence[int], spans: Sequence[tuple[int, int]], places: Sequence[Sequence[int]]) -> list[int]:
    """Translate `odd` indices to the tokens with the spans' numbers read; all tokens of the readings are added."""
    moved: list[int] = []
    shift = done = 0
    for (start, end), stems in zip(spans, places, strict=True):
        stop = bisect_left(odd, max(0, start - 1))
        moved += [place + shift for place in odd[done:stop]]
        moved += range(max(0, start - 1 + shift), start + shift + len(stems))
        done = bisect_left(odd, end)
        shift += len(stems) - (end - start)
    moved += [place + shift for place in odd[done:]]
    return moved


def _gathered(
    parts: Sequence[str], places: Iterable[Sequence[int]], spans: Iterable[tuple[int, int]], length: int
) -> list[str]:
    """Join the sounds of the readings to one sound for each original token (`length` of them)."""
    sounds: list[str] = []
    done = 0
    for (start, end), stems in zip(spans, places, strict=True):
        plain = start - len(sounds)
        sounds += parts[done : done + plain]
        done += plain
        span = [""] * (end - start)
        for stem in stems:
            span[stem] += parts[done]
            done += 1
        sounds += span
    sounds += parts[done : done + length - len(sounds)]
    return sounds


# ---- characters with another reading in some phrases --------------------------------------------------------------


def _read_odd_phrases(tokens: Sequence[str], sounds: list[str], places: Iterable[int]) -> None:
    """Correct the sounds of polyphones in phrases, in place. Text is segmented like in pypinyin."""
    odd = mandarin.odd_phrases()
    done = 0
    for place in places:
        if place < done:
            continue
        phrases = odd.get("".join(tokens[place : place + 2]))
        if phrases is None:
            continue
        here = "".join(tokens[place : place + len(phrases[-1])])  # the longest is last
        if here.startswith(phrases):
            done = _read_run(tokens, sounds, place)


def _read_run(tokens: Sequence[str], sounds: list[str], place: int) -> int:
    """Read the run of Han characters around `place`, longest phrase first from the right; return the end of the run."""
    suffixes, odd = mandarin.phrase_suffixes(), mandarin.odd_phrases()
    start = end = place
    while start > 0 and is_han(tokens[start - 1]):
        start -= 1
    while end < len(tokens) and is_han(tokens[end]):
        end += 1
    run = tokens[start:end]
    pairs = ["", *map(add, run, run[1:])]  # of each token with the one before it
    at = len(run)
    while at:
        if pairs[at - 1] not in suffixes:
            at -= 1
            continue
        word, first = mandarin.longest_phrase(run, at, suffixes)
        if word in odd.get(word[:2], ()):
            sounds[start + first : start + at] = _phrase_sounds(word)
        at = first
    return end


@lru_cache(maxsize=8192)  # there are 3,437 such phrases
def _phrase_sounds(word: str) -> tuple[str, ...]:
    return tuple(map(encode, mandarin.phrase_reading(word)))

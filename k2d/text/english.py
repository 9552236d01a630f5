"""Pronunciation of English words as ARPAbet phones without stress.

A word is looked up in CMUdict (first pronunciation). A word that is not in the dictionary still gets phones, by the
first of these that applies: split at hyphens, remove an ending (-s, -ed, -ing, -'s), spell an acronym letter by letter,
split a compound of two known words, letter-to-sound rules. (Dropping such words was a fault of the paper's code:
docs/method.md.) Text is lower-case at this point, so a word counts as an acronym when it is unknown and has at most
three letters or no vowel.

CMUdict: Carnegie Mellon University, BSD licence (data/LICENSE.cmudict).
"""

import gzip
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final

from k2d.text.letters import letter_to_sound

_ARPABET: Final = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONES: Final = tuple(_ARPABET.split())

Phones = tuple[str, ...]

_VOICELESS: Final = frozenset(("P", "T", "K", "F", "TH"))
_SIBILANT: Final = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_LONGEST_ACRONYM: Final = 3  # letters. Chosen: GPU, LLM, API
# letters of a compound's part: two-letter entries of the dictionary (en, de, ii) would match anything
_SHORTEST_PART: Final = 3
_LETTER_A: Final[Phones] = ("EY",)  # the dictionary's "a" is the article
_PLAIN: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_VOWEL: Final = re.compile("[aeiouy]")
_ASCII: Final = re.compile(r"[a-z]+(?:'[a-z]+)*")


def pronounce(word: str) -> Phones:
    """Return the phones of one lower-case Latin token without digits; at least one for every token.

    A letter that no rule covers is returned as itself. Results are not cached here but in `k2d.text.sounds`.

        pronounce("gpus")  # ('JH', 'IY', 'P', 'IY', 'Y', 'UW', 'Z')
    """
    known = lookup(word)
    if known:
        return known
    if "-" in word:
        return sum(map(pronounce, word.split("-")), ())
    if not _ASCII.fullmatch(word):
        return _foreign(word)
    if "'" in word:
        stem, ending = word.rsplit("'", 1)
        phones = pronounce(stem)
        return phones + (_plural(phones) if ending == "s" else pronounce(ending))
    return _with_ending(word) or _acronym(word) or _compound(word) or letter_to_sound(word) or spell(word)


def lookup(word: str) -> Phones | None:
    """The first pronunciation in CMUdict, or None if the word is not there."""
    codes = _dictionary().get(word)
    return tuple([PHONES[ord(code) - 65] for code in codes]) if codes else None


def spell(word: str) -> Phones:
    """Spell a word by the names of its letters, as in GPU; a letter outside a–z is returned as itself."""
    phones: list[str] = []
    for letter in word:
        phones += _LETTER_A if letter == "a" else (lookup(letter) or (letter,))
    return tuple(phones)


class Dictionary:
    """CMUdict as one string of lines "word codes", sorted by word, searched by bisection.

    A Python dict of the same entries takes 20 MB more in every worker process.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = array("I", [0, *(match.end() for match in re.finditer("\n", text))])
        self._starts.pop()  # the end of the text is not a line start

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[str]:
        return map(self._word, range(len(self)))

    def get(self, word: str) -> str | None:
        """The codes of a word, one character per phone; None if the word is missing."""
        index = bisect_left(range(len(self)), word, key=self._word)
        if index == len(self) or self._word(index) != word:
            return None
        start = self._starts[index] + len(word) + 1
        return self._text[start : self._text.index("\n", start)]

    def _word(self, index: int) -> str:
        start = self._starts[index]
        return self._text[start : self._text.index(" ", start)]


@cache
def _dictionary() -> Dictionary:
    data = (resources.files("k2d.text") / "data" / "cmudict.txt.gz").read_bytes()
    return Dictionary(gzip.decompress(data).decode("ascii"))


def _foreign(word: str) -> Phones:
    """Remove accents and try again; a letter that is still outside a–z is returned as itself."""
    bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)).translate(_PLAIN)
    phones: list[str] = []
    for part in re.findall(r"[a-z]+(?:'[a-z]+)*|[^a-z']", bare):
        phones += pronounce(part) if _ASCII.fullmatch(part) else (part,)
    return tuple(phones) or (word,)


def _with_ending(word: str) -> Phones | None:
    """Phones of a known word or acronym plus -s, -ed or -ing (GPUs, finetuned, tokenizing)."""
    if word.endswith("s") and len(word) > 2:
        stem = lookup(word[:-1]) or _acronym(word[:-1])
        if stem:
            return stem + _plural(stem)
    for ending, phones in (("ed", None), ("ing", ("IH", "NG"))):
        if word.endswith(ending):
            bare = word.removesuffix(ending)
            # tune(d), ping(ed) → ping; debug(g)ing → debug
            candidates = [bare + "e", bare] + ([bare[:-1]] if len(bare) > 3 and bare[-1] == bare[-2] else [])
            stem = next((known for c in candidates if len(c) > 2 and (known := lookup(c))), None)
            if stem:
                return stem + (phones or _past(stem))
    return None


def _plural(stem: Phones) -> Phones:
    if stem[-1] in _SIBILANT:
        return ("IH", "Z")
    return ("S",) if stem[-1] in _VOICELESS else ("Z",)


def _past(stem: Phones) -> Phones:
    if stem[-1] in ("T", "D"):
        return ("IH", "D")
    return ("T",) if stem[-1] in _VOICELESS | {"S", "SH", "CH"} else ("D",)


def _acronym(word: str) -> Phones | None:
    if len(word) <= _LONGEST_ACRONYM or not _VOWEL.search(word):
        return spell(word)
    return None


def _compound(word: str) -> Phones | None:
    """Phones of two known words (codebook; the most even split), or of a known word and an acronym (ChatGPT)."""
    cuts = range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1)
    for cut in sorted(cuts, key=lambda at: abs(len(word) - 2 * at)):
        first, second = lookup(word[:cut]), lookup(word[cut:])
        if first and second:
            return first + second
    for cut in reversed(cuts):
        first, rest = lookup(word[:cut]), word[cut:]
        if first and not _VOWEL.search(rest):
            return first + spell(rest)
    return None

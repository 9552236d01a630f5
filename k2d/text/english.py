"""Pronunciation of English words as ARPAbet phones without stress.

A word is looked up in CMUdict (first pronunciation). A word that is not in the dictionary still gets phones, by the
first of these that applies: split at hyphens, the American spelling (optimise, labelling), an ending removed (-s, -ed,
-ing, -'s), an acronym spelled letter by letter, a prefix and a known word (pretrain), a compound of two known words,
letter-to-sound rules. (Dropping such words was a fault of the paper's code: docs/method.md.) Text is lower-case at this
point, so a word counts as an acronym when it is unknown and has at most three letters or no vowel.

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

from rapidfuzz.distance import Levenshtein

from k2d.text.letters import letter_to_sound

_ARPABET: Final = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONES: Final = tuple(_ARPABET.split())

Phones = tuple[str, ...]

_VOICELESS: Final = frozenset(("P", "T", "K", "F", "TH"))
_SIBILANT: Final = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_LONGEST_ACRONYM: Final = 3  # letters. Chosen: GPU, LLM, API
# letters of a compound's part: two-letter entries of the dictionary (en, de, ii) would match anything
_SHORTEST_PART: Final = 3
LETTER_A: Final = "a."  # the letter; the word "a" is the article

# Abbreviations that are no words, with or without a point, and the words that are said for them.
_SAID: Final = {
    "dr": "doctor",
    "drs": "doctors",
    "prof": "professor",
    "profs": "professors",
    "messrs": "messieurs",
    "vs": "versus",
    "etc": "et-cetera",
    "dept": "department",
    "approx": "approximately",
    "univ": "university",
    "asst": "assistant",
    "assoc": "associate",
    "govt": "government",
    "sgt": "sergeant",
    "capt": "captain",
    "lieut": "lieutenant",
    "blvd": "boulevard",
    "hwy": "highway",
    "jr": "junior",
    "sr": "senior",
    "ltd": "limited",
    "sept": "september",
    "tues": "tuesday",
    "thurs": "thursday",
    "misc": "miscellaneous",
    "corp": "corporation",
}
# Entries of the dictionary that are initials in this speech although it has a name for them.
_INITIALS: Final = frozenset(("aws", "ios", "id"))
# Entries of two letters that begin with a vowel and are words; the others (ai, ui) are initials.
_SHORT_WORD_LIST: Final = """
ad ah al am an as at aw ax ed eh el er et ex if in is it of oh ok on or ow ox oz uh um un up us
"""
_SHORT_WORDS: Final = frozenset(_SHORT_WORD_LIST.split())
# What stands for "is", "will" … after a word or a number, and its sound after a vowel.
ENDINGS: Final[dict[str, Phones]] = {
    "'s": ("Z",),
    "'d": ("D",),
    "'ll": ("AH", "L"),
    "'re": ("ER",),
    "'ve": ("V",),
    "'m": ("M",),
    "'t": ("T",),
}
# Prefixes that English puts before any word, where they do not sound as the dictionary's word of these letters does.
_PREFIXES: Final[dict[str, Phones]] = {
    "re": ("R", "IY"),
    "pre": ("P", "R", "IY"),
    "de": ("D", "IY"),
    "co": ("K", "OW"),
    "un": ("AH", "N"),
    "bi": ("B", "AY"),
    "tri": ("T", "R", "AY"),
    "uni": ("Y", "UW", "N", "IH"),
    "dis": ("D", "IH", "S"),
    "mis": ("M", "IH", "S"),
    "semi": ("S", "EH", "M", "IY"),
    "anti": ("AE", "N", "T", "IY"),
    "multi": ("M", "AH", "L", "T", "IY"),
    "micro": ("M", "AY", "K", "R", "OW"),
    "macro": ("M", "AE", "K", "R", "OW"),
    "hyper": ("HH", "AY", "P", "ER"),
    "intra": ("IH", "N", "T", "R", "AH"),
    "inter": ("IH", "N", "T", "ER"),
    "meta": ("M", "EH", "T", "AH"),
    "poly": ("P", "AA", "L", "IY"),
    "proto": ("P", "R", "OW", "T", "OW"),
    "pseudo": ("S", "UW", "D", "OW"),
    "quasi": ("K", "W", "AA", "Z", "IY"),
    "neuro": ("N", "UH", "R", "OW"),
    "cyber": ("S", "AY", "B", "ER"),
    "tele": ("T", "EH", "L", "AH"),
    "geo": ("JH", "IY", "OW"),
    "bio": ("B", "AY", "OW"),
}
_PREFIX_WORD_LIST: Final = """
after auto back cross down fore hand hard mid mini mono non off out over photo post pro real self side soft sub super
trans ultra under up
"""
_PREFIX_WORDS: Final = frozenset(_PREFIX_WORD_LIST.split())
_SHORTEST_STEM: Final = 3  # letters after a prefix
_ENDING_PARTS: Final = frozenset(("fi", "in", "on", "up"))  # that end compounds, though they have two letters
# What an English word can begin with; other pairs of consonants begin with a letter that is spelled (kmeans, xray).
_ONSET_LIST: Final = """
bl br ch cl cr dr dw fl fr gh gl gn gr kh kn kl kr ph pl pr ps qu rh sc sh sk sl sm sn sp sq st sv sw th tr tw wh wr zh
"""
_ONSETS: Final = frozenset(_ONSET_LIST.split())
_SPELLED_VOWELS: Final = frozenset("eiux")  # e-book, i-phone, u-net, x-ray
# British spellings, and the American ones that the dictionary has for them.
_AMERICAN: Final = tuple(
    (re.compile(pattern), american)
    for pattern, american in (
        (r"(?<=[iy])s(?=(?:e[ds]?|ers?|ing|able|ations?)$)", "z"),
        (r"(?<=[a-z]{3})our", "or"),
        (r"(?<=[bcdhptv])re(?=[sd]?$)", "er"),
        (r"(?<=[a-z]{2})tring$", "tering"),
        (r"ogue(?=s?$)", "og"),
        (r"(?<=[aeiou])ll(?=(?:ed|ing|ers?|y|ful|or|ous|ations?|ist|ism)$)", "l"),
        (r"pp(?=(?:ed|ing)$)", "p"),
        (r"ss(?=(?:ed|es|ing)$)", "s"),
        (r"([aeiou])l(?=(?:ment|ments|ful|s)?$)", r"\1ll"),
        (r"ence(?=s?$)", "ense"),
        (r"ae|oe", "e"),
        (r"(?<=dg)e(?=ment)", ""),
        (r"eing$", "ing"),
        (r"eable$", "able"),
        (r"mme(?=s?$)", "m"),
        (r"^sc(?=ept)", "sk"),
        (r"que(?=s?$)", "ck"),
        (r"xion(?=s?$)", "ction"),
        (r"ph(?=ur)", "f"),
        (r"gaol", "jail"),
        (r"^tyre", "tire"),
        (r"^kerb", "curb"),
        (r"(?<=m)ou(?=l[dt])", "o"),
        (r"(?<=pl)ough", "ow"),
        (r"grey", "gray"),
        (r"yja", "aja"),
        (r"cosy", "cozy"),
        (r"artefact", "artifact"),
        (r"ewellery$", "ewelry"),
        (r"moustache", "mustache"),
    )
)
# Where the dictionary has a word in both spellings, they may differ in phones although they are said alike (kilometre).
_TWO_SPELLINGS: Final = re.compile(r"[iy]s(?:e[ds]?|ing|ations?)$|our|tre[sd]?$|ogues?$|ae|oe")
_LONG_WORD: Final = 7  # letters; chosen: shorter pairs are different words (shoe, she)
_SAME_WORD: Final = 2  # phones in which two spellings of one word may differ
_BRITISH: Final = re.compile(r"(?<=[iy])s(?=(?:e[ds]?|ers?|ing|able|ations?)$)")  # tokenise, which no dictionary has
_PLAIN: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_VOWEL: Final = re.compile("[aeiouy]")
_TWO_INITIALS: Final = re.compile("[aeiou][a-z]")
# None: the phones of a past tense depend on the stem.
_LATER_ENDINGS: Final[tuple[tuple[str, Phones | None], ...]] = (
    ("ed", None),
    ("ing", ("IH", "NG")),
    ("er", ("ER",)),
    ("ers", ("ER", "Z")),
    ("ings", ("IH", "NG", "Z")),
    ("able", ("AH", "B", "AH", "L")),
    ("ly", ("L", "IY")),
)
_DRAWN_OUT: Final = re.compile(r"(.)\1{2,}")
_ASCII: Final = re.compile(r"[a-z]+(?:'[a-z]+)*")


def pronounce(word: str) -> Phones:
    """Return the phones of one lower-case Latin token without digits; at least one for every token.

    A letter that no rule covers is returned as itself. Results are not cached here but in `k2d.text.sounds`.

        pronounce("gpus")  # ('JH', 'IY', 'P', 'IY', 'Y', 'UW', 'Z')
    """
    if word in _SAID:
        return pronounce(_SAID[word])
    if word == LETTER_A:
        return spell("a")
    if "-" in word:
        return _hyphened(word)
    if known := _known(word):
        return known
    if not _ASCII.fullmatch(word):
        return ENDINGS.get(word) or _foreign(word)
    if "'" in word:
        stem, ending = word.rsplit("'", 1)
        phones = spell(stem) if len(stem) == 1 else pronounce(stem)
        return phones + (_plural(phones) if ending == "s" else ENDINGS.get(f"'{ending}") or pronounce(ending))
    american = _BRITISH.sub("z", word)
    return (
        _drawn_out(word)
        or _with_ending(word)
        or _acronym(word)
        or _prefixed(word)
        or _with_ending(american)
        or _compound(word)
        or letter_to_sound(american)
        or spell(word)
    )


def _known(word: str) -> Phones | None:
    """The phones of a word that is in the dictionary in one of its spellings, or that is read letter by letter."""
    if word in _INITIALS or (_TWO_INITIALS.fullmatch(word) and word not in _SHORT_WORDS):
        return spell(word)
    phones = lookup(word)
    if phones and (len(word) < _LONG_WORD or not _TWO_SPELLINGS.search(word)):
        return phones
    american = _american(word)
    if phones and american and Levenshtein.distance(phones, american) > _SAME_WORD:
        return phones  # analyses are not analyzes
    return american or phones


def _american(word: str) -> Phones | None:
    """The phones of a British spelling whose American one is in the dictionary; up to two changes (colourise)."""
    once = [changed for pattern, new in _AMERICAN if (changed := pattern.sub(new, word)) != word]
    for spelling in once:
        if phones := lookup(spelling):
            return phones
    twice = (pattern.sub(new, spelling) for spelling in once for pattern, new in _AMERICAN)
    return next((phones for spelling in twice if (phones := lookup(spelling))), None)


def _hyphened(word: str) -> Phones:
    """Phones of a word with hyphens: as the word without them if the dictionary has it, or its parts are no words."""
    parts = [part for part in word.split("-") if part]
    joined = "".join(parts)
    if known := _known(joined):
        return known
    if len(parts) == 2 and parts[0] in _PREFIXES:
        return _PREFIXES[parts[0]] + pronounce(parts[1])
    if len(parts) == 2 and not all(_known(part) or _with_ending(part) or _acronym(part) for part in parts):
        return lookup(word) or pronounce(joined)
    return sum((spell(part) if len(part) == 1 else pronounce(part) for part in parts), ())


def lookup(word: str) -> Phones | None:
    """The first pronunciation in CMUdict, or None if the word is not there."""
    codes = _dictionary().get(word)
    return tuple([PHONES[ord(code) - 65] for code in codes]) if codes else None


def spell(word: str) -> Phones:
    """Spell a word by the names of its letters, as in GPU; a letter outside a–z is returned as itself."""
    phones: list[str] = []
    for letter in word:
        phones += ("EY",) if letter == "a" else (lookup(letter) or (letter,))
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
        stem = _known(word[:-1]) or _ized(word[:-1]) or _acronym(word[:-1])
        if stem:
            return stem + _plural(stem)
    for ending, phones in _LATER_ENDINGS:
        if word.endswith(ending):
            bare = word.removesuffix(ending)
            # tune(d), ping(ed) → ping; debug(g)ing → debug
            candidates = [bare + "e", bare] + ([bare[:-1]] if len(bare) > 3 and bare[-1] == bare[-2] else [])
            stem = next((known for c in candidates if len(c) > 2 and (known := _known(c) or _ized(c))), None)
            if stem:
                return stem + (phones or _past(stem))
    return _ized(word)


def _ized(word: str) -> Phones | None:
    """Phones of a known word plus -ize or -ization (tokenize, vectorization)."""
    for ending, phones in (("ize", ("AY", "Z")), ("ization", ("AH", "Z", "EY", "SH", "AH", "N"))):
        if word.endswith(ending) and (stem := lookup(word.removesuffix(ending))):
            return stem + phones
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


def _prefixed(word: str) -> Phones | None:
    """Phones of a prefix and a known word (pretrain), or of a letter and a known word (xray, tshirt)."""
    for cut in range(len(word) - _SHORTEST_STEM, 0, -1):
        stem = word[cut:]
        before = word[:cut]
        prefix = _PREFIXES.get(before) or (lookup(before) if before in _PREFIX_WORDS else _spelled_before(before, stem))
        rest = prefix and (_known(stem) or _with_ending(stem) or (_acronym(stem) if not _VOWEL.search(stem) else None))
        if prefix and rest:
            return prefix + rest
    return None


def _spelled_before(letter: str, stem: str) -> Phones | None:
    """The name of a letter that cannot be the beginning of one word with `stem`."""
    if len(letter) != 1:
        return None
    consonants = not _VOWEL.match(letter) and not _VOWEL.match(stem)
    return spell(letter) if letter in _SPELLED_VOWELS or (consonants and letter + stem[0] not in _ONSETS) else None


def _drawn_out(word: str) -> Phones | None:
    """Phones of a known word with a letter written three times or more (ohhh, sooo, hmmmm)."""
    if not _DRAWN_OUT.search(word):
        return None
    return next((phones for new in (r"\1", r"\1\1") if (phones := lookup(_DRAWN_OUT.sub(new, word)))), None)


def _compound(word: str) -> Phones | None:
    """Phones of two known words (codebook; the most even split), or of a known word and an acronym (ChatGPT)."""
    cuts = range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1)
    for cut in sorted(cuts, key=lambda at: abs(len(word) - 2 * at)):
        first, second = lookup(word[:cut]), lookup(word[cut:])
        if first and second and not (word[cut - 1] == "s" and lookup(word[: cut - 1]) and lookup(word[cut - 1 :])):
            return first + second
    if word[-2:] in _ENDING_PARTS and (first := lookup(word[:-2])):
        return first + (lookup(word[-2:]) or ())
    for cut in reversed(cuts):
        first, rest = lookup(word[:cut]), word[cut:]
        if first and not _VOWEL.search(rest):
            return first + spell(rest)
    return None

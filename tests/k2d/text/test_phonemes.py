"""Reading aloud: Mandarin in context, English from the lexicon or by rule, nothing lost."""

import gzip
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials
from rapidfuzz.distance import Levenshtein
from reading_oracle import mixed_tokens, phonemes

from k2d.text import english
from k2d.text.letters import letter_to_sound
from k2d.text.mandarin import RESPELLED, phrase_words
from k2d.text.normalise import simplify
from k2d.text.numbers import SHORT_FORMS

TABLE = [
    ("謝謝", "x ie x ie"),
    ("銀行 行人 長大 長短", "in h ang x ing r en zh ang d a ch ang d uan"),  # polyphones in context
    ("還有 還錢", "h ai iou h uan q ian"),
    ("看著 著名 睡著", "k an zh e zh u m ing sh uei zh ao"),
    ("女略魚而嗯", "n v l ve v er en"),
    ("謝々 人々", "x ie x ie r en r en"),
    ("〇", "l ing"),
    ("㐂𠮷", "㐂 𠮷"),  # no reading: the character stands for itself
    ("hello world", "HH AH L OW W ER L D"),
    ("GPU GPUs KPI", "JH IY P IY Y UW JH IY P IY Y UW Z K EY P IY AY"),
    ("LLM HTML", "EH L EH L EH M EY CH T IY EH M EH L"),
    ("ChatGPT", "CH AE T JH IY P IY T IY"),
    ("codebook", "K OW D B UH K"),  # compound
    ("finetuned debugging", "F AY N T UW N D D IY B AH G IH NG"),
    ("Kaldi's", "K AE L D IY Z"),
    ("state-of-the-art", "S T EY T AH V DH AH AA R T"),
    ("café Straße", "K AH F EY S T R AE S"),
    ("カ 안녕 мир", "カ 안 녕 м и р"),
    ("我 love 你", "uo L AH V n i"),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_table(text: str, expected: str) -> None:
    assert " ".join(phonemes(mixed_tokens(text))) == expected


@given(st.text())
def test_no_token_vanishes(text: str) -> None:
    for token in mixed_tokens(text):
        assert phonemes([token]), token


@given(st.text(alphabet=string.ascii_lowercase + "'-é", min_size=1))
def test_no_word_vanishes(word: str) -> None:
    assert all(phonemes([token]) for token in mixed_tokens(word))


def test_a_phrase_is_read_as_pypinyin_reads_it() -> None:
    own_rules = frozenset(RESPELLED) | frozenset(SHORT_FORMS) | frozenset("两俩著")
    for phrase in sorted(phrase_words())[::40]:
        if own_rules.isdisjoint(phrase) and simplify(phrase) == phrase:
            syllables = lazy_pinyin(phrase, style=Style.NORMAL)
            units = [unit for syllable in syllables for unit in (to_initials(syllable), to_finals(syllable)) if unit]
            assert phonemes(list(phrase)) == units, phrase


def test_the_lexicon_is_whole() -> None:
    words = english._dictionary()
    assert len(words) == 125_112
    assert english.lookup("model") == ("M", "AA", "D", "AH", "L")
    assert {
        phone for word in words for code in words.get(word) or "" for phone in [english.PHONES[ord(code) - 65]]
    } == set(english.PHONES)


def test_the_lexicon_ships_with_its_licence() -> None:
    folder = english.resources.files("k2d.text") / "data"
    assert "Carnegie Mellon University" in (folder / "LICENSE.cmudict").read_text()
    assert gzip.decompress((folder / "cmudict.txt.gz").read_bytes()).startswith(b"a C\n")


def test_letter_to_sound_rules_come_close_to_the_lexicon() -> None:
    """Every 50th word: the rules miss about one phone in five (0.19), which is what keeps unknown words comparable."""
    words = [word for word in sorted(english._dictionary())[::50] if word.isalpha()]
    pairs = [(english.lookup(word) or (), letter_to_sound(word)) for word in words]
    edits = sum(Levenshtein.distance(known, ruled) for known, ruled in pairs)
    assert edits / sum(len(known) for known, _ in pairs) < 0.22

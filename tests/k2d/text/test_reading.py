"""Many texts at once: the same as each by itself, by the plain functions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_oracle import count_ngrams, mixed_tokens, normalise, sounds

from k2d.text.english import pronounce
from k2d.text.mandarin import longest_phrase, phrase_suffixes, pinyin_units
from k2d.text.numbers import read_numbers
from k2d.text.reading import count_windows, read_many
from k2d.text.sounds import ALONE, RESPELLED, SEPARATOR, decode, respell
from k2d.text.tokens import is_han
from k2d.text.trace import token_starts

TRICKY = "我們銀行長大還有得了重要一著名看著不行々二百分之十年兩個的都好"
WORDS = ["25", "3.5", "1,000", "twenty", "five", "a hundred and", "point", "gpt-4o", "1st", "don't", "model", "C++"]
SIGNS = [*"。，…％ßéΣカ가😀𠮷٣½", "(笑)", "【", "e\u0301", "\u200b", "ｶﾞ", "\n"]
texts = st.lists(st.sampled_from([*TRICKY, *WORDS, *SIGNS, " ", "謝謝大家" * 6]), max_size=25).map("".join)


def plain_phonemes(tokens: list[str]) -> list[str]:
    """Slow and simple: cut from the right by the longest phrase, and read each word by itself."""
    respelled = respell(tokens, [place for place, written in enumerate(tokens) if written in RESPELLED])
    read = list(read_numbers(respelled))
    units: list[str] = []
    end = len(read)
    while end:
        word, end = longest_phrase(read, end, phrase_suffixes())
        units[:0] = pinyin_units(word) if is_han(word) else decode(ALONE[word])
    return units


@settings(max_examples=150)
@given(st.lists(texts, min_size=1, max_size=5))
def test_each_text_reads_as_it_does_alone(batch: list[str]) -> None:
    readings = read_many(batch)
    for place, text in enumerate(batch):
        one, tokens = readings[place], mixed_tokens(text)
        assert one.normalised == normalise(text)
        assert list(one.tokens) == tokens
        assert list(one.phonemes) == plain_phonemes(tokens)
        assert one.repetition == count_ngrams(one.normalised)
        assert len(one.written) == len(tokens)


@settings(max_examples=150)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_any_text_reads_as_it_does_alone(batch: list[str]) -> None:
    readings = read_many(batch)
    assert readings.normalised == [normalise(text) for text in batch]
    assert [list(readings[place].tokens) for place in range(len(batch))] == [mixed_tokens(text) for text in batch]


@given(texts)
def test_tokens_know_where_they_begin(text: str) -> None:
    readings, traced = read_many(["你好", text]), token_starts(text)
    first, end = readings.bounds[1].tolist()
    assert readings.starts is not None
    starts = readings.starts[first:end].tolist()
    if traced is not None and -1 not in starts:
        assert starts == traced


def test_plain_speech_keeps_its_places() -> None:
    readings = read_many(["「我們用 PyTorch，don't 你？」"])
    assert readings.starts is not None
    assert readings.starts.tolist()[:-1] == [1, 2, 3, 5, 13, 19]


@given(st.lists(texts, min_size=2, max_size=4))
@settings(max_examples=60)
def test_nothing_is_read_across_texts(batch: list[str]) -> None:
    split = [mixed_tokens(text) for text in batch]
    together = sounds([token for tokens in split for token in (*tokens, SEPARATOR)])
    assert together == [sound for tokens in split for sound in (*sounds(tokens), "")]


def test_a_number_sounds_at_its_first_word_and_percent_at_its_last() -> None:
    assert [decode(one) for one in sounds(["twenty", "five", "年"])] == [
        ("er", "sh", "i", "u"),
        (),
        ("n", "ian"),
    ]
    assert [bool(one) for one in sounds(list("百分之二十"))] == [False, False, False, True, True]
    assert decode(sounds(list("百分之二十"))[4])[2:] == pronounce("percent")


@pytest.mark.parametrize("n", [2, 4, 6])
@given(st.lists(st.text(alphabet="ab我 ", max_size=20).map(normalise), min_size=1, max_size=4))
@settings(max_examples=40)
def test_windows_are_counted_within_their_group(n: int, batch: list[str]) -> None:
    readings = read_many(batch)
    newline = readings.codes == 10
    group = newline.cumsum()
    group[newline] = -1
    assert count_windows(readings.codes, group, len(batch), n=n) == [count_ngrams(text, n) for text in batch]


def test_words_have_one_code_each_and_the_same_everywhere() -> None:
    readings = read_many(["model 我 a", "a model modelling 我"])
    assert readings.written(0)[0] == readings.written(1)[1] != readings.written(1)[2]
    assert readings.written(0)[1:] == "我a"


def test_no_text_is_a_reading_too() -> None:
    [empty, blank] = (read_many(["", " 。"])[place] for place in range(2))
    assert (empty.tokens, empty.phonemes, empty.repetition, blank.normalised) == ((), (), 0, "")

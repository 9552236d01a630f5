"""Numbers read the same way however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import mixed_tokens, phonemes

from k2d.text.numbers import read_integer, read_numbers

READINGS = [
    (0, "零"),
    (7, "七"),
    (10, "十"),
    (12, "十二"),
    (20, "二十"),
    (100, "一百"),
    (105, "一百零五"),
    (110, "一百一十"),
    (999, "九百九十九"),
    (1000, "一千"),
    (1005, "一千零五"),
    (1050, "一千零五十"),
    (10_000, "一万"),
    (10_010, "一万零一十"),
    (12_000, "一万二千"),
    (100_001, "十万零一"),
    (10_000_000, "一千万"),
    (100_010_000, "一亿零一万"),
    (123_456_789, "一亿二千三百四十五万六千七百八十九"),
]

TEXTS = [
    ("2 個", "二 个"),
    ("twenty-five", "二 十 五"),
    ("25", "二 十 五"),
    ("two hundred and five", "二 百 零 五"),
    ("nineteen ninety-nine", "一 九 九 九"),
    ("1999", "一 九 九 九"),
    ("twenty twenty four", "二 零 二 四"),
    ("1250 1900", "一 千 二 百 五 十 一 千 九 百"),
    ("2000年", "二 零 零 零 年"),
    ("3.5", "三 点 五"),
    ("three point five", "三 点 五"),
    ("v2.0.1", "v 二 点 零 点 一"),
    ("20%", "二 十 percent"),
    ("百分之二十五的人", "二 十 五 percent 的 人"),
    ("百分之幾", "几 percent"),
    ("百分之", "百 分 之"),
    ("one two three", "一 二 三"),
    ("one and two", "一 and 二"),
    ("one hundred and", "一 百 and"),
    ("two thousand three thousand", "二 千 三 千"),
    ("3.5 million", "三 百 五 十 万"),
    ("a hundred a cat", "一 百 a cat"),
    ("nineteen hundred", "一 千 九 百"),
    ("1st 21st 100th", "first 二 十 first 一 百 th"),
    ("gpt-4o mp3 the 1990s", "gpt 四 o mp 三 the 一 九 九 零 's"),
    ("0912345678", "零 九 一 二 三 四 五 六 七 八"),
    ("300000000", "三 亿"),
    ("1234567890123", "一 二 三 四 五 六 七 八 九 零 一 二 三"),
    ("300 萬", "三 百 万"),
    ("point one point", "point 一 point"),
    ("一些 萬一", "一 些 万 一"),
]

SAME_SOUND = [
    ("2", "二", "兩", "two"),
    ("12", "十二", "twelve"),
    ("2024年", "二零二四年", "twenty twenty-four 年"),
    ("15.2 percent", "十五點二 percent", "百分之十五點二", "15.2%", "fifteen point two percent"),
    ("2 個", "兩個", "二個"),
    ("10,000", "一萬", "ten thousand"),
    ("1st place", "first place"),
]


@pytest.mark.parametrize(("value", "expected"), READINGS)
def test_integers(value: int, expected: str) -> None:
    assert read_integer(value) == expected


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_texts(text: str, expected: str) -> None:
    assert " ".join(read_numbers(mixed_tokens(text))) == expected


@pytest.mark.parametrize("texts", SAME_SOUND)
def test_one_number_has_one_sound(texts: tuple[str, ...]) -> None:
    assert len({tuple(phonemes(mixed_tokens(text))) for text in texts}) == 1


@given(st.integers(0, 10**12 - 1))
def test_every_integer_has_its_own_reading(value: int) -> None:
    assert _value(read_integer(value)) == value


def _value(reading: str) -> int:
    """Evaluate a Mandarin numeral, the other way round than it was made."""
    total = group = digit = 0
    for character in reading:
        if character in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(character)
        elif character in "十百千":
            group += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[character]
            digit = 0
        else:
            total += (group + digit) * {"万": 10**4, "亿": 10**8}[character]
            group = digit = 0
    return total + group + digit


@given(
    st.lists(
        st.sampled_from(
            [
                "one",
                "two",
                "ten",
                "twenty",
                "hundred",
                "thousand",
                "million",
                "trillion",
                "half",
                "oh",
                "万",
                "廿",
                "1990's",
                "0912-345-678",
                "and",
                "point",
                "a",
                "3",
                "3.5",
                "2nd",
                "年",
                "百",
                "分",
                "之",
                "x-1",
            ]
        )
    )
)
def test_no_sequence_of_number_words_is_lost(tokens: list[str]) -> None:
    assert bool(read_numbers(tokens)) == bool(tokens)
    assert all(read_numbers(tokens))

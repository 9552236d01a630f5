"""Loops and how far the n-gram rule sees them."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import repetition

from k2d.text.repetition import NGRAM, REPETITION_MAX, compression_ratio

THIRTY = "今天我們要介紹的是語音辨識模型的知識蒸餾方法以及它在混合語言上的應用"

TABLE = [
    ("", 0),
    ("你好", 0),
    ("一二三四五六", 1),
    (THIRTY, 1),  # one "long word" without spaces is not a loop
    ("謝謝大家" * 5, 4),
    ("謝謝大家" * 7, 6),
    ("謝謝大家，" * 7, 6),
    ("我想要說的是" * 6, 6),
    ("thank you. " * 6, 6),
    ("好" * 20, 15),
    ("你不想要我" * 60, 59),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_table(text: str, expected: int) -> None:
    assert repetition(text) == expected


@pytest.mark.parametrize("unit", ["謝謝", "謝謝大家", "我想要說的是", "字幕由社區提供喔"])
@given(times=st.integers(1, 40))
def test_a_loop_of_one_unit_counts_as_the_docstring_says(unit: str, times: int) -> None:
    windows = max(0, len(unit) * times - NGRAM + 1)
    period = 1 if unit == "謝謝" else len(unit)
    assert repetition(unit * times) == -(-windows // period)


def test_the_papers_limit() -> None:
    assert repetition("謝謝大家" * 6) <= REPETITION_MAX < repetition("謝謝大家" * 7)


@given(st.text(alphabet="ab好"), st.text(alphabet="ab好"))
def test_more_text_never_repeats_less(text: str, more: str) -> None:
    assert repetition(text + more) >= repetition(text)


@pytest.mark.parametrize("text", ["a", THIRTY, "la " * 100])
def test_compression_ratio_is_whispers(text: str) -> None:
    data = text.encode()
    assert compression_ratio(text) == len(data) / len(zlib.compress(data))


def test_compression_ratio_tells_loops_from_speech() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio(THIRTY) < 2.4 < compression_ratio("謝謝大家" * 20)

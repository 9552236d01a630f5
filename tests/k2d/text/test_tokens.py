"""Mixed tokens: a table, and the law that nothing vanishes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import mixed_tokens, normalise, split_normalised

from k2d.text.tokens import code_mixing_index, count_scripts, han_tokens, is_han, is_latin, latin_tokens

TABLE = [
    ("", []),
    ("我們用 PyTorch 來 train", ["我", "们", "用", "pytorch", "来", "train"]),
    ("GPU的batch size", ["gpu", "的", "batch", "size"]),
    ("don’t state-of-the-art", ["don't", "state-of-the-art"]),
    ("15.2 percent 的 20%", ["15.2", "percent", "的", "20", "percent"]),
    ("你好ABC123世界", ["你", "好", "abc123", "世", "界"]),
    ("〇々㐂𠮷", ["〇", "々", "㐂", "𠮷"]),
    ("カナ です", ["カ", "ナ", "で", "す"]),  # no spaces: a token a character
    ("안녕 세상 Привет мир", ["안녕", "세상", "привет", "мир"]),  # spaces: a token a word
    ("สวัสดี", ["ส", "ว", "ส", "ด"]),
    ("你안녕a", ["你", "안녕", "a"]),
    ("。，！", []),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_table(text: str, expected: list[str]) -> None:
    assert mixed_tokens(text) == expected


@given(st.text())
def test_no_visible_character_vanishes(text: str) -> None:
    normalised = normalise(text)
    assert "".join(split_normalised(normalised)) == normalised.replace(" ", "")


@given(st.text(alphabet="ab'-.1 你好カ안я"))
def test_scripts_do_not_overlap(text: str) -> None:
    tokens = mixed_tokens(text)
    assert not [token for token in tokens if is_han(token) and is_latin(token)]
    assert len(han_tokens(tokens)) + len(latin_tokens(tokens)) <= len(tokens)
    assert count_scripts(normalise(text)) == (len(han_tokens(tokens)), len(latin_tokens(tokens)))


def test_scripts_are_told_apart() -> None:
    tokens = mixed_tokens("我 love 台灣 3 次 カ")
    assert han_tokens(tokens) == ["我", "台", "湾", "次"]
    assert latin_tokens(tokens) == ["love", "3"]


@pytest.mark.parametrize(
    ("zh", "en", "expected"), [(0, 0, 0.0), (10, 0, 0.0), (0, 3, 0.0), (5, 5, 0.5), (3, 1, 0.25), (1, 3, 0.25)]
)
def test_code_mixing_index(zh: int, en: int, expected: float) -> None:
    assert code_mixing_index(zh, en) == expected

"""The written form for comparison: a table, and three laws."""

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import normalise

from k2d.text.normalise import clean

TABLE = [
    ("", ""),
    ("   ", ""),
    ("Hello, World!", "hello world"),
    ("那個 professor 上課很 nice，可是他的 exam 超難。", "那个 professor 上课很 nice 可是他的 exam 超难"),
    ("ＡＢＣ１２３", "abc123"),  # full-width forms
    ("乾燥 幹部 發現 頭髮 皇后 後來", "干燥 干部 发现 头发 皇后 后来"),
    ("<|zh|><|0.00|>你好<|2.00|>", "你好"),  # special tokens and timestamps
    ("[music] 好的 (laughs) ok", "好的 ok"),
    ("（笑）好［掌聲］的＜noise＞【音樂】〔雜音〕", "好 的"),
    ("a(b)c", "a c"),
    ("broken (bracket", "broken bracket"),
    ("《三國演義》「好」“yes”", "三国演义 好 yes"),
    ("don’t don't DON‘T", "don't don't don't"),
    ("'quoted' rock'n'roll students' '90s", "quoted rock'n'roll students 90s"),
    ("GPT-4o e‑mail well--known - dash -x x-", "gpt-4o e-mail well known dash x x"),
    ("AI-驅動 don'好", "ai 驱动 don 好"),
    ("3.5 15.2. v2.0.1 .5 5. amara.org", "3.5 15.2 v2.0.1 5 5 amara org"),
    ("1,000 12,345,678 1,2 3,4567", "1000 12345678 1 2 3 4567"),
    ("20% 3.5 % ％ 100％", "20 percent 3.5 percent 100 percent"),
    ("C++ C# F# A&B R & D a@b.com 3+5", "c plus plus c sharp f sharp a and b r and d a at b com 3 plus 5"),
    ("# & + @ %", ""),
    ("$5 ♪歌♪ ❤️ …", "5 dollars 歌"),
    ("café naïve Straße", "café naïve straße"),
    ("cafe\u0301", "café"),  # the accent was written apart
    ("zero\u200bwidth soft\u00adhyphen \ufeffmark", "zerowidth softhyphen mark"),
    ("한국어 カタカナ ｶﾀｶﾅ Привет ٣", "한국어 カタカナ カタカナ привет 3"),
    ("⑴ ① ㎏ Ⅳ ﬁne", "1 1 kg iv fine"),
    ("\ud800 broken surrogate \x00", "broken surrogate"),
    ("under_score tab\tnew\nline", "under score tab new line"),
    ("々〇", "々〇"),
]


@pytest.mark.parametrize(("written", "expected"), TABLE)
def test_table(written: str, expected: str) -> None:
    assert normalise(written) == expected


@given(st.text())
def test_any_text_is_normalised_once_and_for_all(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)))
def test_simplifying_twice_changes_nothing(text: str) -> None:
    once = normalise(text.replace("薴", ""))  # OpenCC's one chain: 薴 → 苧 → 苎
    assert normalise(once) == once


@given(st.text())
def test_letters_outside_brackets_survive(text: str) -> None:
    text = "".join(c for c in text if c not in "<>[]()＜＞［］（）【】〔〕" and unicodedata.category(c)[0] in "LN")
    assert bool(normalise(text)) == bool(text)


@pytest.fixture(scope="module")
def whispers() -> Callable[[str], str]:
    module = pytest.importorskip("transformers.models.whisper.english_normalizer", reason="needs the torch extra")
    return module.BasicTextNormalizer()  # type: ignore[no-any-return]


# a comma between digits, of either width, is a rule of ours: 1，000 → 1000
@given(
    text=st.text(alphabet='abcXYZ 你好們這，。！？!?;:"“”…é0123456789').filter(
        lambda t: not re.search("[0-9]，[0-9]", t)
    )
)
def test_equals_whispers_own_normaliser_where_no_rule_departs_from_it(
    whispers: Callable[[str], str], text: str
) -> None:
    assert clean(text) == whispers(text).strip()

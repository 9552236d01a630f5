"""What a text says against itself, and the benchmark that the default decision is held to."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reading_oracle import count_ngrams, mixed_tokens, normalise

from k2d.text.repetition import count_tokens
from k2d.text.suspicions import foreign_run, foreign_share, is_hallucination, loop_turns, suspicions, variety

ROOT = Path(__file__).parents[3]
TARGET = 0.96

REASONS = [
    ("", {}, ()),
    ("謝謝大家", {}, ()),
    ("謝謝大家" * 5, {}, ("loop", "phrase")),
    ("哈" * 12, {}, ()),
    ("請把門關上，" * 3 + "好，寫下來", {}, ()),
    ("請把門關上，" * 5 + "好，寫下來", {}, ("loop",)),
    ("字幕由 Amara.org 社區提供", {}, ("phrase",)),
    ("以下是普通話的句子。", {"prompt": "以下是普通話的句子。"}, ("echo",)),
    ("これはとても大切なことです", {}, ("foreign",)),
    ("當 α 等於 β，ㄅㄆㄇ 也一樣", {}, ()),
    ("我們今天先把第一章講完然後休息十分鐘再做練習", {"duration_s": 1.0}, ("crowded",)),
    ("我們今天先把第一章講完然後休息十分鐘再做練習", {"duration_s": 5.0}, ()),
    ("I'm sorry.", {"duration_s": 30.0}, ("sparse",)),
    ("I'm sorry.", {"duration_s": 1.0}, ()),
]


@pytest.mark.parametrize(("text", "context", "reasons"), REASONS)
def test_reasons(text: str, context: dict, reasons: tuple[str, ...]) -> None:  # type: ignore[type-arg]
    assert suspicions(text, **context).reasons == reasons
    assert is_hallucination(text, **context) == bool(reasons)


def test_facts() -> None:
    found = suspicions("我們看" + "這個值會變大" * 4, duration_s=9.0)
    assert (found.tokens, found.loops, found.loop_weight, found.tokens_per_s) == (27, 4, 18, 3.0)
    assert found.looping_share == 18 / 27
    assert found.crowding == pytest.approx(2.7 / 9)
    assert suspicions("我們看").tokens_per_s is None


@given(st.text() | st.text(alphabet="好的 a1。の"), st.floats(0.01, 30))
def test_any_text_is_allowed_and_shares_are_shares(text: str, duration_s: float) -> None:
    found = suspicions(text, prompt=text, duration_s=duration_s)
    for field in ("looping_share", "variety", "echo", "foreign_share"):
        assert 0.0 <= getattr(found, field) <= 1.0


@pytest.mark.parametrize(
    ("text", "share", "run"),
    [
        ("今天 OK", 0.0, 0),
        ("それ", 1.0, 2),
        ("我們看 модель", 0.25, 6),
        ("café 很好", 1 / 3, 0),  # Latin letters are no other script
        ("それで、私たちは走る", 7 / 9, 7),  # Han characters within Japanese
        ("おはよう是早安こんばんは是晚安", 9 / 15, 5),  # more than two tokens apart
        ("αβ 跟 ㄅ", 0.0, 0),
    ],
)
def test_foreign(text: str, share: float, run: int) -> None:
    tokens = mixed_tokens(text)
    assert foreign_share(tokens) == pytest.approx(share)
    assert foreign_run(tokens) == run


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("", 0),
        ("對對對對對", 0),
        ("加油" * 4, 0),
        ("謝謝大家" * 5, 5),
        ("你不想要我" * 44, 44),
        ("的" * 12, 12),
        ("請把書翻到下一頁" * 3, 3),
        ("，".join(f"第{number}步" for number in range(1, 20)), 19),
        ("我不知道我不想我不知道不想知道我不想我知道不知道我想不知道我不想我知道我不知道不想", 4),
    ],
)
def test_loop_turns(text: str, turns: int) -> None:
    assert suspicions(text).loop_turns == loop_turns(mixed_tokens(text)) == turns


# The same six tokens eight times, spaced in as many ways, with another word after each: a loop by its tokens alone.
SPACED = "a 好 b 再來c天a 好 b再來c地a 好b 再來c人a 好b再來c你a好 b 再來c我a好 b再來c他a好b 再來c山a好b再來c水"


@given(st.text(alphabet="ab好 一1", max_size=80))
@example(SPACED)
def test_tokens_alone_tell_of_loops(text: str) -> None:
    assert loop_turns(mixed_tokens(text)) == suspicions(text).loop_turns
    assert (loop_turns(mixed_tokens(text)) > 0) == ("loop" in suspicions(text).reasons)


def test_spaces_hide_no_loop() -> None:
    assert count_ngrams(normalise(SPACED)) == 2
    assert suspicions(SPACED).loop_turns == 8


def test_variety() -> None:
    assert variety([]) == variety(["好"]) == 1.0
    assert variety(["好"] * 21) == 1 / 20
    assert variety(list("一二三四")) == 1.0


@given(st.text(alphabet="ab好 ", max_size=80))
@example("a 好a好a好a好")  # the paper's counts this once, and its tokens are there twice
def test_the_token_count_is_never_above_the_papers_without_spaces(text: str) -> None:
    assert count_tokens(mixed_tokens(text)) <= count_ngrams(normalise(text).replace(" ", ""))


@given(st.text(alphabet="我你好是", max_size=60))
def test_for_chinese_the_token_count_is_the_papers(text: str) -> None:
    assert count_tokens(mixed_tokens(text)) == count_ngrams(normalise(text))


# ---- zh-hallu -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "bench" / "zh_hallu.py")))


def test_the_set_is_what_its_page_says(bench: SimpleNamespace) -> None:
    items = bench.load()
    assert len({item.id for item in items}) == len({(item.text, item.prompt) for item in items}) == len(items) >= 240
    assert 0.4 < sum(item.label for item in items) / len(items) < 0.6
    test = [item for item in items if item.split == "test"]
    assert 0.25 < len(test) / len(items) < 0.4
    assert {item.split for item in items} == {"dev", "test"}
    for item in items:
        assert item.text == item.text.strip() != ""
        assert 0 < item.duration_s <= 36
        assert item.note
        assert "echo" not in item.kind or item.prompt
    page = (ROOT / "docs" / "zh-hallu.md").read_text("utf-8")
    assert all(f"`{item.kind}`" in page for item in items), "docs/zh-hallu.md names every kind"


@pytest.mark.parametrize("split", ["dev", "test"])
def test_our_rules_reach_the_target(bench: SimpleNamespace, split: str) -> None:
    ours = bench.score(bench.ours, [item for item in bench.load() if item.split == split])
    assert ours.precision >= TARGET
    assert ours.recall >= TARGET


def test_the_rules_of_others_are_theirs(bench: SimpleNamespace) -> None:
    def item(text: str, duration_s: float = 2.0) -> object:
        return bench.Item("x", "dev", False, "x", text, duration_s, "x")

    assert bench.repeated_words(item("yes yes yes yes yes"))
    assert not bench.repeated_words(item("this is a normal sentence"))
    assert bench.long_word(item("今天我們要介紹的是語音辨識模型的知識蒸餾方法以及它在混合語言上的應用"))
    assert bench.long_word(item("a bb ccccccccc"))
    assert not bench.long_word(item("short words only"))
    assert bench.few_characters(item("好", 5.0))
    assert bench.substrings(item("他說謝謝觀看然後就走了"))
    assert bench.zlib_ratio(item("謝謝大家" * 20))
    assert bench.ngram(item("謝謝大家" * 7))
    assert not bench.ngram(item("謝謝大家" * 5))


def test_the_report_has_a_row_for_every_rule_and_kind(bench: SimpleNamespace) -> None:
    items = bench.load()
    report = bench.report(items)
    assert all(f"| {name} |" in report for name in bench.RULES)
    assert all(f"| {item.kind} |" in report for item in items)

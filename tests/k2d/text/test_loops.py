"""Loops of mixed tokens: found where they are, counted, written once."""

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import mixed_tokens

from k2d.text.loops import (
    LEAST_TOKENS,
    LEAST_TURNS,
    Loop,
    count_loops,
    count_up,
    find_loops,
    unloop,
)

SPEECH = "今天我們要介紹的是語音辨識模型的知識蒸餾方法以及它在混合語言上的應用"

TURNS = [
    ("", 0),
    ("好", 1),
    (SPEECH, 1),
    ("看看", 1),
    ("對對對對對", 1),  # five tokens
    ("對對對對對對", 6),
    ("謝謝大家" * 5, 5),
    ("謝謝大家，" * 2, 1),
    ("thank you " * 3, 3),
    ("learning rate 太大，learning rate 太小，learning rate 剛好", 1),  # not in a row
    (SPEECH + "我們繼續" * 4 + SPEECH, 4),
]

UNLOOPED = [
    ("", ""),
    (SPEECH, SPEECH),
    ("好" * 20, "好"),
    ("我們看" + "這個值會變大" * 7, "我們看這個值會變大"),
    ("這是問題" * 3 + "這是", "這是問題"),  # cut in the middle of a turn
    ("要 call 一次" * 4 + "要 call 兩次", "要 call 一次 要 call 兩次"),  # what follows is no turn
    ("好" * 8 + "我們走" + "快" * 9, "好我們走快"),
    ("對對對，看看，慢慢走", "對對對，看看，慢慢走"),
]


@pytest.mark.parametrize(("text", "turns"), TURNS)
def test_turns(text: str, turns: int) -> None:
    assert count_loops(mixed_tokens(text)) == turns


@pytest.mark.parametrize(("text", "once"), UNLOOPED)
def test_unloop(text: str, once: str) -> None:
    assert unloop(mixed_tokens(text)) == mixed_tokens(once)


def test_the_unit_is_the_shortest_and_the_loop_the_longest() -> None:
    assert find_loops(["好"] * 20) == (Loop(0, 20, 1),)
    assert find_loops(list("哈哈哈哈哈哈你好" * 3)) == (Loop(0, 24, 8),)


@given(st.lists(st.sampled_from("ab"), max_size=24) | st.lists(st.sampled_from("abc"), max_size=40))
def test_a_loop_is_found_exactly_when_there_is_one(tokens: list[str]) -> None:
    expected = any(
        tokens[start : start + period] * turns == tokens[start : start + period * turns]
        for start in range(len(tokens))
        for period in range(1, (len(tokens) - start) // LEAST_TURNS + 1)
        for turns in [max(LEAST_TURNS, -(-LEAST_TOKENS // period))]
        if start + period * turns <= len(tokens)
    )
    assert bool(find_loops(tokens)) == expected


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_loops_are_what_they_say(tokens: list[str]) -> None:
    done = 0
    for loop in find_loops(tokens):
        assert done <= loop.start < loop.end <= len(tokens)
        unit = tokens[loop.start : loop.start + loop.period]
        assert tokens[loop.start : loop.end] == (unit * (loop.turns + 1))[: loop.end - loop.start]
        assert loop.turns >= LEAST_TURNS
        assert loop.end - loop.start >= LEAST_TOKENS
        done = loop.end
    assert len(unloop(tokens)) == len(tokens) - sum(loop.surplus for loop in find_loops(tokens))


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("第一步，第二步，第三步，第四步，第五步，第六步，第七步，第八步，第九步，第十步，第十一步", 11),
        ("1. 好 2. 好 3. 好 4. 好 5. 好 6. 好 7. 好 8. 好 9. 好 10. 好", 10),
        ("第一步，第二步，第三步", 0),  # too few numbers to be looked at
        ("一二三四五六七八九十一二三四五六", 0),
        ("電話是零九一二三四五六七八，分機二二三三", 0),
        (SPEECH, 0),
        ("", 0),
    ],
)
def test_counting(text: str, turns: int) -> None:
    assert count_up(mixed_tokens(text)) == turns


@pytest.mark.parametrize("text", ["好" * 4000, "好的" * 2000, SPEECH * 100, ("好" * 7 + "的") * 400])
def test_long_loops_take_no_time(text: str) -> None:
    tokens = mixed_tokens(text)
    assert timeit.timeit(lambda: find_loops(tokens), number=1) < 5

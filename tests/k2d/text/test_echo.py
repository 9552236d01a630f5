"""Texts that say their prompt again, and texts that only talk about the same."""

import pytest

from k2d.text.echo import echo, terms_share

TERMS = "這堂課的詞彙：反向傳播、gradient descent、learning rate、注意力機制"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("以下是普通話的句子。", "以下是普通話的句子。"),
        ("以下是普通话的句子", "以下是普通話的句子。"),  # another script
        ("反向傳播、gradient descent、learning rate", TERMS),
        ("注意力機制、反向傳播、learning rate", TERMS),  # another order
        ("overfitting, dropout, early stopping", "terms: overfitting, dropout, early stopping, pruning"),
    ],
)
def test_echoes(text: str, prompt: str) -> None:
    assert echo(text, prompt) > 0.9


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("", ""),
        ("以下是普通話的句子", ""),
        ("", TERMS),
        ("。。。", TERMS),
        ("今天天氣很好，我們出去走走吧", TERMS),
        ("learning rate", TERMS),  # too short to tell
        ("好的，沒問題", "那就麻煩你了。好的，沒問題。"),
    ],
)
def test_nothing_to_tell(text: str, prompt: str) -> None:
    assert echo(text, prompt) == 0.0


def test_using_the_terms_is_no_echo() -> None:
    assert 0.0 < echo("反向傳播其實就是 chain rule，learning rate 決定你一步走多遠", TERMS) < 0.5


def test_more_of_the_prompt_is_more_echo() -> None:
    whole, half = "我們先看第一行再看第二行", "我們先看第一行然後休息十分鐘"
    assert echo(half, whole) < echo(whole, whole) == 1.0


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0.0),
        (["ntu", "cool"], 1.0),
        (["loss", "ntu", "cool", "loss"], 1.0),  # in any order, and again
        (["ntu"], 1.0),  # half of a term
        (["cool", "ntu", "ok", "ok"], 0.5),
        (["反", "向"], 0.0),  # half of one in Han characters: 反 and 向 are in other words too
        (["反", "向", "傳", "播", "loss"], 1.0),
        (["loss", "is", "loss", "ok"], 0.5),
    ],
)
def test_the_share_of_whole_terms(tokens: list[str], share: float) -> None:
    terms = {("ntu", "cool"), ("loss",), ("反", "向", "傳", "播"), ()}
    assert terms_share(tokens, terms) == share

"""Terms: how a list is read, the prompt it becomes, and what a prompt's terms are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.errors import BadRequest
from k2d.text.terms import MAX_CHARACTERS, parse_terms, shorter_prompts, terms_of, terms_prompt


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        ("NTU COOL", ("NTU COOL",)),
        ("a, b,c", ("a", "b", "c")),
        ("a\nb\r\nc\rd\n\n", ("a", "b", "c", "d")),
        ("\ufeffa\r\nb", ("a", "b")),
        ("反向傳播、梯度，損失；權重", ("反向傳播", "梯度", "損失", "權重")),
        ("  NTU \t COOL , loss ", ("NTU COOL", "loss")),
        ("loss, loss, Loss", ("loss", "Loss")),
        ("C++, C#, .NET, R&D", ("C++", "C#", ".NET", "R&D")),
        ("trade-off, don't, O'Neil", ("trade-off", "don't", "O'Neil")),
    ],
)
def test_one_term_a_line_or_commas(text: str, terms: tuple[str, ...]) -> None:
    assert parse_terms(text) == terms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" ", "no term"),
        (",\n、", "no term"),
        ("\ufeff\r\n", "no term"),
        ("--, ++", "no term"),
        ("a, <|endoftext|>", "special token"),
        ("PK\x03\x04", "control character"),
        ("a\x00b", "control character"),
        ("\ud800", "control character"),
    ],
)
def test_what_is_no_list_of_terms_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        parse_terms(text)
    assert caught.value.hint


def test_where_chinese_is_spoken_the_prompt_is_chinese() -> None:
    for language in ("zh-en", "zh", "yue"):
        assert terms_prompt(["NTU COOL", "loss"], language=language) == "這段錄音會提到：NTU COOL、loss。"
    for language in ("en", "de", "auto"):
        assert terms_prompt(["NTU COOL", "loss"], language=language) == "NTU COOL, loss"
    assert terms_prompt([], language="zh") is None


TERM = st.from_regex(r"[a-zA-Z\u4e00-\u4e20]{1,12}( [a-z]{1,8}){0,2}", fullmatch=True)


@given(st.lists(TERM, unique=True), st.sampled_from(["zh-en", "en"]))
def test_a_prompt_has_its_terms_and_is_cut_between_them(terms: list[str], language: str) -> None:
    prompt = terms_prompt(terms, language=language) or ""
    assert parse_terms("\n".join(terms)) == terms_of(prompt) == tuple(terms)
    assert shorter_prompts(prompt) == [
        terms_prompt(terms[:number], language=language) for number in range(1, len(terms))
    ]


def test_a_prompt_is_bounded_by_whole_terms() -> None:
    terms = [f"term {number}" for number in range(5000)]
    prompt = terms_prompt(terms, language="zh") or ""
    assert MAX_CHARACTERS - 20 < len(prompt) <= MAX_CHARACTERS
    kept = terms_of(prompt)
    assert list(kept) == terms[: len(kept)]

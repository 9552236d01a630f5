"""JSON and YAML of strangers: a value, or one error."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k2d.foreign import MOST_NESTED, Unparsable, parse_json, parse_yaml


def test_what_is_right_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, null]}') == parse_yaml("a: [1, 2.5, null]") == {"a": [1, 2.5, None]}
    assert parse_yaml("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}
    assert parse_yaml("[" * MOST_NESTED + "]" * MOST_NESTED)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "9" * 5000, "[" * 100_000, '{"a":' * 100_000, "", "{", b"\xff"])
def test_what_is_not_json_is_one_error(text: str | bytes) -> None:
    with pytest.raises(Unparsable):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    ["a: 2001-13-45", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "? {a: b}\n: c",
     "a: [", "\t", "!!python/object:os.system x", "[" * (MOST_NESTED + 1) + "]" * (MOST_NESTED + 1), "{" * 3000,
     "a: *x", "\x00"],
)  # fmt: skip
def test_what_is_not_yaml_is_one_error(text: str) -> None:
    with pytest.raises(Unparsable) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


@given(
    st.text(st.characters(codec=None), max_size=60) | st.text("{}[]:,!&*?|>%@-0123456789.eE_xoTZ \n\"'", max_size=40)
)
@example("1:_")
@example("\ud800")
def test_any_text_is_a_value_or_unparsable(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text)
        except Unparsable as error:
            str(error).encode()

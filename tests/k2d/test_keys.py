import pytest

from k2d.keys import digest
from k2d.schema import DecodeOptions, LongformOptions


def test_equal_values_have_equal_keys():
    assert digest("label", 1, LongformOptions()) == digest("label", 1, LongformOptions(decode=DecodeOptions()))
    assert len(digest("x")) == 32


@pytest.mark.parametrize(
    "other",
    [
        LongformOptions(decode=DecodeOptions(language="zh")),
        LongformOptions(decode=DecodeOptions(temperatures=(0.0,))),
        LongformOptions(condition_on_previous_text=True),
    ],
)
def test_any_option_changes_the_key(other):
    assert digest("label", LongformOptions()) != digest("label", other)


def test_parts_do_not_run_together():
    assert digest("a", "bc") != digest("ab", "c")


def test_what_has_no_canonical_form_is_refused():
    with pytest.raises(TypeError, match="object"):
        digest(object())

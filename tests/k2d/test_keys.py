"""Keys and ids: equal inputs give equal keys; the ids of chunks and segments are made and read in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.errors import NotFound
from k2d.keys import chunk_id, chunk_of, digest, place_of, segment_id
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


# ---- ids ----------------------------------------------------------------------------------------------------------

KEY = digest("facts", 1)


def test_ids_look_as_they_always_did():
    assert chunk_id(KEY, 3) == f"{KEY}-00003"
    assert segment_id(chunk_id(KEY, 3), 2) == f"{KEY}-00003.002"


@given(st.from_regex(r"[0-9A-Za-z]+", fullmatch=True), st.integers(0, 10**7), st.integers(0, 10**5))
def test_ids_lead_back_to_their_places(key, index, number):
    chunk = chunk_id(key, index)
    assert place_of(chunk) == (key, index, None)
    assert chunk_of(chunk) == (key, index)
    segment = segment_id(chunk, number)
    assert place_of(segment) == (key, index, number)
    with pytest.raises(NotFound, match="not the id of a chunk"):
        chunk_of(segment)


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_chunks_sort_as_they_follow_one_another(first, second):
    assert (chunk_id(KEY, first) < chunk_id(KEY, second)) == (first < second)


@given(st.text(max_size=60))
def test_what_is_read_as_an_id_is_one(text):
    """Whatever else is written: refused, with a hint that says what ids look like."""
    try:
        place = place_of(text)
    except NotFound as error:
        hint = error.hint
    else:
        chunk, hint = chunk_id(place.facts_key, place.chunk), None
        assert text == (chunk if place.segment is None else segment_id(chunk, place.segment))
    assert hint is None or "00003.002" in hint


@pytest.mark.parametrize(
    "bad",
    [
        "",
        KEY,
        f"{KEY}-3",
        f"{KEY}-0003",
        f"{KEY}-000003",
        f"{KEY}-00003.",
        f"{KEY}-00003.0002",
        f"{KEY}-00003.2",
        f"{KEY}-00003.002.1",
        f"{KEY}-00003/2",
        f"{KEY}-00003.002\n",
        f"../{KEY}-00003",
        f" {KEY}-00003",
        f"{KEY}-00003,{KEY}-00004",
        f"{KEY}--0003",
        "-00003",
        "ａ-00003",
        f"{KEY}-٠٠٠٠٣",
    ],
)
def test_what_is_no_id_is_refused(bad):
    for read in (place_of, chunk_of):
        with pytest.raises(NotFound, match="not the id"):
            read(bad)

"""Counting errors: the house's mixed tokens, switch points by hand, properties that must hold for any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d.filtering.distance import counts
from k2d.schema import Counts
from k2d.text.reading import read
from trainer.evaluation.boundaries import languages, points_of_interest, switch_tokens, switches
from trainer.evaluation.error_rates import METRICS, bucket, count_errors, embedded_language, language_of, pool

WORDS = ["model", "loss", "gpu", "我", "們", "好", "的", "3", "20", "カ"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
han = st.text("我們好的了在", max_size=12)
latin = st.lists(st.sampled_from(["model", "loss", "gpu", "the"]), max_size=10).map(" ".join)


@pytest.mark.parametrize(
    ("sentence", "spoken", "boundaries"),
    [
        ("", "", set()),
        ("我們好", "zzz", set()),
        ("the loss", "ee", set()),
        ("我用 model 算", "zzez", {2, 3}),
        ("我 gradient descent 好", "zeez", {1, 3}),
        ("拿 3 個", "zzz", set()),  # a number is no switch …
        ("GPU 3 個", "eez", {2}),  # … and takes the language before it
        ("20 percent 的", "eez", {2}),  # or of the first word
        ("3 5", "oo", set()),  # numbers alone are in no language
        ("我カ model", "zoe", set()),  # what lies between is neither
        ("I 我 I", "eze", {1, 2}),
    ],
)
def test_switch_points_by_hand(sentence: str, spoken: str, boundaries: set[int]) -> None:
    tokens = read(sentence).tokens
    found = languages(tokens)
    assert found == tuple({"z": "zh", "e": "en", "o": ""}[letter] for letter in spoken)
    assert switches(found) == boundaries
    assert switch_tokens(found) == {token for at in boundaries for token in (at - 1, at)}


def test_points_of_interest_are_the_embedded_words_of_mixed_sentences() -> None:
    mixed = languages(read("我們 review 一下 3 個 gradient").tokens)
    assert points_of_interest(mixed, "en") == {2, 7}
    assert points_of_interest(mixed, "zh") == {0, 1, 3, 4, 5, 6}  # 3 among them: it follows 下
    assert not points_of_interest(languages(read("only English").tokens), "en")


def test_the_embedded_language_is_decided_over_the_whole_set() -> None:
    assert embedded_language(["我們 review 一下", "I think 好 is enough for me"]) == "zh"
    assert embedded_language(["我們 review 一下", "I think so"]) == "en"  # monolingual sentences have no say
    assert embedded_language([]) == "en"


SAID = "我們 review 一下 gradient descent 的部分"  # 我 們 review 一 下 gradient descent 的 部 分


@pytest.mark.parametrize(
    ("text", "metric", "expected"),
    [
        (SAID, "mer", (10, 0, 0, 0)),
        ("", "mer", (0, 0, 10, 0)),
        # near a switch: 們 review 一 下 gradient descent 的
        (SAID, "switch", (7, 0, 0, 0)),
        ("他們 review 一下 gradient descent 的部份", "switch", (7, 0, 0, 0)),  # errors elsewhere
        ("我們 review 一下 great descent 的部分", "switch", (6, 1, 0, 0)),
        ("我們一下 gradient descent 的部分", "switch", (6, 0, 1, 0)),
        ("我們 to review 一下 gradient descent 的部分", "switch", (7, 0, 0, 1)),  # in the boundary
        ("我們 review 一下 gradient the descent 的部分", "switch", (7, 0, 0, 0)),  # inside the English
        # words of the embedded language: review gradient descent
        ("我們 review 一下 great the descent 的部分", "poi", (2, 1, 0, 1)),
        ("我們 review 一下 gradient descent 的很部分", "poi", (3, 0, 0, 0)),
        ("我們複習一下梯度下降的部分", "poi", (0, 3, 0, 3)),  # translated: 6 characters for 3 words
        # by script: taken out first, or attributed by the one alignment
        ("我們 view 一下 gradient 的部分 okay", "en_wer", (1, 2, 0, 0)),
        ("我們 view 一下 gradient 的部分 okay", "en_wer_aligned", (1, 1, 1, 1)),
        ("我們 view 一下 gradient 的部分 okay", "zh_cer", (7, 0, 0, 0)),
        ("我們 view 一下 gradient descent 地不分", "zh_cer_aligned", (5, 2, 0, 0)),
    ],
)
def test_counts_by_hand(text: str, metric: str, expected: tuple[int, int, int, int]) -> None:
    assert count_errors([SAID], text).of(metric) == Counts(*expected)


def test_the_nearest_way_to_write_what_was_said_counts() -> None:
    written, spoken = "晚上 12 點", "晚上十二點"
    assert count_errors([written, spoken], "晚上12點").mixed.edits == 0
    assert count_errors([written, spoken], "晚上十二點").mixed.edits == 0
    assert count_errors([written], "晚上十二點").mixed.edits == 2
    with pytest.raises(ValueError, match="reference"):
        count_errors([], "x")


def test_where_nothing_is_said_every_token_is_an_insertion() -> None:
    errors = count_errors([""], "謝謝 you")
    assert not errors.has_speech
    assert errors.has_text
    assert errors.mixed == Counts(insertions=3)
    assert errors.of("mer_speech") == Counts()
    assert not count_errors([""], "……").has_text


def test_loops_are_counted_by_stretch() -> None:
    loop = "一二三四五六" * 6
    assert count_errors([SAID], loop).loops == 1
    assert count_errors([SAID], loop * 2, stretches=[loop, loop, SAID]).loops == 2
    assert count_errors([SAID], SAID).loops == 0


@pytest.mark.parametrize(
    ("text", "name", "language"),
    [
        ("", None, "none"),
        ("我們好", "0", "zh"),
        ("hello", "0", "en"),
        ("一二三四五六七八九 ok", "(0, 0.1]", "zh-en"),
        ("一二三 ok", "(0.1, 0.25]", "zh-en"),
        ("好 ok", "(0.25, 0.5]", "zh-en"),
    ],
)
def test_buckets_and_languages(text: str, name: str | None, language: str) -> None:
    assert bucket(text) == name
    assert language_of(text) == language


@settings(max_examples=200, deadline=None)
@given(reference=han, hypothesis=han)
def test_without_latin_mer_is_cer(reference: str, hypothesis: str) -> None:
    errors = count_errors([reference], hypothesis)
    assert errors.mixed == errors.zh_filtered == errors.zh_aligned
    assert errors.en_filtered == errors.en_aligned == errors.switch == errors.interest_en == Counts()


@settings(max_examples=200, deadline=None)
@given(reference=latin, hypothesis=latin)
def test_without_han_mer_is_wer(reference: str, hypothesis: str) -> None:
    errors = count_errors([reference], hypothesis)
    assert errors.mixed == errors.en_filtered == errors.en_aligned
    assert errors.zh_filtered == errors.zh_aligned == errors.switch == Counts()


@settings(max_examples=300, deadline=None)
@given(reference=texts, hypothesis=texts)
def test_parts_never_exceed_the_whole(reference: str, hypothesis: str) -> None:
    errors = count_errors([reference], hypothesis)
    whole = errors.mixed
    assert whole == counts(read(reference).tokens, read(hypothesis).tokens)
    for part in (errors.switch, errors.interest_zh, errors.interest_en, errors.zh_aligned, errors.en_aligned):
        for field in ("hits", "substitutions", "deletions", "insertions"):
            assert 0 <= getattr(part, field) <= getattr(whole, field)
    spoken = languages(read(reference).tokens)
    assert errors.switch.reference_length == len(switch_tokens(spoken)) <= len(spoken)
    both = errors.interest_zh.reference_length + errors.interest_en.reference_length
    assert both in (0, len([language for language in spoken if language]))
    if "カ" not in reference + hypothesis:  # no third script: the two share out every edit
        assert errors.zh_aligned.edits + errors.en_aligned.edits == whole.edits


@given(pairs=st.lists(st.tuples(texts, texts), max_size=5))
def test_pooled_counts_are_sums(pairs: list[tuple[str, str]]) -> None:
    all_errors = [count_errors([reference], hypothesis) for reference, hypothesis in pairs]
    for metric in METRICS:
        assert pool(all_errors, metric).edits == sum(errors.of(metric).edits for errors in all_errors)

"""Counts of edits against an independent oracle, whose segment they are in, and how a difference is shown."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_oracle import mixed_tokens

from k2d.filtering.distance import DiffOp, aligned_diff, compare, counts, counts_by_segment
from k2d.schema import Counts
from k2d.text.tokens import han_tokens, latin_tokens

sequences = st.lists(st.sampled_from(["我", "你", "model", "a", "b"]), max_size=12)
speech = st.text(alphabet="我你好謝天銀行ab c'1，。", max_size=30)


@given(sequences.filter(bool), sequences.filter(bool))
def test_counts_agree_with_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    oracle = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    ours = counts(reference, hypothesis)
    assert ours == Counts(oracle.hits, oracle.substitutions, oracle.deletions, oracle.insertions)
    assert ours.rate == pytest.approx(oracle.wer)


@given(sequences, sequences)
def test_counts_add_up_and_edits_are_symmetric(reference: list[str], hypothesis: list[str]) -> None:
    there, back = counts(reference, hypothesis), counts(hypothesis, reference)
    assert (there.reference_length, there.hypothesis_length) == (len(reference), len(hypothesis))
    assert there.edits == back.edits
    assert there.bounded == back.bounded <= 1
    assert (there.edits == 0) == (reference == hypothesis)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate", "bounded"),
    [([], [], 0, 0), ([], ["a", "b"], 2, 1), (["a", "b"], [], 1, 1), (["a"], ["a", "b", "c"], 2, 2 / 3)],
)
def test_empty_sides_and_lopsided_ones(
    reference: list[str], hypothesis: list[str], rate: float, bounded: float
) -> None:
    assert counts(reference, hypothesis).rate == rate
    assert counts(reference, hypothesis).bounded == pytest.approx(bounded)


@given(st.text(alphabet="我你好謝天，"), st.text(alphabet="我你好謝天，"))
def test_without_latin_the_mixed_error_rate_is_the_character_error_rate(teacher: str, validator: str) -> None:
    assert compare(teacher, [validator]).mixed == counts(
        han_tokens(mixed_tokens(validator)), han_tokens(mixed_tokens(teacher))
    )


@given(st.text(alphabet="ab '-1,"), st.text(alphabet="ab '-1,"))
def test_without_han_the_mixed_error_rate_is_the_word_error_rate(teacher: str, validator: str) -> None:
    assert compare(teacher, [validator]).mixed == counts(
        latin_tokens(mixed_tokens(validator)), latin_tokens(mixed_tokens(teacher))
    )


def test_homophones_cost_mixed_tokens_but_no_phonemes() -> None:
    d = compare("他在公式", ["她再攻勢"])
    assert d.mixed.substitutions == 4
    assert d.phonemes.edits == 0


def test_unknown_words_do_not_vanish_from_phonemes() -> None:
    d = compare("我用 kubernetes", ["我用"])
    assert d.phonemes.insertions >= 8


def test_counts_are_summed_over_perturbations_and_the_least_loop_counts() -> None:
    loop, fine = "我想要說的是" * 10, "我想要說的是這個"
    d = compare(fine, [loop, fine])
    assert d.mixed == counts(mixed_tokens(loop), mixed_tokens(fine)) + counts(mixed_tokens(fine), mixed_tokens(fine))
    assert d.validator_repetition == 1
    assert compare(fine, [loop]).validator_repetition == 10


def test_what_else_the_rules_look_at() -> None:
    d = compare("字幕由 Amara.org 社區提供", [""])
    assert d.phrase == "字幕由 Amara.org 社区提供"
    assert (d.zh_tokens, d.en_tokens) == (7, 2)
    assert compare("謝謝大家" * 7, ["x"]).teacher_repetition == 6


def test_a_comparison_needs_a_validators_text() -> None:
    with pytest.raises(ValueError, match="at least one"):
        compare("你好", [])


# ---- where the edits are ------------------------------------------------------------------------------------------


def test_edits_belong_to_the_segment_they_are_in() -> None:
    good, bad, extra = counts_by_segment(
        ["今天天氣很好", " 我們用 transformer", " 謝謝"], "今天天氣很好我們用船謝謝你喔"
    )
    assert good == Counts(hits=6)
    assert bad == Counts(hits=3, substitutions=1)
    assert extra == Counts(hits=2, deletions=2)


@given(st.lists(st.lists(st.sampled_from("我你好天a"), max_size=5).map("".join), min_size=1, max_size=4), speech)
def test_segments_add_up_to_the_chunk(segments: list[str], validator: str) -> None:
    whole = counts(mixed_tokens(validator), [token for text in segments for token in mixed_tokens(text)])
    assert sum(counts_by_segment(segments, validator), Counts()) == whole


def test_attribution_needs_a_segment() -> None:
    with pytest.raises(ValueError, match="at least one segment"):
        counts_by_segment([], "你好")


def test_diff_shows_what_was_written() -> None:
    diff = aligned_diff("我們用 PyTorch 來 train，OK？", "我们用 torch 来 train 一个")
    assert [(part.op, part.teacher_text, part.validator_text) for part in diff] == [
        (DiffOp.EQUAL, "我們用 ", "我们用 "),
        (DiffOp.SUBSTITUTE, "PyTorch ", "torch "),
        (DiffOp.EQUAL, "來 train，", "来 train "),
        (DiffOp.SUBSTITUTE, "OK？", "一"),
        (DiffOp.DELETE, "", "个"),
    ]
    assert diff[0].teacher == diff[0].validator == ("我", "们", "用")


@given(
    st.text(alphabet="我們謝 aB'’-.,1%+&#(（)）<>「，。é㎏", max_size=25),
    st.text(alphabet="我們謝 aB'’-.,1%+&#(（)）<>「，。é㎏", max_size=25),
)
def test_diff_gives_both_texts_back_and_the_edits_of_counts(teacher: str, validator: str) -> None:
    diff = aligned_diff(teacher, validator)
    teacher_tokens, validator_tokens = mixed_tokens(teacher), mixed_tokens(validator)
    assert [token for part in diff for token in part.teacher] == teacher_tokens
    assert [token for part in diff for token in part.validator] == validator_tokens
    if teacher_tokens:
        assert "".join(part.teacher_text for part in diff) == teacher
    if validator_tokens:
        assert "".join(part.validator_text for part in diff) == validator
    edits = sum(max(len(part.teacher), len(part.validator)) for part in diff if part.op is not DiffOp.EQUAL)
    assert edits == counts(validator_tokens, teacher_tokens).edits


def test_diff_of_text_that_cannot_be_traced_shows_tokens() -> None:
    [part] = aligned_diff("Cafe\u0301 好", "café 好")
    assert (part.op, part.teacher_text, part.validator_text) == (DiffOp.EQUAL, "café 好", "café 好")
    [part] = aligned_diff("Cafe\u0301 好", "Cafe\u0301 好")  # where nothing differs nothing is traced
    assert (part.op, part.teacher, part.teacher_text) == (DiffOp.EQUAL, ("café", "好"), "Cafe\u0301 好")


def test_diff_of_nothing_is_nothing() -> None:
    assert aligned_diff("", "。") == ()

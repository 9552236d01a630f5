"""What a label should have been: references of clips, stretches of timelines, edits of segments."""

import dataclasses

import pytest
from labeled import chunk_facts
from reading_oracle import mixed_tokens

from trainer.study.material import Sentence
from trainer.study.truth import nearest_stretch, teacher_text, truth_of_clip, truth_of_span

TIMELINE = (
    Sentence(0.0, 4.0, ("第一句話在這裡",)),
    Sentence(4.5, 9.0, ("第二句話有 2 個字", "第二句話有二個字")),
    Sentence(9.5, 14.0, ("第三句話在後面",)),
)


def label(text, start_s, end_s):
    """Facts of a label that spans [start_s, end_s)."""
    return dataclasses.replace(chunk_facts(0, text, (text,)), start_s=start_s, end_s=end_s, teacher_text=text)


def test_the_nearer_form_of_a_clip_s_reference_counts():
    found = truth_of_clip(chunk_facts(0, "我有二個", ("我有二個",)), ("我有 2 個蘋果 謝謝", "我有二個 謝謝"))
    assert found.reference == "我有二個 謝謝"
    assert found.errors.mixed.edits == 0
    assert [one.edits for one in found.segments] == [0, 0]


def test_a_segment_s_edits_are_its_own():
    found = truth_of_clip(chunk_facts(0, "今天田氣很好", ("",)), ("今天天氣很好 謝謝大家",))
    assert found.errors.mixed.edits == 3
    assert [one.edits for one in found.segments] == [1, 2]


def test_where_nothing_is_said_every_token_is_an_edit():
    found = truth_of_clip(chunk_facts(0, "字幕", ("",)), ("",))
    assert (found.errors.mixed.edits, found.errors.mixed.reference_length) == (4, 0)


def test_a_stretch_is_what_its_span_covers():
    assert truth_of_span(label("第二句話有二個字", 4.5, 9.0), TIMELINE).errors.mixed.edits == 0
    # timestamps half a second off change nothing
    assert truth_of_span(label("第二句話有二個字", 4.1, 9.4), TIMELINE).errors.mixed.edits == 0


def test_a_sentence_inside_that_the_label_lacks_counts():
    found = truth_of_span(label("第一句話在這裡", 0.0, 9.0), TIMELINE)
    assert found.errors.mixed.deletions == len(mixed_tokens("第二句話有二個字"))


def test_of_a_sentence_that_is_cut_any_part_may_be_inside():
    found = truth_of_span(label("在這裡第二句話有二個字第三", 2.0, 11.0), TIMELINE)
    assert found.errors.mixed.edits == 0
    assert found.errors.mixed.reference_length == 13
    inside = truth_of_span(label("話有", 5.5, 6.5), TIMELINE)  # a span within one sentence
    assert (inside.errors.mixed.edits, inside.errors.mixed.reference_length) == (0, 2)


def test_speech_in_music_has_no_reference():
    found = truth_of_span(label("我想要你", 20.0, 25.0), TIMELINE)
    assert not found.errors.has_speech
    assert found.errors.mixed.edits == 4


# ---- the teacher's own texts --------------------------------------------------------------------------------------


def test_a_label_of_the_teacher_has_no_other_text():
    facts = chunk_facts(0, "今天天氣很好", ("",))
    assert teacher_text(facts) is None
    assert truth_of_clip(facts, ("今天",)).teacher is None


@pytest.mark.parametrize(("own", "edits"), [("今天田氣很好", 1), ("今天天氣很好", 0), ("", 6)])
def test_the_teacher_s_own_text_is_scored_like_the_label(own, edits):
    facts = chunk_facts(0, "今天天氣很好", ("",), teacher=own)
    truth = truth_of_clip(facts, ("今天天氣很好 謝謝",))
    assert teacher_text(facts) == f"{own} 謝謝".strip()  # the second segment is the teacher's
    assert truth.errors.mixed.edits == 0
    assert (truth.teacher.edits, truth.teacher.reference_length) == (edits, 8)


def test_the_teacher_s_own_text_has_its_own_nearest_reference():
    clip = truth_of_clip(chunk_facts(0, "我有二個", ("",), teacher="我有 2 顆"), ("我有二個 謝謝", "我有 2 顆 謝謝"))
    assert (clip.reference, clip.teacher.edits) == ("我有二個 謝謝", 0)
    facts = chunk_facts(0, "話有", ("",), teacher="第二句話有")
    facts = dataclasses.replace(facts, start_s=5.5, end_s=6.5, teacher_text="話有", segments=facts.segments[:1])
    span = truth_of_span(facts, TIMELINE)
    assert (span.errors.mixed.edits, span.errors.mixed.reference_length) == (0, 2)
    assert (span.teacher.edits, span.teacher.reference_length) == (0, 5)


# ---- stretches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "head", "tail", "expected"),
    [
        ("cd", 0, 0, (0, 6)),
        ("cd", 6, 6, (2, 4)),
        ("cd", 1, 1, (1, 5)),
        ("abcdef", 6, 6, (0, 6)),
        ("xx", 6, 6, (4, 6)),  # nothing fits: two substitutions, at the latest place
        ("", 6, 6, (6, 6)),
        ("cx", 6, 0, (4, 6)),
        ("cd", 6, 0, (2, 6)),  # as near as (4, 6), and longer
    ],
)
def test_the_nearest_stretch_within_what_may_be_left_out(text, head, tail, expected):
    start, stop = nearest_stretch("abcdef", text, head=head, tail=tail)
    assert (start, stop) == expected

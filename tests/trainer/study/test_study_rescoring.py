"""What second decodes changed: figures against hand-computed ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeled import chunk_facts, labeled_material

from trainer.study.resampling import BootstrapOptions
from trainer.study.rescoring import ALL_SETS, judge_rescoring
from trainer.study.table import LabelTable, number_groups
from trainer.study.truth import truth_of_clip

REFERENCE = "一二三四五六"
LABELS = st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6)), st.sampled_from(["a", "b"]))


def judge(rows, *, draws=0):
    """Rows of (errors in the label, errors in the teacher's own text or None, set), each 5 s and 8 reference tokens."""
    texts = ["錯" * 6 + REFERENCE]
    facts = [
        chunk_facts(0, wrong(errors), texts, teacher=None if own is None else wrong(own)) for errors, own, _ in rows
    ]
    truths = [truth_of_clip(each, (f"{REFERENCE} 謝謝",)) for each in facts]
    labels = LabelTable(
        names=tuple(map(str, range(len(rows)))),
        seconds=np.array([each.duration_s for each in facts]),
        edits=np.array([float(truth.errors.mixed.edits) for truth in truths]),
        tokens=np.array([float(truth.errors.mixed.reference_length) for truth in truths]),
        switch_edits=np.zeros(len(rows)),
        switch_tokens=np.zeros(len(rows)),
        groups=number_groups(range(len(rows))),
        kinds={"set": np.array([name for *_, name in rows])},
    )
    return judge_rescoring(labels, truths, BootstrapOptions(draws=draws))


def wrong(errors):
    return "錯" * errors + REFERENCE[errors:]


def test_without_second_decodes_there_is_nothing_to_tell():
    assert judge([(1, None, "a"), (2, None, "b")]) == ()


def test_label_mer_before_and_after():
    (figures,) = judge([(0, 2, "a"), (1, 3, "a"), (4, None, "a"), (0, None, "a")])
    assert (figures.set, figures.labels, figures.share.value) == ("a", 2, 0.5)
    assert figures.mer_teacher.value == pytest.approx(5 / 16)
    assert figures.mer_chosen.value == pytest.approx(1 / 16)
    assert figures.mer_all_teacher.value == pytest.approx(9 / 32)
    assert figures.mer_all_chosen.value == pytest.approx(5 / 32)
    assert figures.change.difference.value == pytest.approx(-4 / 32)


def test_each_set_has_figures_of_its_own():
    everything, first, second = judge([(0, 2, "a"), (4, None, "a"), (3, None, "b")], draws=50)
    assert (everything.set, first.set, second.set) == (ALL_SETS, "a", "b")
    assert (second.labels, second.share.value, second.mer_chosen.value) == (0, 0.0, None)
    assert second.mer_all_teacher == second.mer_all_chosen


@settings(max_examples=25, deadline=None)
@given(st.lists(LABELS, min_size=2, max_size=8))
def test_labels_that_did_not_change_do_not_move_the_difference(rows):
    for figures in judge(rows, draws=20):
        members = [row for row in rows if figures.set in (ALL_SETS, row[2])]
        gained = sum(errors - own for errors, own, _ in members if own is not None)
        assert figures.change.difference.value == pytest.approx(gained / (8 * len(members)))
        assert figures.labels == sum(own is not None for _, own, _ in members)


def test_chosen_texts_without_an_error_are_better_in_every_draw():
    labeled = labeled_material(rescored=True, recordings=4)
    (figures,) = judge_rescoring(labeled.labels, labeled.truths, BootstrapOptions(draws=50))
    assert figures.mer_chosen.value == 0.0
    assert figures.mer_teacher.value > 0
    assert figures.change.difference.value < 0

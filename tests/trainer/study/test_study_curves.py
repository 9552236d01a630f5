"""The numbers of the study: areas, ties, AUC, thresholds and paired bands, against hand-computed ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.bootstrap import Band
from trainer.study.curves import GRID, area, auc, rank, risk
from trainer.study.filters import Filter, FilterKind
from trainer.study.judge import judge_rankings, judge_thresholds, random_baseline
from trainer.study.resampling import BootstrapOptions, compare_draws, figure_with_band, weightings
from trainer.study.table import LabelTable, number_groups


def labels(edits, tokens, *, seconds=None, groups=None):
    count = len(edits)
    return LabelTable(
        names=tuple(f"label {number}" for number in range(count)),
        seconds=np.array(seconds or [1.0] * count, float),
        edits=np.array(edits, float),
        tokens=np.array(tokens, float),
        switch_edits=np.zeros(count),
        switch_tokens=np.zeros(count),
        groups=number_groups(groups or range(count)),
        kinds={"language": np.array(["zh"] * count)},
    )


def judged(score, rejected=None):
    rejected = np.zeros(len(score), bool) if rejected is None else np.array(rejected)
    return Filter("one", FilterKind.DISTANCE, np.array(score, float), rejected, has_alpha=True)


def curve(found, score, rejected=None, shares=GRID):
    ranking = rank(np.array(score, float), None if rejected is None else np.array(rejected))
    one = np.ones((1, len(found)))
    return risk(ranking, one, seconds=found.seconds, edits=found.edits, tokens=found.tokens, shares=np.array(shares))[0]


def test_the_area_of_two_labels_is_what_paper_and_pencil_give():
    """A clean label, then one that is all wrong, of 1 s and 10 tokens each: MER is 0 up to a half, then
    (2x - 1) / 2x, whose integral from 1/2 to 1 is (1 - ln 2) / 2."""
    found = labels([0, 10], [10, 10])
    assert area(curve(found, [0.1, 0.2])) == pytest.approx((1 - math.log(2)) / 2, abs=1e-5)
    worst_first = 1 / 2 + math.log(2) / 2  # MER 1 up to a half, then 1 / 2x
    assert area(curve(found, [0.2, 0.1])) == pytest.approx(worst_first, abs=1e-5)


def test_equal_scores_are_kept_together():
    found = labels([0, 10, 3], [10, 10, 10])
    flat = curve(found, [0.5, 0.5, 0.5])
    assert flat == pytest.approx(np.full(len(GRID), 13 / 30))
    # the first two are one stretch of MER 0.5, however they stand in the table
    assert curve(found, [0.1, 0.1, 0.9], shares=[1 / 3, 2 / 3, 1.0]) == pytest.approx([0.5, 0.5, 13 / 30])
    order = [1, 0, 2]
    swapped = labels(found.edits[order].tolist(), found.tokens[order].tolist())
    assert curve(swapped, [0.1, 0.1, 0.9]) == pytest.approx(curve(found, [0.1, 0.1, 0.9]))


def test_what_a_rule_rejects_comes_last_and_equal_and_so_does_what_has_no_score():
    found = labels([1, 2, 3, 4], [10, 10, 10, 10])
    by_rule = curve(found, [0.0, 0.1, 0.2, 0.3], [True, False, True, False], shares=[0.25, 0.5, 0.75, 1.0])
    assert by_rule == pytest.approx([0.2, 0.3, 8 / 30, 0.25])  # 2, 4, then half of 1 + 3, then all
    unscored = curve(found, [np.nan, 0.1, np.nan, 0.3], shares=[0.25, 0.5, 0.75, 1.0])
    assert unscored == pytest.approx(by_rule)


def test_hours_count_not_labels():
    found = labels([0, 6], [4, 6], seconds=[9.0, 1.0])
    assert curve(found, [0.1, 0.2], shares=[0.9, 1.0]) == pytest.approx([0.0, 0.6])


def test_labels_where_nothing_is_said_have_no_tokens_but_edits():
    found = labels([7, 1], [0, 10])
    assert found.true_mer.tolist() == [math.inf, 0.1]
    assert curve(found, [0.1, 0.2], shares=[0.5, 1.0]) == pytest.approx([7.0, 0.8])  # a reference counts as one token


def test_auc_counts_pairs_and_halves_ties():
    bad = np.array([False, False, True, True])
    score = np.array([0.1, 0.5, 0.5, 0.9])  # of four pairs three in order, one equal
    assert auc(rank(score), np.ones((1, 4)), bad)[0] == pytest.approx(3.5 / 4)
    drawn = np.array([[1.0, 1.0, 3.0, 0.0]])  # the label at 0.9 not drawn: 3 pairs in order, 3 equal
    assert auc(rank(score), drawn, bad)[0] == pytest.approx(4.5 / 6)
    assert np.isnan(auc(rank(score), np.ones((1, 4)), np.zeros(4, bool))[0])


def test_thresholds_count_what_they_keep_and_drop():
    found = labels([0, 5, 20, 1], [10, 10, 10, 10], seconds=[4.0, 3.0, 2.0, 1.0])
    one = judged([0.1, 0.3, 0.5, 0.7], [False, False, False, False])
    cut = judge_thresholds(found, [one.accepts(0.3)], BootstrapOptions(draws=0))
    assert cut.share[0, 0] == pytest.approx(0.7)
    assert cut.mer_kept[0, 0] == pytest.approx(0.25)
    assert cut.mer_dropped[0, 0] == pytest.approx(21 / 20)
    assert cut.precision[0, 0] == pytest.approx(0.5)  # of the two dropped one has MER above 0.4
    assert cut.recall[0, 0] == pytest.approx(0.5)  # of 0.5 and 2.0 the second
    assert cut.recall_total[0, 0] == 1.0
    assert cut.good_kept[0, 0] == pytest.approx(0.5)
    nothing = judge_thresholds(found, [np.zeros(4, bool)], BootstrapOptions(draws=0))
    assert np.isnan(nothing.mer_kept[0, 0])
    assert nothing.recall[0, 0] == 1.0


# ---- draws --------------------------------------------------------------------------------------------------------

rows = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, 5), st.integers(0, 6)), min_size=4, max_size=30
)


@settings(max_examples=25, deadline=None)
@given(rows)
def test_a_draw_is_the_table_with_labels_repeated(rows):
    """A bootstrap draw must give exactly what a table with every label copied as often as drawn gives."""
    edits, tokens, score, groups = (list(column) for column in zip(*rows, strict=True))
    found = labels(edits, tokens, groups=groups)
    how = BootstrapOptions(draws=3, seed=5)
    weights = np.concatenate(list(weightings(found, how)))
    result = judge_rankings(found, [judged(score)], how)
    assert len(weights) == (1 if len(set(groups)) < 2 else 4)
    for row, times in enumerate(weights.astype(int)):
        copies = np.repeat(np.arange(len(edits)), times)
        repeated = labels([edits[at] for at in copies], [tokens[at] for at in copies])
        again = judge_rankings(repeated, [judged([score[at] for at in copies])], BootstrapOptions(draws=0))
        assert result.areas[row, 0] == pytest.approx(again.areas[0, 0])
        assert result.kept[row, 0] == pytest.approx(again.kept[0, 0])
        assert result.aucs[row, 0] == pytest.approx(again.aucs[0, 0], nan_ok=True)


def test_labels_of_one_group_are_drawn_together_and_seeds_repeat():
    found = labels([1] * 6, [2] * 6, groups=["a", "a", "b", "b", "c", "c"])
    first, drawn = weightings(found, BootstrapOptions(draws=50, seed=1))
    assert (first == 1).all()
    assert (drawn[:, ::2] == drawn[:, 1::2]).all()
    assert (drawn.sum(axis=1) == 6).all()
    again = list(weightings(found, BootstrapOptions(draws=50, seed=1)))[1]
    other = list(weightings(found, BootstrapOptions(draws=50, seed=2)))[1]
    assert (drawn == again).all()
    assert (drawn != other).any()


def test_one_group_has_no_band():
    found = labels([1, 2], [10, 10], groups=["a", "a"])
    result = judge_rankings(found, [judged([0.1, 0.2])], BootstrapOptions(draws=20))
    assert figure_with_band(result.areas[:, 0]) == Band(pytest.approx(float(result.areas[0, 0])), None, None)
    assert compare_draws(result.areas[:, 0], result.areas[:, 0]).below is None


def test_pairs_are_taken_within_draws():
    """Two filters that move together: each band is wide, that of their difference has no width."""
    base = np.array([0.2, 0.1, 0.15, 0.25, 0.3])
    pair = compare_draws(base * 0.5, base)
    assert pair.ratio == Band(0.5, 0.5, 0.5)
    assert pair.difference.value == pytest.approx(-0.1)
    assert pair.below == 1.0
    assert pair.is_clear
    even = compare_draws(base, base)
    assert (even.below, even.is_clear) == (0.0, False)


def test_a_better_ranking_has_the_smaller_area_in_nearly_all_draws():
    random = np.random.default_rng(0)
    quality = random.beta(1, 5, 300)
    found = labels(np.round(quality * 20).tolist(), [20] * 300)
    sharp, dull = (judged(quality + random.normal(0, noise, 300)) for noise in (0.02, 0.2))
    areas = judge_rankings(found, [sharp, dull], BootstrapOptions(draws=200)).areas
    pair = compare_draws(areas[:, 0], areas[:, 1])
    assert pair.below == 1.0
    assert pair.ratio.high < 0.8
    by_chance = random_baseline(found, BootstrapOptions())
    assert by_chance.at(0.7)[0] == pytest.approx(found.edits.sum() / found.tokens.sum(), rel=0.02)
    assert areas[0, 0] < by_chance.low.mean()

"""Policies: each rule, one implementation for one row and for many, and the laws of α."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d import distance
from k2d.errors import BadRequest
from k2d.policy import (
    COLUMNS,
    DEFAULT,
    PAPER,
    PRESETS,
    Policy,
    columns_of,
    curve,
    decide,
    distance_column,
    explain,
    parse,
    verdict,
)
from k2d.schema import Counts, Distances, Metric, Reason, Status, Verdict

small = st.integers(0, 12)
some_counts = st.builds(Counts, small, small, small, small)
some_distances = st.builds(
    Distances,
    mixed=some_counts,
    phonemes=some_counts,
    teacher_repetition=st.integers(0, 9),
    validator_repetition=st.integers(0, 9),
    phrase=st.none() | st.just("谢谢观看"),
    zh_tokens=small,
    en_tokens=small,
)
some_policies = st.builds(
    Policy,
    name=st.just("any"),
    metric=st.sampled_from(Metric),
    alpha=st.floats(0, 1),
    repetition_max=st.integers(1, 9),
    reject_phrases=st.booleans(),
    reject_empty=st.booleans(),
)
SCALARS: dict[Metric, Callable[[Distances, int], float]] = {
    Metric.MER: lambda d, c: distance.mer(d),
    Metric.PER: lambda d, c: distance.per(d),
    Metric.COMPOSITE: distance.composite,
    Metric.MER_BOUNDED: lambda d, c: distance.mer_bounded(d),
    Metric.PER_BOUNDED: lambda d, c: distance.per_bounded(d),
    Metric.COMPOSITE_BOUNDED: distance.composite_bounded,
}


def _chunk(
    edits: int = 0, *, teacher: int = 1, validator: int = 1, phrase: str | None = None, tokens: int = 10
) -> Distances:
    both = Counts(hits=max(0, tokens - edits), substitutions=min(edits, tokens))
    return Distances(both, both, teacher, validator, phrase, tokens, 0)


@pytest.mark.parametrize(
    ("chunk", "status", "reason"),
    [
        (_chunk(0), Status.ACCEPTED, Reason.AGREEMENT),
        (_chunk(4), Status.ACCEPTED, Reason.AGREEMENT),  # 0.4 ≤ 0.4
        (_chunk(5), Status.REJECTED, Reason.DISAGREEMENT),
        (_chunk(9, validator=6), Status.ACCEPTED, Reason.VALIDATOR_REPETITION),
        (_chunk(2, validator=6), Status.ACCEPTED, Reason.AGREEMENT),  # it loops and agrees all the same
        (_chunk(0, teacher=6), Status.REJECTED, Reason.TEACHER_REPETITION),
        (_chunk(0, teacher=5), Status.ACCEPTED, Reason.AGREEMENT),
        (_chunk(0, teacher=6, validator=6), Status.REJECTED, Reason.TEACHER_REPETITION),
        (_chunk(0, phrase="谢谢观看"), Status.REJECTED, Reason.HALLUCINATION_PHRASE),
        (_chunk(0, phrase="谢谢大家", teacher=6), Status.REJECTED, Reason.TEACHER_REPETITION),
        (_chunk(0, tokens=0), Status.REJECTED, Reason.EMPTY),
    ],
)
def test_default_rules(chunk: Distances, status: Status, reason: Reason) -> None:
    assert verdict(DEFAULT, chunk) == Verdict(status, reason)


def test_the_papers_rules_are_the_composite_and_nothing_else() -> None:
    assert (PAPER.metric, PAPER.alpha, PAPER.repetition_max) == (Metric.COMPOSITE, 0.4, 5)
    assert verdict(PAPER, _chunk(0, phrase="谢谢观看")).status is Status.ACCEPTED
    assert verdict(PAPER, _chunk(0, tokens=0)).status is Status.ACCEPTED
    assert verdict(PAPER, _chunk(0, teacher=6)).reason is Reason.TEACHER_REPETITION


@pytest.mark.parametrize("metric", [Metric.MER, Metric.PER, Metric.MER_BOUNDED, Metric.PER_BOUNDED])
def test_a_looping_teacher_is_rejected_whatever_the_metric(metric: Metric) -> None:
    policy = Policy(metric=metric, alpha=1)
    assert verdict(policy, _chunk(0, teacher=6)).reason is Reason.TEACHER_REPETITION
    assert verdict(policy, _chunk(2, validator=6)).reason is Reason.AGREEMENT
    assert verdict(Policy(metric=metric, alpha=0.4), _chunk(9, validator=6)).reason is Reason.DISAGREEMENT


@given(st.lists(some_distances, max_size=8), some_policies)
def test_many_rows_are_decided_as_one_by_one(rows: list[Distances], policy: Policy) -> None:
    decision = decide(policy, columns_of(rows))
    assert [decision.verdict(row) for row in range(len(rows))] == [verdict(policy, one) for one in rows]
    assert list(decision.accepted) == [verdict(policy, one).status is Status.ACCEPTED for one in rows]


@given(some_distances, st.sampled_from(Metric), st.integers(1, 9))
def test_columns_hold_the_metrics_of_the_distance_module(one: Distances, metric: Metric, limit: int) -> None:
    [value] = distance_column(metric, columns_of([one]), limit)
    assert value == SCALARS[metric](one, limit)


@given(st.lists(some_distances, max_size=8), some_policies, st.floats(0, 1))
def test_a_larger_alpha_never_rejects_what_a_smaller_one_kept(
    rows: list[Distances], policy: Policy, other: float
) -> None:
    low, high = sorted((policy.alpha, other))
    columns = columns_of(rows)
    kept_low = decide(policy.model_copy(update={"alpha": low}), columns).accepted
    kept_high = decide(policy.model_copy(update={"alpha": high}), columns).accepted
    assert not (kept_low & ~kept_high).any()


@given(
    st.lists(some_distances, max_size=10),
    some_policies,
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 2 / 3, 1.0]), min_size=1, max_size=6),
)
def test_the_curve_is_what_decide_would_keep(rows: list[Distances], policy: Policy, alphas: list[float]) -> None:
    columns, durations = columns_of(rows), np.arange(1.0, len(rows) + 1)
    curves = curve(columns, durations, alphas=alphas, policy=policy)
    assert set(curves) == set(Metric)
    for metric, line in curves.items():
        for position, alpha in enumerate(alphas):
            one = policy.model_copy(update={"metric": metric, "alpha": alpha})
            accepted = decide(one, columns).accepted
            assert line.chunks[position] == accepted.sum()
            assert line.seconds[position] == durations[accepted].sum()


def test_a_row_needs_no_other_column_than_the_named_ones() -> None:
    assert set(columns_of([_chunk()])) == set(COLUMNS)
    assert columns_of([])["mer_hits"].shape == (0,)


@pytest.mark.parametrize(
    "fields",
    [{"alpha": 1.5}, {"alpha": -0.1}, {"alpha": "nan"}, {"metric": "wer"}, {"alfa": 0.4}, {"repetition_max": 0}],
)
def test_impossible_policies_are_refused_with_a_hint(fields: dict[str, object]) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(fields)
    assert next(iter(fields)) in refused.value.message
    assert "0…1" in (refused.value.hint or "")


def test_keys_name_the_rules() -> None:
    assert DEFAULT.key == Policy(name="default").key == parse(DEFAULT.model_dump(mode="json")).key
    assert DEFAULT.key != DEFAULT.model_copy(update={"alpha": 0.41}).key != PAPER.key
    assert len(DEFAULT.key) == 32


@pytest.mark.parametrize("policy", PRESETS.values(), ids=PRESETS)
def test_explanations_name_every_rule(policy: Policy) -> None:
    text = explain(policy)
    assert "0.4" in text
    assert "more than 5 times" in text
    for reason, active in (
        (Reason.HALLUCINATION_PHRASE, policy.reject_phrases),
        (Reason.EMPTY, policy.reject_empty),
        (Reason.TEACHER_REPETITION, True),
        (Reason.DISAGREEMENT, True),
        (Reason.VALIDATOR_REPETITION, True),
    ):
        assert (f"({reason})" in text) == active


def test_explanations_of_plain_metrics_promise_no_exception() -> None:
    assert Reason.VALIDATOR_REPETITION not in explain(Policy(metric=Metric.MER))

"""Policies: each rule, one implementation for one row and for many, and the laws of α."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d.errors import BadRequest
from k2d.filtering import distance
from k2d.filtering.policy import (
    COLUMNS,
    DEFAULT,
    DISTANCE_COLUMNS,
    PAPER,
    PRESETS,
    RULES,
    Policy,
    Quorum,
    Weights,
    columns_of,
    curve,
    decide,
    evidence_columns,
    explain,
    from_yaml,
    load,
    metric_column,
    parse,
    risk,
    to_yaml,
    verdict,
)
from k2d.schema import Counts, Distances, Evidence, Metric, Reason, Status, Verdict

STRICT = Policy(name="strict")  # the paper's distance, with the rules that cost nothing
DISTANCES = [metric for metric in Metric if metric is not Metric.EVIDENCE]

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
    metric=st.sampled_from(DISTANCES),
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
def test_rules_of_a_distance(chunk: Distances, status: Status, reason: Reason) -> None:
    assert verdict(STRICT, chunk) == Verdict(status, reason)


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


@settings(deadline=None)  # the first look at a policy reads its presets
@given(st.lists(some_distances, max_size=8), some_policies)
def test_many_rows_are_decided_as_one_by_one(rows: list[Distances], policy: Policy) -> None:
    decision = decide(policy, columns_of(rows))
    assert [decision.verdict(row) for row in range(len(rows))] == [verdict(policy, one) for one in rows]
    assert list(decision.accepted) == [verdict(policy, one).status is Status.ACCEPTED for one in rows]


@given(some_distances, st.sampled_from(DISTANCES), st.integers(1, 9))
def test_columns_hold_the_metrics_of_the_distance_module(one: Distances, metric: Metric, limit: int) -> None:
    [value] = metric_column(metric, columns_of([one]), limit)
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
    assert set(curves) == set(DISTANCES)  # without weights there is no risk
    for metric, line in curves.items():
        for position, alpha in enumerate(alphas):
            one = policy.model_copy(update={"metric": metric, "alpha": alpha})
            accepted = decide(one, columns).accepted
            assert line.chunks[position] == accepted.sum()
            assert line.seconds[position] == durations[accepted].sum()


def test_a_row_needs_no_other_column_than_the_named_ones() -> None:
    assert set(columns_of([_chunk()])) == set(DISTANCE_COLUMNS)
    assert set(columns_of([_chunk()], [evidence()])) == set(COLUMNS)
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
    assert (
        DEFAULT.key == DEFAULT.model_copy(update={"name": "evidence"}).key == parse(DEFAULT.model_dump(mode="json")).key
    )
    assert DEFAULT.key != DEFAULT.model_copy(update={"alpha": 0.41}).key != PAPER.key
    assert len(DEFAULT.key) == 32


@pytest.mark.parametrize("policy", PRESETS.values(), ids=PRESETS)
def test_explanations_name_every_rule(policy: Policy) -> None:
    text = explain(policy)
    assert f"above {policy.alpha:g}" in text
    assert f"more than {policy.repetition_max} times" in text
    for reason, active in (
        (Reason.HALLUCINATION_PHRASE, policy.reject_phrases),
        (Reason.EMPTY, policy.reject_empty),
        (Reason.TEACHER_REPETITION, True),
        (Reason.DISAGREEMENT, policy.metric is not Metric.EVIDENCE),
        (Reason.UNCONFIRMED, policy.disagreement_max is not None),
        (Reason.PROMPT_ECHO, policy.reject_echoes),
        (Reason.LANGUAGE_FLIP, policy.flip_max is not None),
        (Reason.SCRIPT_MIX, policy.foreign_max is not None),
        (Reason.SPEECH_RATE, policy.max_phonemes_per_s is not None),
    ):
        assert (f"({reason})" in text) == active


def test_explanations_of_plain_metrics_promise_no_exception() -> None:
    assert Reason.VALIDATOR_REPETITION not in explain(Policy(metric=Metric.MER))


# ---- evidence -----------------------------------------------------------------------------------------------------


def evidence(**changes: float | bool) -> Evidence:
    """Of a label that nothing speaks against: twelve Mandarin tokens in three seconds."""
    plain: dict[str, float | bool] = {field.name: field.type(0) for field in fields(Evidence)}  # type: ignore[operator,misc]
    plain |= {"duration_s": 3.0, "zh_tokens": 12, "units": 24, "teacher_repetition": 1, "hypothesis_repetition": 1}
    return Evidence(**(plain | changes))  # type: ignore[arg-type]


def judged(policy: Policy = DEFAULT, **changes: float | bool) -> Verdict:
    return decide(policy, evidence_columns([evidence(**changes)])).verdict(0)


HEARD_NOTHING = {"disagreement_least": 1.0, "disagreement_middle": 1.0, "disagreement_most": 1.0, "doubt": 1.0}
LOST = {"score": -5.0, "avg_logprob": -5.0, "doubt": 1.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, Reason.AGREEMENT),
        ({"homophones": 0.05}, Reason.HOMOPHONE),
        ({"zh_tokens": 0, "units": 0}, Reason.EMPTY),
        ({"teacher_repetition": 11}, Reason.TEACHER_REPETITION),
        ({"loops": 3}, Reason.TEACHER_REPETITION),
        ({"is_phrase": True}, Reason.HALLUCINATION_PHRASE),
        ({"is_echo": True}, Reason.PROMPT_ECHO),
        ({"flip": 0.9}, Reason.LANGUAGE_FLIP),
        ({"other_tokens": 20}, Reason.SCRIPT_MIX),
        ({"units": 1}, Reason.SPEECH_RATE),
        ({"units": 400}, Reason.SPEECH_RATE),
        (HEARD_NOTHING | LOST, Reason.UNCONFIRMED),
        (LOST, Reason.LOW_CONFIDENCE),
        (LOST | {"disagreement_most": 0.9}, Reason.UNRESOLVED),
        (LOST | {"hypothesis_repetition": 99}, Reason.VALIDATOR_REPETITION),
    ],
)
def test_reasons_of_the_default(changes: dict[str, float | bool], reason: Reason) -> None:
    found = judged(**changes)
    assert (found.status is Status.ACCEPTED) == (reason in (Reason.AGREEMENT, Reason.HOMOPHONE))
    assert found.reason is reason


@pytest.mark.parametrize("kind", ["substituted", "deleted", "inserted"])
def test_what_was_heard_differently_says_how(kind: str) -> None:
    weights = Weights(bias=-4.0, disagreement=12.0, avg_logprob=0.1)
    policy = DEFAULT.model_copy(update={"weights": weights, "disagreement_max": None})
    reason = {"substituted": "substitution", "deleted": "deletion", "inserted": "insertion"}[kind]
    assert judged(policy, **HEARD_NOTHING | {kind: 0.7}).reason == reason  # type: ignore[arg-type]


AGAINST = {
    "disagreement_middle": 1.0,
    "homophones": 1.0,
    "doubt": 1.0,
    "probe_nll": 9.0,
    "temperature": 1.0,
    "no_speech_prob": 1.0,
    "score": -9.0,
    "avg_logprob": -9.0,
}
some_weights = st.builds(
    Weights,
    bias=st.floats(-9, 3),
    **{name: st.floats(0, 9) for name in Weights.model_fields if name != "bias"},
)


@given(some_weights, st.sampled_from(sorted(AGAINST)), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_more_evidence_against_a_label_never_lowers_its_risk(weights: Weights, name: str, parts: list[float]) -> None:
    policy = DEFAULT.model_copy(update={"weights": weights})
    low, high = sorted(parts)
    rows = [evidence(**{name: AGAINST[name] * part}) for part in (low, high)]
    mild, severe = risk(policy, evidence_columns(rows))
    assert severe >= mild


def test_of_several_opinions_the_quorum_says_which_counts() -> None:
    heard = {"disagreement_least": 0.0, "disagreement_middle": 0.4, "disagreement_most": 0.9}
    risks = [
        risk(DEFAULT.model_copy(update={"quorum": quorum}), evidence_columns([evidence(**heard)]))[0]
        for quorum in (Quorum.ANY, Quorum.MOST, Quorum.ALL)
    ]
    assert risks == sorted(risks)
    assert risks[0] < risks[2]


def test_policy_files_say_what_policies_are(tmp_path: Path) -> None:
    for policy in PRESETS.values():
        assert from_yaml(to_yaml(policy)) == policy
        assert hash(from_yaml(to_yaml(policy))) == hash(policy)
    (tmp_path / "mine.yaml").write_text(to_yaml(DEFAULT.varied(alpha=0.2)), "utf-8")
    assert load(str(tmp_path / "mine.yaml")).alpha == 0.2
    for text, word in (("- a", "no policy"), ("a: [", "YAML"), ("alpha: 7", "alpha"), ("metric: evidence", "weights")):
        with pytest.raises(BadRequest, match=word):
            from_yaml(text)
    with pytest.raises(BadRequest, match="unknown policy"):
        load("default")
    with pytest.raises(BadRequest, match="cannot read"):
        load(str(tmp_path / "none.yaml"))


def test_a_changed_policy_keeps_no_claim() -> None:
    claimed = DEFAULT.model_copy(update={"claim": "label MER ≤ 8 %"})
    assert claimed.varied(alpha=0.1).claim is None
    assert claimed.varied(metric=Metric.PER).salvage is False
    assert "8 %" in explain(claimed)
    assert "no label error is promised" in explain(DEFAULT)


def test_what_rules_reject_is_told_apart_from_what_alpha_rejects() -> None:
    everything = DEFAULT.model_copy(update={"alpha": 1.0})  # no risk is above it
    broken = [{"units": 0, "zh_tokens": 0}, {"loops": 3}, {"is_phrase": True}, {"is_echo": True}, {"flip": 0.9}]
    broken += [{"other_tokens": 20}, {"units": 400}, {"disagreement_middle": 1.0}]
    assert {judged(everything, **changes).reason for changes in broken} == set(RULES)  # type: ignore[arg-type]

"""Verdicts: each rule and reason, and one implementation for one row and for many."""

import pytest
from corpora import evidence
from hypothesis import given
from hypothesis import strategies as st
from judged import DISTANCES, JudgedPart, parts, policies, weights
from oracles import broken_rule, rows
from test_metrics import some_distances

from k2d.filtering.policy import (
    COLUMNS,
    DEFAULT,
    DISTANCE_COLUMNS,
    PAPER,
    RULES,
    Policy,
    Weights,
    columns_of,
    decide,
    evidence_columns,
    metric_column,
    risk,
    verdict,
)
from k2d.schema import Counts, Distances, Metric, Quorum, Reason, Status, Verdict

STRICT = Policy(name="strict")  # the paper's distance, with the rules that cost nothing


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


@given(policies, parts)
def test_many_rows_are_decided_as_one_by_one(policy: Policy, part: JudgedPart) -> None:
    decision = decide(policy, part.chunks)
    alone = [decide(policy, row).verdict(0) for row in rows(part.chunks)]
    assert [decision.verdict(row) for row in range(len(alone))] == alone
    assert decision.accepted.tolist() == [each.status is Status.ACCEPTED for each in alone]


@given(policies, parts)
def test_rules_reject_what_they_say_in_their_order(policy: Policy, part: JudgedPart) -> None:
    decision = decide(policy, part.chunks)
    for number, row in enumerate(rows(part.chunks)):
        rule = broken_rule(policy, {name: column[0] for name, column in row.items()})
        found = decision.verdict(number)
        assert (found.reason in RULES) == (rule is not None)
        if rule is None:
            assert (found.status is Status.ACCEPTED) == (metric_column(policy, row)[0] <= policy.alpha)
        else:
            assert found == Verdict(Status.REJECTED, rule)


@given(st.lists(some_distances, max_size=8), st.sampled_from(DISTANCES), st.floats(0, 1))
def test_distances_alone_are_enough_for_a_distance(chunks: list[Distances], metric: Metric, alpha: float) -> None:
    policy = Policy(metric=metric, alpha=alpha)
    decision = decide(policy, columns_of(chunks))
    assert [decision.verdict(row) for row in range(len(chunks))] == [verdict(policy, each) for each in chunks]


def test_a_row_needs_no_other_column_than_the_named_ones() -> None:
    assert set(columns_of([_chunk()])) == set(DISTANCE_COLUMNS)
    assert set(columns_of([_chunk()], [evidence()])) == set(COLUMNS)
    assert columns_of([])["mer_hits"].shape == (0,)


# ---- evidence -----------------------------------------------------------------------------------------------------


def judged(policy: Policy = DEFAULT, **changes: float | bool) -> Verdict:
    return decide(policy, evidence_columns([evidence(**changes)])).verdict(0)


NOTHING_CONFIRMED = {
    "disagreement_least": 1.0,
    "disagreement_middle": 1.0,
    "disagreement_most": 1.0,
    "expected_token_error": 1.0,
}
SAME_SOUND = {"disagreement_least": 0.0, "disagreement_middle": 0.0, "disagreement_most": 0.0}
IMPROBABLE = {"forced_logprob": -5.0, "avg_logprob": -5.0, "expected_token_error": 1.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, Reason.AGREEMENT),
        (SAME_SOUND | {"homophones": 0.05}, Reason.HOMOPHONE),
        (SAME_SOUND, Reason.AGREEMENT),
        (SAME_SOUND | {"homophones": 0.05, "disagreement_most": 0.01}, Reason.AGREEMENT),
        ({"zh_tokens": 0, "phonemes": 0}, Reason.EMPTY),
        ({"teacher_repetition": 11}, Reason.TEACHER_REPETITION),
        ({"loops": 3}, Reason.TEACHER_REPETITION),
        ({"is_phrase": True}, Reason.HALLUCINATION_PHRASE),
        ({"is_echo": True}, Reason.PROMPT_ECHO),
        ({"flip": 0.9}, Reason.LANGUAGE_FLIP),
        ({"other_tokens": 20}, Reason.SCRIPT_MIX),
        ({"phonemes": 1}, Reason.SPEECH_RATE),
        ({"phonemes": 400}, Reason.SPEECH_RATE),
        (NOTHING_CONFIRMED | IMPROBABLE, Reason.UNCONFIRMED),
        (IMPROBABLE, Reason.LOW_CONFIDENCE),
        (IMPROBABLE | {"disagreement_most": 0.9}, Reason.UNRESOLVED),
        (IMPROBABLE | {"hypothesis_repetition": 99}, Reason.VALIDATOR_REPETITION),
    ],
)
def test_reasons_of_the_default(changes: dict[str, float | bool], reason: Reason) -> None:
    found = judged(**changes)
    assert (found.status is Status.ACCEPTED) == (reason in (Reason.AGREEMENT, Reason.HOMOPHONE))
    assert found.reason is reason


@pytest.mark.parametrize("kind", ["substituted", "deleted", "inserted"])
def test_what_validators_transcribe_differently_says_how(kind: str) -> None:
    weights = Weights(bias=-4.0, disagreement=12.0, avg_logprob=0.1)
    policy = DEFAULT.model_copy(update={"weights": weights, "disagreement_max": None})
    reason = {"substituted": "substitution", "deleted": "deletion", "inserted": "insertion"}[kind]
    assert judged(policy, **NOTHING_CONFIRMED | {kind: 0.7}).reason == reason  # type: ignore[arg-type]


AGAINST = {
    "disagreement_middle": 1.0,
    "homophones": 1.0,
    "expected_token_error": 1.0,
    "probe_nll": 9.0,
    "temperature": 1.0,
    "no_speech_prob": 1.0,
    "forced_logprob": -9.0,
    "avg_logprob": -9.0,
}


@given(weights, st.sampled_from(sorted(AGAINST)), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_more_evidence_against_a_label_never_lowers_its_risk(chosen: Weights, name: str, parts: list[float]) -> None:
    policy = DEFAULT.model_copy(update={"weights": chosen})
    low, high = sorted(parts)
    rows = [evidence(**{name: AGAINST[name] * part}) for part in (low, high)]
    mild, severe = risk(policy, evidence_columns(rows))
    assert severe >= mild


def test_of_several_hypotheses_the_quorum_says_which_counts() -> None:
    apart = {"disagreement_least": 0.0, "disagreement_middle": 0.4, "disagreement_most": 0.9}
    risks = [
        risk(DEFAULT.model_copy(update={"quorum": quorum}), evidence_columns([evidence(**apart)]))[0]
        for quorum in (Quorum.ANY, Quorum.MOST, Quorum.ALL)
    ]
    assert risks == sorted(risks)
    assert risks[0] < risks[2]


def test_what_rules_reject_is_told_apart_from_what_alpha_rejects() -> None:
    everything = DEFAULT.model_copy(update={"alpha": 1.0, "reject_rescored": True})  # no risk is above it
    broken = [{"phonemes": 0, "zh_tokens": 0}, {"loops": 3}, {"is_phrase": True}, {"is_echo": True}, {"flip": 0.9}]
    broken += [{"other_tokens": 20}, {"phonemes": 400}, {"disagreement_middle": 1.0}, {"is_rescored": True}]
    assert {judged(everything, **changes).reason for changes in broken} == set(RULES)  # type: ignore[arg-type]

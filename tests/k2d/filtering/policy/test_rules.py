"""Policies as people write them: what is refused, what names them, what explains them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from judged import JudgedPart, parts, policies

from k2d.errors import BadRequest
from k2d.filtering.policy import (
    DEFAULT,
    PAPER,
    PRESETS,
    Policy,
    Weights,
    decide,
    explain,
    from_yaml,
    load,
    parse,
    to_yaml,
)
from k2d.schema import Metric, Reason


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


def test_policy_files_say_what_policies_are(tmp_path: Path) -> None:
    for policy in PRESETS.values():
        assert from_yaml(to_yaml(policy)) == policy
        assert hash(from_yaml(to_yaml(policy))) == hash(policy)
    (tmp_path / "mine.yaml").write_text(to_yaml(DEFAULT.varied(alpha=0.2)), "utf-8")
    assert load(str(tmp_path / "mine.yaml")).alpha == 0.2
    for text, word in (
        ("- a", "not a mapping of policy fields"),
        ("a: [", "YAML"),
        ("alpha: 7", "alpha"),
        ("metric: evidence", "weights"),
    ):
        with pytest.raises(BadRequest, match=word):
            from_yaml(text)
    with pytest.raises(BadRequest, match="unknown policy"):
        load("default")
    with pytest.raises(BadRequest, match="cannot read"):
        load(str(tmp_path / "none.yaml"))


VERSION_1 = """
version: 1
name: evidence
reject_empty: true
repetition_max: 10
loops_max: 2
reject_phrases: true
reject_echoes: true
flip_max: 0.5
foreign_max: 0.5
min_units_per_s: 0.5
max_units_per_s: 30.0
disagreement_max: 0.8
metric: evidence
alpha: 0.3
quorum: most
usual_units_per_s: 9.5
weights: {bias: -3.6, disagreement: 0.6, respelled: 4.4, doubted: 2.3, unsure: 2.4}
salvage: true
"""
EARLIER_WEIGHTS = {
    "homophones": "respelled",
    "expected_token_error": "doubted",
    "probe_nll": "unsounded",
    "forced_logprob": "unlikely",
    "avg_logprob": "unsure",
    "temperature": "heated",
    "no_speech_prob": "silent",
    "speech_rate": "rushed",
}


def test_the_preset_as_version_0_1_shipped_it_is_the_preset() -> None:
    policy = from_yaml(VERSION_1)
    assert policy == DEFAULT
    assert policy.key == DEFAULT.key
    assert "version: 2" in to_yaml(policy)


def as_version_1(policy: Policy) -> dict[str, Any]:
    fields = {name.replace("phonemes", "units"): value for name, value in policy.model_dump(mode="json").items()}
    weights = fields["weights"] and {EARLIER_WEIGHTS.get(name, name): v for name, v in fields["weights"].items()}
    return fields | {"version": 1, "weights": weights}


@given(policies, parts)
def test_policies_of_version_1_give_the_same_verdicts(policy: Policy, part: JudgedPart) -> None:
    """From YAML, from JSON, and from a mapping, as manifests and review files hold them."""
    fields = as_version_1(policy)
    assert set(EARLIER_WEIGHTS) <= set(Weights.model_fields)
    for read in (
        parse(fields),
        from_yaml(yaml.safe_dump(fields)),
        from_yaml(json.dumps(fields)),
        Policy.model_validate_json(json.dumps(fields)),
    ):
        assert read == policy
        decision, expected = decide(read, part.chunks), decide(policy, part.chunks)
        assert decision.status.tolist() == expected.status.tolist()
        assert decision.reason.tolist() == expected.reason.tolist()


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2, "max_units_per_s": 9},
        {"version": 3},
        {"max_units_per_s": 9},
    ],
)
def test_names_of_version_1_belong_to_version_1(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        parse(fields)


def test_a_changed_policy_keeps_no_claim() -> None:
    claimed = DEFAULT.model_copy(update={"claim": "label MER ≤ 8 %"})
    assert claimed.varied(alpha=0.1).claim is None
    assert claimed.varied(metric=Metric.PER).salvage is False
    assert "8 %" in explain(claimed)
    assert "no label error is promised" in explain(DEFAULT)

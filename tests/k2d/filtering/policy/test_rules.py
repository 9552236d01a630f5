"""Policies as people write them: what is refused, what names them, what explains them."""

from pathlib import Path

import pytest

from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, PAPER, PRESETS, Policy, explain, from_yaml, load, parse, to_yaml
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

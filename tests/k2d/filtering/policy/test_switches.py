"""Rules as switches: each is found by the members that switch it on, and switching changes nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import policies

from k2d.filtering.policy import DEFAULT, PAPER, RULES, Policy, switched, switches
from k2d.filtering.policy.rules import rules_of
from k2d.schema import Reason


def test_every_rule_but_loops_can_be_switched() -> None:
    assert set(switches()) == set(RULES) - {Reason.TEACHER_REPETITION}
    assert switches()[Reason.SPEECH_RATE] == ("min_phonemes_per_s", "max_phonemes_per_s")


@given(policies, st.sets(st.sampled_from(list(switches()))))
def test_exactly_the_chosen_rules_are_on(policy: Policy, on: set[Reason]) -> None:
    changed = switched(policy, on)
    assert set(rules_of(changed)) == on | {Reason.TEACHER_REPETITION}
    kept = {"name", "claim", *(name for names in switches().values() for name in names)}
    assert changed.model_dump(exclude=kept) == policy.model_dump(exclude=kept)
    for reason in on & set(rules_of(policy)):
        for name in switches()[reason]:
            assert getattr(changed, name) == getattr(policy, name)


@pytest.mark.parametrize("policy", [DEFAULT, PAPER])
def test_with_its_own_rules_a_policy_stays_itself(policy: Policy) -> None:
    assert switched(policy, list(rules_of(policy))) is policy
    assert switched(policy, []).name == "custom"

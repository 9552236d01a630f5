"""Rules as switches: which of them can be switched, and a policy with other rules on. Derived from RULES and Policy."""

from collections.abc import Collection, Mapping
from functools import cache
from types import NoneType
from typing import Any, Final, get_args

from k2d.filtering.policy.document import DEFAULT, Policy, parse
from k2d.filtering.policy.rules import RULES
from k2d.schema import Reason

_NO_RULES: Final = ("salvage", "weights", "claim")  # members that can be off, and reject nothing


@cache
def switches() -> Mapping[Reason, tuple[str, ...]]:
    """The rules that a policy can have on or off, each with the members of the policy that switch it on.

    switches()[Reason.SPEECH_RATE]  # ("min_phonemes_per_s", "max_phonemes_per_s")
    """
    off = {name: value for name in Policy.model_fields if (value := _off(name)) is not ...}
    nothing = Policy(**off)
    by_rule: dict[Reason, tuple[str, ...]] = {}
    for reason, rule in RULES.items():
        if not rule.is_on(nothing):
            alone = (name for name in off if rule.is_on(nothing.model_copy(update={name: _on(name)})))
            by_rule[reason] = tuple(alone)
    return by_rule


def switched(policy: Policy, on: Collection[Reason]) -> Policy:
    """Return the policy with exactly these of its switchable rules on. If that changes it, its name is "custom".

        switched(DEFAULT, [Reason.EMPTY])  # no other rule but loops, which every policy rejects

    A rule that the policy has on keeps its limits; one that is switched on gets those of the preset `evidence`.
    """
    changes: dict[str, Any] = {}
    for reason, names in switches().items():
        if RULES[reason].is_on(policy) and reason not in on:
            changes |= {name: _off(name) for name in names}
        elif reason in on and not RULES[reason].is_on(policy):
            changes |= {name: _on(name) for name in names}
    return parse(policy.model_dump() | changes | {"name": "custom", "claim": None}) if changes else policy


def _off(name: str) -> Any:
    """The value of a member that rejects nothing; ... where there is none."""
    annotation = Policy.model_fields[name].annotation
    if name in _NO_RULES:
        return ...
    if annotation is bool:
        return False
    return None if NoneType in get_args(annotation) else ...


def _on(name: str) -> Any:
    value = getattr(DEFAULT, name)
    return value if value is not None and value is not False else True

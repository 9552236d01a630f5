"""What a page's address asks for: a policy with its α and rules, and numbers that people may have typed wrongly."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from starlette.datastructures import ImmutableMultiDict

from k2d.corpus.explore import with_salvage
from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, PRESETS, Policy, switched
from k2d.schema import Metric, Reason
from services.filter.context import policy_of

Parameters = ImmutableMultiDict[str, Any]  # of a query or of a form
_Enum = TypeVar("_Enum", bound=StrEnum)

MOST_CHARACTERS: Final = 4000  # of a policy, as in the API
SALVAGE: Final = "salvage"  # beside the names of rules
EVIDENCE: Final = DEFAULT.name


@dataclass(frozen=True, slots=True)
class AskedPolicy:
    """The policy that an address asks for."""

    base: Policy  # a preset, or one that someone wrote
    policy: Policy  # with the metric, the rules and the α that were chosen

    @property
    def value(self) -> str:
        """`base` as the value of the parameter `policy`."""
        return as_value(self.base)


def as_value(policy: Policy) -> str:
    """A policy as the value of a parameter: a preset's name, or JSON."""
    if PRESETS.get(policy.name) == policy:
        return policy.name
    return json.dumps(policy.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)


def asked_policy(parameters: Parameters) -> AskedPolicy:
    """Read `policy` or `own`, `metric`, `alpha`, and, if there is `rules`, which rules are `on`.

    asked_policy(request.query_params).policy.alpha

    Raises:
        BadRequest: not a policy, or not a number.
    """
    base = policy_in(parameters, "own") or policy_in(parameters, "policy") or DEFAULT
    policy = base.varied(metric=choice(parameters, "metric", Metric))
    if parameters.get("rules"):
        on = parameters.getlist("on")
        policy = switched(policy, [_member(Reason, "on", name) for name in on if name != SALVAGE])
        policy = with_salvage(policy, salvage=SALVAGE in on)
    return AskedPolicy(base, policy.varied(alpha=number(parameters, "alpha", most=1)))


def other_policy(parameters: Parameters) -> Policy:
    """Read `other` and `other_alpha`: the policy to compare with; `evidence` where there is none.

    Raises:
        BadRequest: as `asked_policy`.
    """
    base = policy_in(parameters, "other_own") or policy_in(parameters, "other") or DEFAULT
    return base.varied(alpha=number(parameters, "other_alpha", most=1))


def policy_in(parameters: Parameters, name: str) -> Policy | None:
    """The policy of one parameter; None if it is empty.

    Raises:
        BadRequest
    """
    text = text_of(parameters, name)
    if len(text) > MOST_CHARACTERS:
        characters = f"the policy has {len(text)} characters; {MOST_CHARACTERS} are read at most"
        raise BadRequest(characters, parameter=name)
    try:
        return policy_of(text) if text else None
    except BadRequest as error:
        raise BadRequest(error.message, hint=error.hint, parameter=name) from error


def number(parameters: Parameters, name: str, *, least: float = 0, most: float | None = None) -> float | None:
    """A number from `least` to `most`; None if the parameter is empty.

    Raises:
        BadRequest
    """
    text = text_of(parameters, name)
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is None or least <= value <= (math.inf if most is None else most):
        return value
    limits: dict[str, Any] = {"least": least} | ({} if most is None else {"most": most})
    raise BadRequest(f"{name} cannot be {text[:100]!r}", parameter=name, value=text[:100], **limits)


def choice(parameters: Parameters, name: str, kind: type[_Enum]) -> _Enum | None:
    """A member of an enum; None if the parameter is empty.

    Raises:
        BadRequest
    """
    text = text_of(parameters, name)
    return _member(kind, name, text) if text else None


def text_of(parameters: Parameters, name: str) -> str:
    """A text without the spaces around it; a form sends empty fields too."""
    value = parameters.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def link(parameters: Parameters, *, leave: tuple[str, ...] = ("cursor",), **changes: str | None) -> str:
    """The same query with some parameters changed, and without those in `leave` and those changed to None.

    link(request.query_params, cursor=page.next)  # "?alpha=0.3&cursor=…"
    """
    pairs = [pair for pair in _pairs(parameters) if pair[0] not in leave and pair[0] not in changes and pair[1]]
    pairs += [(name, value) for name, value in changes.items() if value]
    return f"?{urlencode(pairs)}"


def _pairs(parameters: Parameters) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in parameters.multi_items() if isinstance(value, str))


def _member(kind: type[_Enum], name: str, text: str) -> _Enum:
    try:
        return kind(text)
    except ValueError as error:
        raise not_one_of(name, text, list(kind)) from error


def not_one_of(name: str, text: str, choices: Sequence[str]) -> BadRequest:
    """The error of a parameter that is none of its choices."""
    hint = f"one of {', '.join(choices)}"
    return BadRequest(
        f"{name} cannot be {text[:100]!r}", hint=hint, parameter=name, value=text[:100], choices=list(choices)
    )

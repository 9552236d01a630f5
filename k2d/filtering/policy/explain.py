"""Describes a policy in plain language, for `k2d policy explain`, the API and dataset manifests."""

from typing import Final

from k2d.filtering.policy.document import Policy
from k2d.filtering.policy.metrics import METRICS
from k2d.filtering.policy.risk import Weights, nonzero
from k2d.filtering.policy.rules import rules_of
from k2d.schema import Metric, Quorum


def explain(policy: Policy) -> str:
    """Return the rules of a policy in plain language, one line each.

    print(explain(DEFAULT))  # Policy 'evidence' looks at each chunk's label (the teacher's text) and …
    """
    lines = [f"Policy {policy.name!r} looks at each chunk's label (the teacher's text) and rejects it when"]
    lines += [f"- {rule.words(policy)} ({reason});" for reason, rule in rules_of(policy).items()]
    lines += _risk(policy) if policy.weights and policy.metric is Metric.EVIDENCE else _distance(policy)
    if policy.salvage:
        lines.append(
            "Of a chunk that is not kept whole, segments that pass the same rules on their own evidence are salvaged."
        )
    lines.append(
        f"Calibrated: {policy.claim}"
        if policy.claim
        else "α was not calibrated on reviewed segments: no label error is promised (`k2d calibrate`)."
    )
    return "\n".join(lines)


def _distance(policy: Policy) -> list[str]:
    lines = [
        f"- its {METRICS[policy.metric].words} from the validator's text is above {policy.alpha:g} (disagreement).",
        "All else is kept (agreement).",
    ]
    if METRICS[policy.metric].unchecked is not None:
        lines.append(
            "A chunk where only the validator loops is kept without having been checked (validator_repetition)."
        )
    return lines


def _risk(policy: Policy) -> list[str]:
    assert policy.weights is not None
    weights = " + ".join(f"{weight:g} × {name}" for name, weight in nonzero(policy.weights).items())
    named = [f"  {name}: {_described(name)}" for name in nonzero(policy.weights)]
    return [
        f"- its risk is above {policy.alpha:g}: 1 / (1 + e^-x), x = {policy.weights.bias:g} + {weights}, where",
        *named,
        f"  and of several hypotheses {_QUORUM_WORDS[policy.quorum]} counts"
        " (substitution, deletion, insertion: how the validators' text differs; low_confidence: the models find the"
        " label improbable; unresolved: the hypotheses contradict one another; validator_repetition: every validator"
        " loops).",
        "All else is kept (agreement; homophone where only the writing differs).",
    ]


def _described(name: str) -> str:
    description = str(Weights.model_fields[name].description)
    return description[0].lower() + description[1:].rstrip(".")


_QUORUM_WORDS: Final = {
    Quorum.ANY: "the nearest",
    Quorum.MOST: "the median",
    Quorum.ALL: "the farthest",
}

"""From evidence to risk: features that each speak against a label, and their weighted sum. Pure, over columns.

Every feature is 0 where nothing speaks against the label and grows with the evidence; weights are not negative, so
risk is monotone in every piece of evidence.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy.rules import Policy, Quorum, Weights

Columns = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]

MOST_NATS: Final = 5.0  # a token less likely than e^-5 is as good as impossible; what lies below says nothing more
MOST_RUSHED: Final = 3.0  # |ln(ratio)|: twenty times too fast or too slow
QUORUM_COLUMNS: Final = {
    Quorum.ANY: "disagreement_least",
    Quorum.MOST: "disagreement_middle",
    Quorum.ALL: "disagreement_most",
}

_Feature = Callable[[Columns, Policy], npt.NDArray[Any]]
FEATURES: Final[Mapping[str, _Feature]] = {
    "disagreement": lambda columns, policy: columns[QUORUM_COLUMNS[policy.quorum]],
    "homophones": lambda columns, policy: columns["homophones"],
    "expected_token_error": lambda columns, policy: columns["doubt"],
    "probe_nll": lambda columns, policy: np.clip(columns["probe_nll"], 0.0, MOST_NATS),
    "forced_logprob": lambda columns, policy: np.clip(-columns["score"], 0.0, MOST_NATS),
    "avg_logprob": lambda columns, policy: np.clip(-columns["avg_logprob"], 0.0, MOST_NATS),
    "temperature": lambda columns, policy: columns["temperature"],
    "no_speech_prob": lambda columns, policy: columns["no_speech_prob"],
    "speech_rate": lambda columns, policy: _rushed(columns, policy.usual_phonemes_per_s),
}


def features(policy: Policy, columns: Columns, names: tuple[str, ...] = tuple(FEATURES)) -> Floats:
    """The features of every row, shape (rows, names), float32; of a chunk or of a segment alike."""
    found = [np.asarray(FEATURES[name](columns, policy), np.float32) for name in names]
    return np.stack(found, axis=1)


def risk(policy: Policy, columns: Columns) -> Floats:
    """How likely each label is bad as this policy weighs the evidence: 0…1, shape (rows,).

    Raises:
        ValueError: the policy has no weights.
    """
    if policy.weights is None:
        raise ValueError(f"policy {policy.name!r} has no weights")
    odds: Floats | None = None
    for name, weight in weighed(policy.weights).items():
        term = np.asarray(FEATURES[name](columns, policy), np.float32) * np.float32(weight)
        odds = term if odds is None else np.add(odds, term, out=term)
    if odds is None:
        odds = np.zeros(len(columns["score"]), np.float32)
    odds += np.float32(policy.weights.bias)
    return logistic(odds)


def contributions(policy: Policy, columns: Columns) -> dict[str, Floats]:
    """What each feature adds to the log-odds of every row."""
    assert policy.weights is not None
    return {
        name: np.asarray(FEATURES[name](columns, policy), np.float32) * np.float32(weight)
        for name, weight in weighed(policy.weights).items()
    }


def weighed(weights: Weights) -> dict[str, float]:
    """The features with a weight."""
    return {name: weight for name in FEATURES if (weight := getattr(weights, name))}


def logistic(odds: Floats) -> Floats:
    """1 / (1 + e^-odds), without overflow, in place."""
    np.clip(odds, -30.0, 30.0, out=odds)
    np.exp(-odds, out=odds)
    odds += 1
    return np.reciprocal(odds, out=odds)


def _rushed(columns: Columns, usual: float) -> Floats:
    rate = np.maximum(columns["units"], 0.5) / np.maximum(columns["duration_s"], 0.05)
    return np.clip(np.abs(np.log(rate / usual)), 0.0, MOST_RUSHED).astype(np.float32)

"""From evidence to risk: features that each speak against a label, and their weighted sum. Pure, over columns.

Every feature is 0 where nothing speaks against the label and grows with the evidence; weights are not negative, so
risk is monotone in every piece of evidence. A weight bears the name of the column it weighs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from k2d.filtering.policy.metrics import Columns
from k2d.schema import Quorum

Floats = npt.NDArray[np.float32]

MOST_NATS: Final = 5.0  # a token less likely than e^-5 is as good as impossible; what lies below says nothing more
MOST_RATIO: Final = 3.0  # |ln(ratio)|: twenty times too fast or too slow
QUORUM_COLUMNS: Final = {
    Quorum.ANY: "disagreement_least",
    Quorum.MOST: "disagreement_middle",
    Quorum.ALL: "disagreement_most",
}


class Weights(BaseModel):
    """Risk is the logistic function of `bias` plus each weight times its feature (FEATURES).

    No weight is negative: more evidence against a label never makes it look better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bias: float = Field(description="Log-odds of a label against which nothing speaks.")
    disagreement: float = Field(default=0.0, ge=0, description="Distance from the hypotheses by sound, 0…1.")
    homophones: float = Field(default=0.0, ge=0, description="Share of tokens that sound alike and differ in writing.")
    expected_token_error: float = Field(
        default=0.0, ge=0, description="Share of tokens the validators expect to be wrong, 0…1."
    )
    probe_nll: float = Field(default=0.0, ge=0, description="How improbable a probe finds the label, nats a phoneme.")
    forced_logprob: float = Field(
        default=0.0, ge=0, description="How improbable the validators find the label, nats a token."
    )
    avg_logprob: float = Field(default=0.0, ge=0, description="How improbable the teacher found it, nats a token.")
    temperature: float = Field(default=0.0, ge=0, description="The temperature the teacher needed, 0…1.")
    no_speech_prob: float = Field(default=0.0, ge=0, description="The teacher's no-speech probability, 0…1.")
    speech_rate: float = Field(
        default=0.0, ge=0, description="How far the phonemes a second are from usual, as |ln(ratio)|."
    )


class Weighing(Protocol):
    """What of a policy says how evidence is weighed (`k2d.filtering.policy.rules.Policy`)."""

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> Weights | None: ...
    @property
    def quorum(self) -> Quorum: ...
    @property
    def usual_phonemes_per_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Feature:
    """One piece of evidence as risk takes it: the columns it reads, and its value, shape (rows,)."""

    columns: tuple[str, ...]  # empty: the column of the policy's quorum
    value: Callable[[Columns, Weighing], npt.NDArray[Any]]


# a feature for each weight, by the weight's name
FEATURES: Final[Mapping[str, Feature]] = {
    "disagreement": Feature((), lambda columns, policy: columns[QUORUM_COLUMNS[policy.quorum]]),
    "homophones": Feature(("homophones",), lambda columns, _: columns["homophones"]),
    "expected_token_error": Feature(("expected_token_error",), lambda columns, _: columns["expected_token_error"]),
    "probe_nll": Feature(("probe_nll",), lambda columns, _: np.clip(columns["probe_nll"], 0.0, MOST_NATS)),
    "forced_logprob": Feature(
        ("forced_logprob",), lambda columns, _: np.clip(-columns["forced_logprob"], 0.0, MOST_NATS)
    ),
    "avg_logprob": Feature(("avg_logprob",), lambda columns, _: np.clip(-columns["avg_logprob"], 0.0, MOST_NATS)),
    "temperature": Feature(("temperature",), lambda columns, _: columns["temperature"]),
    "no_speech_prob": Feature(("no_speech_prob",), lambda columns, _: columns["no_speech_prob"]),
    "speech_rate": Feature(
        ("phonemes", "duration_s"), lambda columns, policy: _speech_rate(columns, policy.usual_phonemes_per_s)
    ),
}


def features(policy: Weighing, columns: Columns, names: tuple[str, ...] = tuple(FEATURES)) -> Floats:
    """The features of every row, shape (rows, names), float32; of a chunk or of a segment alike."""
    return np.stack([np.asarray(FEATURES[name].value(columns, policy), np.float32) for name in names], axis=1)


def risk(policy: Weighing, columns: Columns) -> Floats:
    """How likely each label is bad as this policy weighs the evidence: 0…1, shape (rows,), float32.

    Raises:
        ValueError: the policy has no weights.
    """
    if policy.weights is None:
        raise ValueError(f"policy {policy.name!r} has no weights")
    odds: Floats | None = None
    for name, weight in nonzero(policy.weights).items():
        term = np.asarray(FEATURES[name].value(columns, policy), np.float32) * np.float32(weight)
        odds = term if odds is None else np.add(odds, term, out=term)
    if odds is None:
        odds = np.zeros(len(columns["homophones"]), np.float32)
    odds += np.float32(policy.weights.bias)
    return logistic(odds)


def contributions(policy: Weighing, columns: Columns) -> dict[str, Floats]:
    """What each feature adds to the log-odds of every row."""
    assert policy.weights is not None
    return {
        name: np.asarray(FEATURES[name].value(columns, policy), np.float32) * np.float32(weight)
        for name, weight in nonzero(policy.weights).items()
    }


def nonzero(weights: Weights) -> dict[str, float]:
    """The features that have a weight, and their weights."""
    return {name: weight for name in FEATURES if (weight := getattr(weights, name))}


def logistic(odds: Floats) -> Floats:
    """1 / (1 + e^-odds), without overflow, in place."""
    np.clip(odds, -30.0, 30.0, out=odds)
    np.exp(-odds, out=odds)
    odds += 1
    return np.reciprocal(odds, out=odds)


def _speech_rate(columns: Columns, usual: float) -> Floats:
    rate = np.maximum(columns["phonemes"], 0.5) / np.maximum(columns["duration_s"], 0.05)
    return np.clip(np.abs(np.log(rate / usual)), 0.0, MOST_RATIO).astype(np.float32)

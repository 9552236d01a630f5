"""Computes the risk of a label: the logistic function of a weighted sum of features of its evidence.

Every feature is 0 where nothing speaks against the label and grows with the evidence against it. Weights are not
negative, so risk is monotone in every feature. A weight has the name of the column that it weighs. docs/adr/0008 gives
the reasons for this form.
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

# Limits of features, so that a single extreme value cannot outweigh everything else. Chosen.
MOST_NATS: Final = 5.0  # a token of probability e^-5 = 0.7 % is as good as impossible
MOST_RATIO: Final = 3.0  # |ln(ratio)|: e^3 = twenty times too fast or too slow
# Least values that a speech rate is computed from, so that its logarithm exists.
LEAST_PHONEMES: Final = 0.5
LEAST_DURATION_S: Final = 0.05
QUORUM_COLUMNS: Final = {
    Quorum.ANY: "disagreement_least",
    Quorum.MOST: "disagreement_middle",
    Quorum.ALL: "disagreement_most",
}


class Weights(BaseModel):
    """The weights of the risk: the logistic function of `bias` plus each weight times its feature (FEATURES).

    No weight is negative, so more evidence against a label never lowers its risk.
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


class RiskSettings(Protocol):
    """The members of a policy (`k2d.filtering.policy.document.Policy`) that determine the risk."""

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
    """One term of the risk."""

    columns: tuple[str, ...]  # that `value` reads; empty: the column of the policy's quorum
    value: Callable[[Columns, RiskSettings], npt.NDArray[Any]]  # shape (rows,)


# the feature of each weight, by name
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
        ("phonemes", "duration_s"), lambda columns, policy: _rate_ratio(columns, policy.usual_phonemes_per_s)
    ),
}


def features(policy: RiskSettings, columns: Columns, names: tuple[str, ...] = tuple(FEATURES)) -> Floats:
    """Compute the features of every row (chunks or segments), shape (rows, names), float32."""
    return np.stack([np.asarray(FEATURES[name].value(columns, policy), np.float32) for name in names], axis=1)


def risk(policy: RiskSettings, columns: Columns) -> Floats:
    """Compute the risk of every row, 0…1, shape (rows,), float32.

        risk(DEFAULT, columns) <= 0.3  # which rows α = 0.3 would keep, rules aside

    Raises:
        ValueError: the policy has no weights.
    """
    if policy.weights is None:
        raise ValueError(f"policy {policy.name!r} has no weights: the risk cannot be computed")
    odds: Floats | None = None
    for name, weight in nonzero(policy.weights).items():
        term = np.asarray(FEATURES[name].value(columns, policy), np.float32) * np.float32(weight)
        odds = term if odds is None else np.add(odds, term, out=term)
    if odds is None:
        odds = np.zeros(len(columns["homophones"]), np.float32)
    odds += np.float32(policy.weights.bias)
    return logistic(odds)


def contributions(policy: RiskSettings, columns: Columns) -> dict[str, Floats]:
    """Compute what each weighted feature adds to the log-odds of every row; shape (rows,) each. Needs weights."""
    assert policy.weights is not None
    return {
        name: np.asarray(FEATURES[name].value(columns, policy), np.float32) * np.float32(weight)
        for name, weight in nonzero(policy.weights).items()
    }


def nonzero(weights: Weights) -> dict[str, float]:
    """The weights that are not 0, by feature."""
    return {name: weight for name in FEATURES if (weight := getattr(weights, name))}


def logistic(odds: Floats) -> Floats:
    """1 / (1 + e^-odds), computed in place."""
    np.clip(odds, -30.0, 30.0, out=odds)  # e^30 does not overflow, and beyond it the result is 0 or 1 in float32
    np.exp(-odds, out=odds)
    odds += 1
    return np.reciprocal(odds, out=odds)


def phonemes_per_s(columns: Columns) -> npt.NDArray[np.floating[Any]]:
    """Compute the speech rate of every row, shape (rows,); never 0, so that its logarithm exists."""
    rate: npt.NDArray[np.floating[Any]] = np.maximum(columns["phonemes"], LEAST_PHONEMES) / np.maximum(
        columns["duration_s"], LEAST_DURATION_S
    )
    return rate


def _rate_ratio(columns: Columns, usual: float) -> Floats:
    """|ln(rate / usual)|, at most MOST_RATIO."""
    ratio: Floats = np.clip(np.abs(np.log(phonemes_per_s(columns) / usual)), 0.0, MOST_RATIO).astype(np.float32)
    return ratio

"""Estimates, without references, which validator shares the teacher's errors least.

Nobody knows which labels are wrong. But where a label is wrong, validators with independent errors tend to disagree
with it together, more often than by chance; a validator that shares the teacher's errors does not. Two measures are
computed for each validator over the same chunks, with rank correlations (Spearman's), because phoneme and text
disagreements have different scales:

- `consensus`: the correlation of its disagreement with the mean disagreement of the others. High if it objects where
the
  others do; near 0 for a copy of the teacher and for a validator that objects at random.
- `follows`: the correlation of its support for labels (its forced log-probability if it gives one, else its agreement)
  with the teacher's own confidence, given the disagreement of the others (a partial correlation). High if it is sure
  wherever the teacher is, more than the others confirm: a sign of shared errors.

    independence = consensus · (1 − max(0, follows))

Validators with the same weights form one family. A family counts as one in the consensus, and its own members are left
out of it if there is another family. Not visible to this method: errors that all validators share; and, with two
validators, which of them is the noisy one (their consensus is the same, and only `follows` differs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A validator objects to a label from this disagreement on; chosen: the same sends a label to a second decode.
OBJECTS: Final = 0.2
# Least number of chunks in common. Below, a rank correlation is arbitrary: its standard error is about 1 / √n.
FEWEST: Final = 20
# Least share of the chunks that a validator must have checked; one with fewer (a second decode) saw only unresolved
# chunks.
SELECTIVE: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """The results of one validator on the compared chunks; NaN where it did not check a chunk."""

    name: str
    family: str  # the same for validators that share weights
    disagreement: Floats  # (chunks,), 0…1
    forced_logprob: Floats  # (chunks,): of the label, mean over tokens; NaN also where the validator gives none
    passes: int  # runs of a model over a chunk, decoding or scoring: the cost


@dataclass(frozen=True, slots=True)
class ValidatorComparison:
    """The result for one validator."""

    name: str
    validated: int  # chunks
    passes: float  # runs of a model per chunk of the corpus
    disagreement: float  # mean
    consensus: float | None  # None where it cannot be compared
    follows: float | None
    independence: float | None
    alone: float | None  # share of the chunks to which it objects and nobody else does
    silent: float | None  # share of the chunks to which all others object and it does not
    first: float | None  # share of the bootstrap samples of chunks in which it is the most independent


@dataclass(frozen=True, slots=True)
class ValidatorsCompared:
    """The validators of the same labels, the most independent first."""

    chunks: int
    validators: list[ValidatorComparison]
    phi: list[tuple[str, str, float | None]]  # correlation of two validators' objections


def compare_validators(
    observations: Sequence[Observations], confidence: Floats, *, draws: int = 100, seed: int = 0
) -> list[ValidatorComparison]:
    """Compare validators over the same chunks: the most independent first, those that cannot be compared last.

        compare_validators(*gather(lake, ["lectures"], most=20_000))[0].name

    Args:
        confidence: the teacher's mean log-probability of each label, shape (chunks,).
        draws: number of bootstrap samples for `first`; 0: none.
    """
    comparable = [value for value in observations if _comparable(value, observations)]
    measures = {value.name: _measures(value, comparable, confidence) for value in comparable}
    firsts = _firsts(comparable, confidence, draws=draws, seed=seed)
    rows = [_comparison(value, comparable, measures.get(value.name), firsts.get(value.name)) for value in observations]
    return sorted(rows, key=lambda row: (row.independence is None, -(row.independence or 0.0), row.name))


def phi(first: Observations, second: Observations) -> float | None:
    """Correlation of two validators' objections over the chunks that both checked, −1…1; None if there are too few."""
    both = np.isfinite(first.disagreement) & np.isfinite(second.disagreement)
    if both.sum() < FEWEST:
        return None
    return _correlation(*(np.where(value.disagreement[both] > OBJECTS, 1.0, 0.0) for value in (first, second)))


def _comparable(validator: Observations, observations: Sequence[Observations]) -> bool:
    validated = np.isfinite(validator.disagreement).sum()
    return bool(len(observations) > 1 and validated >= FEWEST and validated >= SELECTIVE * len(validator.disagreement))


def _measures(
    validator: Observations, comparable: Sequence[Observations], confidence: Floats
) -> tuple[float, float] | None:
    """Consensus and follows; None if too few chunks were also checked by another validator."""
    others = _others(validator, comparable)
    if others is None:
        return None
    both = np.isfinite(validator.disagreement) & np.isfinite(others) & np.isfinite(confidence)
    if both.sum() < FEWEST:
        return None
    has_scores = np.isfinite(validator.forced_logprob[both]).all()
    support = _ranks(validator.forced_logprob[both] if has_scores else -validator.disagreement[both])
    disagreement, consensus = _ranks(validator.disagreement[both]), _ranks(others[both])
    return _correlation(disagreement, consensus), _partial(support, _ranks(confidence[both]), given=consensus)


def _others(validator: Observations, comparable: Sequence[Observations]) -> Floats | None:
    """The others' disagreement with each chunk: mean rank within each family, then over families.

    Shape (chunks,), NaN where nobody else checked the chunk; None if there is nobody else.
    """
    families: dict[str, list[Floats]] = {}
    for other in comparable:
        if other is not validator:
            families.setdefault(other.family, []).append(_scaled(other.disagreement))
    if len(families) > 1:
        families.pop(validator.family, None)
    if not families:
        return None
    return _mean([_mean(members) for members in families.values()])


def _firsts(comparable: Sequence[Observations], confidence: Floats, *, draws: int, seed: int) -> dict[str, float]:
    """The share of bootstrap samples of the chunks in which each validator is the most independent."""
    if len(comparable) < 2 or not draws:
        return {}
    random = np.random.default_rng(seed)
    wins = dict.fromkeys((value.name for value in comparable), 0)
    for _ in range(draws):
        drawn = random.integers(0, len(confidence), len(confidence))
        sample = [
            Observations(value.name, value.family, value.disagreement[drawn], value.forced_logprob[drawn], value.passes)
            for value in comparable
        ]
        measures = {value.name: _measures(value, sample, confidence[drawn]) for value in sample}
        known = {name: _independence(*measured) for name, measured in measures.items() if measured is not None}
        if known:
            wins[max(known, key=lambda name: known[name])] += 1
    return {name: won / draws for name, won in wins.items()}


def _comparison(
    validator: Observations,
    comparable: Sequence[Observations],
    measured: tuple[float, float] | None,
    first: float | None,
) -> ValidatorComparison:
    validated = np.isfinite(validator.disagreement)
    alone, silent = _objections(validator, comparable) if validator in comparable else (None, None)
    return ValidatorComparison(
        name=validator.name,
        validated=int(validated.sum()),
        passes=round(validator.passes / max(1, len(validated)), 4),
        disagreement=round(float(validator.disagreement[validated].mean()), 4) if validated.any() else 0.0,
        consensus=None if measured is None else round(measured[0], 4),
        follows=None if measured is None else round(measured[1], 4),
        independence=None if measured is None else round(_independence(*measured), 4),
        alone=alone,
        silent=silent,
        first=first if measured is not None else None,
    )


def _independence(consensus: float, follows: float) -> float:
    return consensus * (1.0 - max(0.0, follows)) if consensus > 0 else consensus


def _objections(validator: Observations, comparable: Sequence[Observations]) -> tuple[float, float]:
    """The shares of the chunks to which only this validator objects, and to which all others but not this one do."""
    all_validated = np.all([np.isfinite(value.disagreement) for value in comparable], axis=0)
    objects = validator.disagreement[all_validated] > OBJECTS
    others = np.array([value.disagreement[all_validated] > OBJECTS for value in comparable if value is not validator])
    if not len(others) or not all_validated.any():
        return 0.0, 0.0
    alone, silent = objects & ~others.any(axis=0), ~objects & others.all(axis=0)
    return round(float(alone.mean()), 4), round(float(silent.mean()), 4)


# ---- ranks --------------------------------------------------------------------------------------------------------


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, ties sharing their mean; shape (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts + 1) / 2)[inverse]
    return ranks


def _scaled(values: Floats) -> Floats:
    """Ranks scaled to 0…1, so that families have the same weight; NaN stays."""
    scaled = np.full(len(values), np.nan)
    known = np.isfinite(values)
    scaled[known] = _ranks(values[known]) / max(1, known.sum() - 1)
    return scaled


def _mean(rows: Sequence[Floats]) -> Floats:
    """The mean over rows without NaN; NaN where all are."""
    stacked = np.array(rows)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    mean: Floats = np.where(count, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean


def _correlation(first: Floats, second: Floats) -> float:
    """Pearson's correlation; 0 if one of them is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip((a @ b) / scale, -1.0, 1.0)) if scale > 1e-12 else 0.0


def _partial(first: Floats, second: Floats, *, given: Floats) -> float:
    """Partial correlation of two quantities given a third; 0 if the third explains one of them completely."""
    rest = []
    z = given - given.mean()
    weight = float(z @ z)
    for values in (first, second):
        centred = values - values.mean()
        rest.append(centred - (z @ centred) / weight * z if weight else centred)
        if float(rest[-1] @ rest[-1]) <= 1e-9 * float(centred @ centred):
            return 0.0
    return _correlation(*rest)

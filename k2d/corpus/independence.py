"""Which validator shares the teacher's errors least: estimated without a single reference. Pure.

Nobody knows which labels are wrong, but validators with errors of their own agree on it more than chance would have it:
where a label is wrong, each of them tends to transcribe something else. One that shares the teacher's errors does not
object there. Two measures of each validator over the same chunks tell; correlations are of ranks (Spearman's), as
phoneme and text distances have different scales.

- `consensus`: the correlation of its disagreement with the mean disagreement of the others. High: it objects where
  others do. A copy of the teacher, and one that objects at random, are both near 0.
- `follows`: the correlation of its support for labels (its forced log-probability where it gives one, else its
  agreement) with the teacher's own confidence, *given* what the others say (a partial correlation). Sure wherever the
  teacher is, beyond what any other confirms: that is what sharing errors looks like.

    independence = consensus · (1 − max(0, follows))

Validators with the same weights are one family: they count as one in the consensus, and not at all in that of one
another as long as there is another family. What this cannot see: an error that all validators share, and, with two
validators, which of them is the noisy one (the consensus is then the same for both, and `follows` alone decides).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

OBJECTS: Final = (
    0.2  # a validator objects to a label from this disagreement on: what sends a label to a second decode as well
)
FEWEST: Final = 20  # chunks: below, a rank correlation is anything (its standard error is about 1 / √n)
SELECTIVE: Final = 0.5  # a validator of a smaller share got the doubtful chunks only, and cannot be compared


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What one validator made of aligned chunks; NaN where it did not validate one, or gives no forced log-probability."""

    name: str
    family: str  # validators that share weights
    disagreement: Floats  # shape (chunks,), 0…1
    forced_logprob: Floats  # shape (chunks,), of the label, mean over tokens
    passes: int  # of a model over a chunk, decoding or scoring: what it costs


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one validator."""

    name: str
    validated: int  # chunks
    passes: float  # of a model, per chunk of the corpus
    disagreement: float  # its mean
    consensus: float | None  # None where it cannot be compared
    follows: float | None
    independence: float | None
    alone: float | None  # share of chunks to which it objects and nobody else does
    silent: float | None  # share to which all others object and it does not
    first: float | None  # share of bootstrap draws (chunks drawn anew) in which it is the most independent


def standings(
    observations: Sequence[Observations], confidence: Floats, *, draws: int = 100, seed: int = 0
) -> list[Standing]:
    """Compare validators over the same chunks, the most independent first, then those that cannot be compared.

    Args:
        confidence: the teacher's mean log-probability of each label, shape (chunks,).
        draws: bootstrap draws for `first`; 0: none.
    """
    able = [one for one in observations if _comparable(one, observations)]
    found = {one.name: _measures(one, able, confidence) for one in able}
    firsts = _firsts(able, confidence, draws=draws, seed=seed)
    rows = [_standing(one, able, found.get(one.name), firsts.get(one.name)) for one in observations]
    return sorted(rows, key=lambda row: (row.independence is None, -(row.independence or 0.0), row.name))


def phi(one: Observations, other: Observations) -> float | None:
    """How alike two validators object: the correlation of objecting, over chunks that both validated; −1…1."""
    both = np.isfinite(one.disagreement) & np.isfinite(other.disagreement)
    if both.sum() < FEWEST:
        return None
    return _correlation(*(np.where(each.disagreement[both] > OBJECTS, 1.0, 0.0) for each in (one, other)))


def _comparable(one: Observations, observations: Sequence[Observations]) -> bool:
    validated = np.isfinite(one.disagreement).sum()
    return bool(len(observations) > 1 and validated >= FEWEST and validated >= SELECTIVE * len(one.disagreement))


def _measures(one: Observations, able: Sequence[Observations], confidence: Floats) -> tuple[float, float] | None:
    """Consensus and follows; None where no other validated enough of the same chunks."""
    others = _others(one, able)
    if others is None:
        return None
    both = np.isfinite(one.disagreement) & np.isfinite(others) & np.isfinite(confidence)
    if both.sum() < FEWEST:
        return None
    scored = np.isfinite(one.forced_logprob[both]).all()
    support = _ranks(one.forced_logprob[both] if scored else -one.disagreement[both])
    disagreement, consensus, sure = _ranks(one.disagreement[both]), _ranks(others[both]), _ranks(confidence[both])
    return _correlation(disagreement, consensus), _partial(support, sure, given=consensus)


def _others(one: Observations, able: Sequence[Observations]) -> Floats | None:
    """What the others make of each chunk: mean rank of each family, then over families; NaN where none validated it."""
    families: dict[str, list[Floats]] = {}
    for other in able:
        if other is not one:
            families.setdefault(other.family, []).append(_scaled(other.disagreement))
    if len(families) > 1:
        families.pop(one.family, None)
    if not families:
        return None
    return _mean([_mean(members) for members in families.values()])


def _firsts(able: Sequence[Observations], confidence: Floats, *, draws: int, seed: int) -> dict[str, float]:
    """How often each validator is the most independent one when chunks are drawn anew."""
    if len(able) < 2 or not draws:
        return {}
    random = np.random.default_rng(seed)
    wins = dict.fromkeys((one.name for one in able), 0)
    for _ in range(draws):
        drawn = random.integers(0, len(confidence), len(confidence))
        again = [
            Observations(one.name, one.family, one.disagreement[drawn], one.forced_logprob[drawn], one.passes)
            for one in able
        ]
        found = {one.name: _measures(one, again, confidence[drawn]) for one in again}
        known = {name: _independence(*measured) for name, measured in found.items() if measured is not None}
        if known:
            wins[max(known, key=lambda name: known[name])] += 1
    return {name: won / draws for name, won in wins.items()}


def _standing(
    one: Observations, able: Sequence[Observations], measured: tuple[float, float] | None, first: float | None
) -> Standing:
    validated = np.isfinite(one.disagreement)
    alone, silent = _objections(one, able) if one in able else (None, None)
    return Standing(
        name=one.name,
        validated=int(validated.sum()),
        passes=round(one.passes / max(1, len(validated)), 4),
        disagreement=round(float(one.disagreement[validated].mean()), 4) if validated.any() else 0.0,
        consensus=None if measured is None else round(measured[0], 4),
        follows=None if measured is None else round(measured[1], 4),
        independence=None if measured is None else round(_independence(*measured), 4),
        alone=alone,
        silent=silent,
        first=first if measured is not None else None,
    )


def _independence(consensus: float, follows: float) -> float:
    return consensus * (1.0 - max(0.0, follows)) if consensus > 0 else consensus


def _objections(one: Observations, able: Sequence[Observations]) -> tuple[float, float]:
    """The share of chunks to which only this validator objects, and to which all but this one do."""
    all_validated = np.all([np.isfinite(each.disagreement) for each in able], axis=0)
    objects = one.disagreement[all_validated] > OBJECTS
    others = np.array([each.disagreement[all_validated] > OBJECTS for each in able if each is not one])
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
    """Ranks as shares, 0…1, so that families weigh alike; NaN stays."""
    scaled = np.full(len(values), np.nan)
    known = np.isfinite(values)
    scaled[known] = _ranks(values[known]) / max(1, known.sum() - 1)
    return scaled


def _mean(rows: Sequence[Floats]) -> Floats:
    """The mean over rows, of what is there; NaN where nothing is."""
    stacked = np.array(rows)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    mean: Floats = np.where(count, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean


def _correlation(one: Floats, other: Floats) -> float:
    """Pearson's; 0 where one of them never changes: who never says anything else tells nothing."""
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip((a @ b) / scale, -1.0, 1.0)) if scale > 1e-12 else 0.0


def _partial(one: Floats, other: Floats, *, given: Floats) -> float:
    """The correlation of what a third quantity does not explain of two; 0 where it explains one of them wholly."""
    rest = []
    z = given - given.mean()
    weight = float(z @ z)
    for values in (one, other):
        centred = values - values.mean()
        rest.append(centred - (z @ centred) / weight * z if weight else centred)
        if float(rest[-1] @ rest[-1]) <= 1e-9 * float(centred @ centred):
            return 0.0
    return _correlation(*rest)

"""Strategies: any policy, and any chunks, by their distances or with their segments as the columns policies read."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from k2d.corpus import column_files
from k2d.filtering.policy import Columns, Policy, Weights
from k2d.schema import Counts, Distances, Metric, Quorum

DISTANCES = [metric for metric in Metric if metric is not Metric.EVIDENCE]


@dataclass(frozen=True)
class JudgedPart:
    """What `thresholds` and `sweep` take."""

    chunks: Columns
    segments: Columns


# ---- chunks by their distances alone

_small = st.integers(0, 12)
_counts = st.builds(Counts, _small, _small, _small, _small)
some_distances = st.builds(
    Distances,
    mixed=_counts,
    phonemes=_counts,
    teacher_repetition=st.integers(0, 9),
    validator_repetition=st.integers(0, 9),
    phrase=st.none() | st.just("谢谢观看"),
    zh_tokens=_small,
    en_tokens=_small,
)

# ---- policies, and chunks with segments as columns

_optional = st.none() | st.none() | st.none() | st.floats(0, 1)
weights = st.builds(
    Weights,
    bias=st.floats(-8, 2),
    **{name: st.just(0.0) | st.just(0.0) | st.floats(0, 4) for name in Weights.model_fields if name != "bias"},
)
_rules = {
    "name": st.just("any"),
    "reject_empty": st.booleans(),
    "repetition_max": st.integers(1, 9),
    "loops_max": st.none() | st.integers(1, 9),
    "reject_phrases": st.booleans(),
    "reject_echoes": st.booleans(),
    "flip_max": _optional,
    "foreign_max": _optional,
    "min_phonemes_per_s": _optional,
    "max_phonemes_per_s": st.none() | st.floats(1, 90),
    "disagreement_max": _optional,
    "alpha": st.floats(0, 1),
    "quorum": st.sampled_from(Quorum),
    "usual_phonemes_per_s": st.floats(0.5, 20),
}
by_distance = st.builds(Policy, metric=st.sampled_from(DISTANCES), weights=st.none() | weights, **_rules)
by_evidence = st.builds(
    Policy, metric=st.just(Metric.EVIDENCE), weights=weights, salvage=st.sampled_from([True, True, False]), **_rules
)
policies = by_distance | by_evidence


def _part(seed: int, sizes: list[int]) -> JudgedPart:
    """Chunks with this many segments each. Broken rules are rare, so that α decides about most."""
    rng = np.random.default_rng(seed)
    segments = _columns(rng, column_files.SEGMENTS, sum(sizes))
    segments["chunk"] = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    segments["number"] = np.concatenate([np.arange(size) for size in sizes] or [[]]).astype(np.int32)
    return JudgedPart(_columns(rng, column_files.CHUNKS, len(sizes)), segments)


def _columns(rng: np.random.Generator, schema, rows: int) -> dict[str, np.ndarray]:
    made = {}
    for field in schema:
        if field.name in column_files.FLAGS:
            made[field.name] = rng.random(rows) < 0.1
        elif "float" in str(field.type):
            made[field.name] = (rng.random(rows) ** 2).round(2).astype(np.float32)  # two decimals: ties are met
        else:
            made[field.name] = rng.integers(0, 10, rows).astype(np.int32)
    for name in ("teacher_repetition", "validator_repetition", "hypothesis_repetition", "loops", "other_tokens"):
        if name in made:
            made[name][rng.random(rows) < 0.8] = 0
    for name in ("forced_logprob", "avg_logprob"):
        made[name] = -6 * made[name]
    made["duration_s"] = (rng.random(rows) * 3 * (rng.random(rows) < 0.9)).round(3).astype(np.float32)
    made["ms"] = np.rint(made["duration_s"].astype(np.float64) * 1000).astype(np.int32)
    return made


parts = st.builds(_part, st.integers(0, 2**32), st.lists(st.integers(0, 4), min_size=1, max_size=12) | st.just([]))

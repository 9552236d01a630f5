"""Rates of a whole corpus under a policy: its usual speech rate, and the seconds each α keeps. Bounded memory."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.corpus.calibration.draw import Floats, Parts
from k2d.corpus.index import DistinctPart
from k2d.filtering.policy import Policy, RowSubset, thresholds
from k2d.filtering.policy.risk import phonemes_per_s
from k2d.schema import Metric

STEPS: Final = 10_000  # α is written with four decimals
ALPHAS: Final = np.round(np.arange(STEPS + 1) / STEPS, 4)
CANDIDATES: Final = 50  # α that are tried, evenly spaced over the seconds that the largest keeps

# Logarithms of phonemes a second, counted in bins: e^-5 … e^5, 1 % apart.
_BINS: Final = np.arange(-5.0, 5.0, 0.01)
# Further from the usual rate than this many standard deviations (robust: 1.4826 × the median distance from the median)
# is not how these people speak.
OUTLYING: Final = 5.0
_SD_OF_MAD: Final = 1.4826
LEAST_REACH: Final = float(np.log(3.0))  # nobody is ruled out for speaking up to three times as fast or slow as usual


@dataclass(frozen=True, slots=True)
class SpeechRate:
    """Phonemes a second over the segments that a policy can keep."""

    usual: float  # median
    least: float
    most: float
    segments: int


@dataclass(frozen=True, slots=True, eq=False)
class Seconds:
    """What each of ALPHAS keeps."""

    kept: Floats  # shape (STEPS + 1,)
    total: float  # of all chunks

    def at(self, alpha: float) -> float:
        return float(self.kept[round(alpha * STEPS)])

    def candidates(self) -> Floats:
        """The α worth trying, ascending: each keeps about a fiftieth of what the largest keeps more than the last."""
        wanted = self.kept[-1] * np.arange(1, CANDIDATES + 1) / CANDIDATES
        places = np.minimum(np.searchsorted(self.kept, wanted - 1e-6), STEPS)
        return ALPHAS[np.unique(places)] if self.kept[-1] > 0 else ALPHAS[:0]


def speech_rate(parts: Parts, policy: Policy) -> SpeechRate | None:
    """How fast people speak in this corpus; None where a policy can keep nothing of it."""
    counted = np.zeros(len(_BINS) + 1)
    for part in parts():
        there = np.isfinite(thresholds(policy, part).segments)
        rate = np.log(phonemes_per_s(RowSubset(part.segments, np.flatnonzero(there))))
        counted += np.bincount(np.digitize(rate, _BINS), minlength=len(counted))
    if not counted.sum():
        return None
    middles = np.concatenate([[_BINS[0]], _BINS + 0.005])
    usual = _median(middles, counted)
    apart = np.abs(middles - usual)
    order = np.argsort(apart, kind="stable")
    spread = max(LEAST_REACH, OUTLYING * _SD_OF_MAD * _median(apart[order], counted[order]))
    least, middle, most = (float(np.exp(value)) for value in (usual - spread, usual, usual + spread))
    return SpeechRate(round(middle, 2), round(least, 2), round(most, 2), int(counted.sum()))


def ranged(policy: Policy, rate: SpeechRate | None) -> Policy:
    """The policy with this corpus's speech rate. Its limits may only get narrower: what was ruled out stays so."""
    if rate is None or policy.metric is not Metric.EVIDENCE:
        return policy
    least = max(rate.least, policy.min_phonemes_per_s or 0.0)
    most = min(rate.most, policy.max_phonemes_per_s or float("inf"))
    changes = {"usual_phonemes_per_s": rate.usual, "min_phonemes_per_s": least, "max_phonemes_per_s": most}
    return policy.model_copy(update=changes)


def seconds_kept(parts: Parts, policy: Policy) -> Seconds:
    """The seconds every α would keep: whole chunks, and of the others the segments that are salvaged."""
    gained, total_ms = np.zeros(STEPS + 2), 0
    for part in parts():
        total_ms += int(part.chunks["ms"].sum())
        gained += _gained_ms(policy, part)
    return Seconds(np.maximum(np.cumsum(gained)[:-1], 0.0) / 1000, total_ms / 1000)


def _gained_ms(policy: Policy, part: DistinctPart) -> Floats:
    """Milliseconds that each of ALPHAS keeps more than the one before, shape (STEPS + 2,); the last: never kept."""
    least = thresholds(policy, part)
    segment_ms, chunk_ms = part.segments["ms"].astype(np.float64), part.chunks["ms"].astype(np.float64)
    earlier = least.segments < least.chunks[least.chunk]  # salvaged below the α that keeps the whole chunk
    salvaged = np.bincount(least.chunk[earlier], segment_ms[earlier], minlength=len(chunk_ms))
    size = STEPS + 2
    alone = np.bincount(_place(least.segments[earlier]), segment_ms[earlier], minlength=size)
    return np.asarray(alone + np.bincount(_place(least.chunks), chunk_ms - salvaged, minlength=size), np.float64)


def _place(threshold: Floats) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The first of ALPHAS that is not below, compared as `decide` compares; STEPS + 1 where none is."""
    return np.searchsorted(ALPHAS.astype(threshold.dtype), threshold, side="left")


def _median(values: Floats, counted: Floats) -> float:
    return float(values[np.searchsorted(np.cumsum(counted), counted.sum() / 2)])

"""Properties of a whole corpus under a policy: its usual speech rate, and the seconds that each α keeps.

Both are computed from histograms, part by part, so memory does not grow with the corpus.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.corpus.calibration.draw import Floats, Parts
from k2d.corpus.distinct import DistinctPart
from k2d.filtering.policy import Policy, RowSubset, thresholds
from k2d.filtering.policy.risk import phonemes_per_s
from k2d.schema import Metric

STEPS: Final = 10_000  # α has four decimals
ALPHAS: Final = np.round(np.arange(STEPS + 1) / STEPS, 4)
CANDIDATES: Final = 50  # α that are tested, evenly spaced in the seconds they keep; chosen

# Bins of the histogram of ln(phonemes per second): e^-5 … e^5, 1 % apart.
_BIN: Final = 0.01
_BINS: Final = np.arange(-5.0, 5.0, _BIN)
# Limits of plausible speech rates, in standard deviations of the logarithm around its median; chosen. The deviation is
# estimated robustly, as 1.4826 × the median absolute deviation (exact for a normal distribution).
OUTLYING: Final = 5.0
_SD_OF_MAD: Final = 1.4826
LEAST_REACH: Final = float(np.log(3.0))  # chosen: three times faster or slower than usual is always plausible


@dataclass(frozen=True, slots=True)
class SpeechRate:
    """Phonemes per second of the segments that a policy can keep."""

    usual: float  # median
    least: float  # limits of plausible rates
    most: float
    segments: int  # how many there are


@dataclass(frozen=True, slots=True, eq=False)
class SecondsKept:
    """The seconds that each of ALPHAS keeps."""

    kept: Floats  # (STEPS + 1,)
    total: float  # of all chunks

    def at(self, alpha: float) -> float:
        """The seconds that one α keeps."""
        return float(self.kept[round(alpha * STEPS)])

    def candidates(self) -> Floats:
        """The α to test, ascending: CANDIDATES, evenly spaced in the seconds they keep, fewer where α coincide."""
        wanted = self.kept[-1] * np.arange(1, CANDIDATES + 1) / CANDIDATES
        places = np.minimum(np.searchsorted(self.kept, wanted - 1e-6), STEPS)
        return ALPHAS[np.unique(places)] if self.kept[-1] > 0 else ALPHAS[:0]


def speech_rate(parts: Parts, policy: Policy) -> SpeechRate | None:
    """Measure the speech rate of a corpus; None if the policy can keep no segment of it."""
    counted = np.zeros(len(_BINS) + 1)
    for part in parts():
        there = np.isfinite(thresholds(policy, part).segments)
        rate = np.log(phonemes_per_s(RowSubset(part.segments, np.flatnonzero(there))))
        counted += np.bincount(np.digitize(rate, _BINS), minlength=len(counted))
    if not counted.sum():
        return None
    middles = np.concatenate([[_BINS[0]], _BINS + _BIN / 2])
    usual = _median(middles, counted)
    apart = np.abs(middles - usual)
    order = np.argsort(apart, kind="stable")
    spread = max(LEAST_REACH, OUTLYING * _SD_OF_MAD * _median(apart[order], counted[order]))
    least, middle, most = (float(np.exp(value)) for value in (usual - spread, usual, usual + spread))
    return SpeechRate(round(middle, 2), round(least, 2), round(most, 2), int(counted.sum()))


def with_rate(policy: Policy, rate: SpeechRate | None) -> Policy:
    """Return the policy with the corpus's speech rate. Its limits only become narrower, never wider.

    Wider limits would keep segments that could not be drawn for review.
    """
    if rate is None or policy.metric is not Metric.EVIDENCE:
        return policy
    least = max(rate.least, policy.min_phonemes_per_s or 0.0)
    most = min(rate.most, policy.max_phonemes_per_s or float("inf"))
    changes = {"usual_phonemes_per_s": rate.usual, "min_phonemes_per_s": least, "max_phonemes_per_s": most}
    return policy.model_copy(update=changes)


def seconds_kept(parts: Parts, policy: Policy) -> SecondsKept:
    """Compute the seconds that each α keeps: whole chunks, and salvaged segments of the others."""
    gained, total_ms = np.zeros(STEPS + 2), 0
    for part in parts():
        total_ms += int(part.chunks["ms"].sum())
        gained += _gained_ms(policy, part)
    return SecondsKept(np.maximum(np.cumsum(gained)[:-1], 0.0) / 1000, total_ms / 1000)


def _gained_ms(policy: Policy, part: DistinctPart) -> Floats:
    """Milliseconds kept at each of ALPHAS but not at the one before, shape (STEPS + 2,); the last: never kept."""
    least = thresholds(policy, part)
    segment_ms, chunk_ms = part.segments["ms"].astype(np.float64), part.chunks["ms"].astype(np.float64)
    earlier = least.segments < least.chunks[least.chunk]  # salvaged before the whole chunk is kept
    salvaged = np.bincount(least.chunk[earlier], segment_ms[earlier], minlength=len(chunk_ms))
    size = STEPS + 2
    alone = np.bincount(_place(least.segments[earlier]), segment_ms[earlier], minlength=size)
    return np.asarray(alone + np.bincount(_place(least.chunks), chunk_ms - salvaged, minlength=size), np.float64)


def _place(threshold: Floats) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The index of the first of ALPHAS at or above each threshold, compared as in `decide`; STEPS + 1 if none is."""
    return np.searchsorted(ALPHAS.astype(threshold.dtype), threshold, side="left")


def _median(values: Floats, counted: Floats) -> float:
    """The median of a histogram: ascending values and how often each occurs."""
    return float(values[np.searchsorted(np.cumsum(counted), counted.sum() / 2)])

"""Draws the segments to review: independent draws with known probabilities, so that few reviews represent all segments.

The probability of a segment is proportional to its size: the most edits and reference tokens that it can count for.
Nine tenths of the draws are made from everything that the policy can keep; one tenth is distributed evenly over strata
of risk, so that the whole range of α is covered. The weight of a draw, which corrects for this, is therefore at most 10
/ 9 for any corpus. `k2d.corpus.calibration.bound` relies on that limit, and proves more the smaller it is. Draws are
made with replacement, so they are independent, which is all the bound needs. A segment that is drawn twice is reviewed
once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.distinct import DistinctPart
from k2d.errors import BadRequest
from k2d.filtering.policy import Columns, Policy, evidence_tokens, thresholds

EVEN: Final = 0.1  # share of the draws that is distributed evenly over the strata; chosen
MOST_WEIGHT: Final = 1 / (1 - EVEN)
STRATA: Final = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8])  # inner edges of nine strata of risk; chosen
# Reference tokens per second of a segment, if that is more than the tokens of its label: Mandarin has 4 to 5 syllables
# a second, English 2.5 to 3 words. Only labels that lack much of fast speech exceed it; these count with the same error
# rate and a little less weight.
MOST_TOKENS_PER_S: Final = 4.5

Floats = npt.NDArray[np.floating[Any]]
Parts = Callable[[], Iterator[DistinctPart]]  # returns a new iterator over the population at each call


@dataclass(frozen=True, slots=True)
class Draw:
    """A segment that was drawn at least once."""

    facts_key: str
    recording: str  # the source's name
    label_key: str
    chunk: int
    segment: int
    risk: float  # the least α of the drawing policy that keeps it
    size: float  # in tokens
    weight: float  # 0 … MOST_WEIGHT
    draws: tuple[int, ...]  # the numbers of its draws, from 0


@dataclass(frozen=True, slots=True)
class Population:
    """The segments that the draws were made from."""

    recordings: int
    segments: int
    reachable: int  # segments that some α keeps; only these are drawn
    seconds: float  # of all segments
    reachable_s: float
    strata: tuple[float, ...]  # total size in each stratum of risk


def chances_of(mass: Floats) -> tuple[Floats, Floats]:
    """Compute each stratum's probability and the weight of a draw in it, shape (strata,) each, from its size `mass`."""
    even, whole = (mass > 0) / np.count_nonzero(mass), mass / mass.sum()
    chances = (1 - EVEN) * whole + EVEN * even
    weights = np.divide(whole, chances, out=np.zeros_like(whole), where=chances > 0)
    return chances / chances.sum(), np.minimum(weights, MOST_WEIGHT)


def sizes(segments: Columns) -> Floats:
    """Compute the size of each segment: the most reference tokens and edits it counts for; shape (segments,)."""
    seconds = MOST_TOKENS_PER_S * segments["duration_s"].astype(np.float64)
    return np.asarray(np.maximum(np.maximum(evidence_tokens(segments), seconds), 1.0), np.float64)


def draw(parts: Parts, policy: Policy, *, count: int, seed: int) -> tuple[list[Draw], Population]:
    """Draw `count` times from the segments that `policy` keeps at some α.

        drawn, population = draw(partial(distinct_parts, lake, batches), policy, count=400, seed=0)

    Segments are returned in the order of their first draw, so the first reviews are a random sample as well. Makes two
    passes over the population, with bounded memory.

    Raises:
        BadRequest: no α keeps anything.
    """
    population = measure(parts, policy)
    mass = np.array(population.strata)
    if not mass.sum():
        raise BadRequest("there is nothing to review: the policy's rules reject every segment, whatever α is")
    chances, weights = chances_of(mass)
    rng = np.random.default_rng(seed)
    strata = rng.choice(len(mass), count, p=chances)
    places = rng.random(count) * mass[strata]  # position of each draw within the total size of its stratum
    drawn = {
        (segment.facts_key, segment.chunk, segment.segment): segment
        for segment in _drawn_segments(parts, policy, strata, places, weights, mass)
    }
    return sorted(drawn.values(), key=lambda segment: segment.draws), population


def measure(parts: Parts, policy: Policy) -> Population:
    """Count the segments that the policy can keep at some α, and their sizes in each stratum of risk."""
    mass, recordings, segments, reachable, seconds, reachable_s = np.zeros(len(STRATA) + 1), 0, 0, 0, 0.0, 0.0
    for part in parts():
        risk = thresholds(policy, part).segments
        there = np.isfinite(risk)
        lengths = part.segments["duration_s"].astype(np.float64)
        mass += np.bincount(_strata(risk[there]), sizes(part.segments)[there], minlength=len(mass))
        recordings += int(part.fresh.sum())
        segments += len(risk)
        reachable += int(there.sum())
        seconds += float(lengths.sum())
        reachable_s += float(lengths[there].sum())
    return Population(recordings, segments, reachable, round(seconds, 3), round(reachable_s, 3), tuple(mass.tolist()))


def _drawn_segments(
    parts: Parts,
    policy: Policy,
    strata: npt.NDArray[Any],
    places: Floats,
    weights: Floats,
    mass: Floats,
) -> Iterator[Draw]:
    """Iterate over the drawn segments. In each stratum, segments lie end to end by size, in the population's order."""
    before = np.zeros(len(mass))
    for part in parts():
        risk = thresholds(policy, part).segments
        size, there = sizes(part.segments), np.isfinite(risk)
        stratum = np.where(there, _strata(risk), -1)
        hits: dict[int, list[int]] = {}
        for number in np.unique(stratum[there]).tolist():
            rows = np.flatnonzero(stratum == number)
            ends = before[number] + np.cumsum(size[rows])
            last = len(rows) - 1
            # by rounding, the last end may be below the total size: draws beyond it are the last segment's
            limit = np.inf if np.isclose(ends[-1], mass[number], rtol=1e-12) else ends[-1]
            draws = np.flatnonzero((strata == number) & (places >= before[number]) & (places < limit))
            for number_of_draw in draws.tolist():
                row = int(rows[min(last, int(np.searchsorted(ends, places[number_of_draw], side="right")))])
                hits.setdefault(row, []).append(number_of_draw)
            before[number] = ends[-1]
        yield from draws_of(part, hits, risk=risk, size=size, weights=weights[stratum])


def draws_of(
    part: DistinctPart, hits: dict[int, list[int]], *, risk: Floats, size: Floats, weights: Floats
) -> Iterator[Draw]:
    """The drawn segments of a part. `hits`: the numbers of the draws of each row."""
    if not hits:
        return
    recordings = part.part.recordings
    names = {name: recordings.column(name) for name in ("facts_key", "label_key", "recording")}
    for row, draws in hits.items():
        chunk = int(part.segments["chunk"][row])
        recording = int(recordings.of_chunk(part.rows[[chunk]])[0])
        yield Draw(
            facts_key=names["facts_key"][recording],
            recording=names["recording"][recording],
            label_key=names["label_key"][recording],
            chunk=int(part.chunks["index"][chunk]),
            segment=int(part.segments["number"][row]),
            risk=float(risk[row]),
            size=float(size[row]),
            weight=float(weights[row]),
            draws=tuple(draws),
        )


def _strata(risk: Floats) -> npt.NDArray[np.int64]:
    return np.digitize(risk, STRATA)

"""Which segments to review: independent draws whose chances are known, so that few reviews speak for all segments.

Each draw falls on a segment in proportion to its size, the most edits and reference tokens it can count for. Nine
tenths of the draws fall in proportion to size over everything a policy can keep; one tenth is spread evenly over strata
of risk, so that the whole range of α is covered. A draw's weight (what it stands for, against an even draw) is
therefore at most 10 / 9, whatever the corpus: `k2d.corpus.calibration.bound` rests on that, and the smaller it is, the more
is proved. Draws are with replacement: they are independent, and the bound needs no more than that. A segment that is
drawn twice is reviewed once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.index import DistinctPart
from k2d.errors import BadRequest
from k2d.filtering.policy import Columns, Policy, evidence_tokens, thresholds

EVEN: Final = 0.1  # share of the draws that is spread evenly over the strata
MOST_WEIGHT: Final = 1 / (1 - EVEN)
STRATA: Final = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8])  # inner edges of risk; nine strata
# A segment counts for at most as many reference tokens as its label has, or as its span usually holds if that is more:
# Mandarin has 4 to 5 syllables a second, English 2.5 to 3 words. Only labels that lack much of fast speech reach this;
# they then count with the same error rate and a little less weight.
MOST_TOKENS_PER_S: Final = 4.5

Floats = npt.NDArray[np.floating[Any]]
Parts = Callable[[], Iterator[DistinctPart]]  # the population from its start, each time it is called


@dataclass(frozen=True, slots=True)
class Draw:
    """A segment that was drawn, and everything the estimate needs to know of the draw."""

    facts_key: str
    recording: str  # the source's name
    label_key: str
    chunk: int
    segment: int
    risk: float  # the least α of the drawing policy that keeps it
    size: float  # in tokens
    weight: float  # 0 … MOST_WEIGHT
    draws: tuple[int, ...]  # which of the draws fell on it; from 0


@dataclass(frozen=True, slots=True)
class Population:
    """What was drawn from."""

    recordings: int
    segments: int
    reachable: int  # of them, those that some α keeps; no other is drawn
    seconds: float  # of all segments
    reachable_s: float
    strata: tuple[float, ...]  # size in each stratum of risk


def chances_of(mass: Floats) -> tuple[Floats, Floats]:
    """Each stratum's share of the draws, and the weight of a draw in it, shape (strata,) both; `mass` is its size."""
    even, whole = (mass > 0) / np.count_nonzero(mass), mass / mass.sum()
    chances = (1 - EVEN) * whole + EVEN * even
    weights = np.divide(whole, chances, out=np.zeros_like(whole), where=chances > 0)
    return chances / chances.sum(), np.minimum(weights, MOST_WEIGHT)


def sizes(segments: Columns) -> Floats:
    """The most reference tokens and edits each segment counts for, shape (segments,)."""
    seconds = MOST_TOKENS_PER_S * segments["duration_s"].astype(np.float64)
    return np.asarray(np.maximum(np.maximum(evidence_tokens(segments), seconds), 1.0), np.float64)


def draw(parts: Parts, policy: Policy, *, count: int, seed: int) -> tuple[list[Draw], Population]:
    """Draw `count` times from what `policy` keeps at some α. In two passes over the population, in bounded memory.

    The segments come in the order of their first draw: reviews of the first so many are draws as good as all.

    Raises:
        BadRequest: no α keeps anything.
    """
    population = _measure(parts, policy)
    mass = np.array(population.strata)
    if not mass.sum():
        raise BadRequest("there is nothing to review: the policy's rules reject every segment, whatever α is")
    chances, weights = chances_of(mass)
    rng = np.random.default_rng(seed)
    strata = rng.choice(len(mass), count, p=chances)
    places = rng.random(count) * mass[strata]  # how far into its stratum's size each draw falls
    found: dict[tuple[str, int, int], Draw] = {}
    for one in _walk(parts, policy, strata, places, weights, mass):
        key = (one.facts_key, one.chunk, one.segment)
        found[key] = one
    return sorted(found.values(), key=lambda one: one.draws), population


def _measure(parts: Parts, policy: Policy) -> Population:
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


def _walk(
    parts: Parts,
    policy: Policy,
    strata: npt.NDArray[Any],
    places: Floats,
    weights: Floats,
    mass: Floats,
) -> Iterator[Draw]:
    """The segments on which the draws fall: in each stratum, sizes are laid end to end in the population's order."""
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
            # the last end may miss the whole size by rounding: what falls behind it is the last segment's
            limit = np.inf if np.isclose(ends[-1], mass[number], rtol=1e-12) else ends[-1]
            mine = np.flatnonzero((strata == number) & (places >= before[number]) & (places < limit))
            for place in mine.tolist():
                row = int(rows[min(last, int(np.searchsorted(ends, places[place], side="right")))])
                hits.setdefault(row, []).append(place)
            before[number] = ends[-1]
        yield from _drawn(part, hits, risk=risk, size=size, weights=weights[stratum])


def _drawn(
    part: DistinctPart, hits: dict[int, list[int]], *, risk: Floats, size: Floats, weights: Floats
) -> Iterator[Draw]:
    """The segments of a part (its rows) on which draws fell."""
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

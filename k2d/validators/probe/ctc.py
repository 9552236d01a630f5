"""The inference half of connectionist temporal classification: the best path, and the best path of a given text.

Log posteriors are float arrays of shape (frames, units); unit 0 is the blank. Source: Graves et al., "Connectionist
Temporal Classification", 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

BLANK: Final = 0
# The least log-probability of a frame, and the cost of leaving a unit out: a hundredth of a uniform probability over a
# hundred units. Because units may be left out, every text has a path, even if it is longer than the audio.
FLOOR: Final = float(np.log(1e-4))

Posteriors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BestPath:
    """The most probable path: its units without blanks and repeats, and its log-probability over all frames."""

    units: tuple[int, ...]
    logprob: float


def best_path(posteriors: Posteriors) -> BestPath:
    """Take the most probable unit of each frame, then drop repeats and blanks."""
    if not len(posteriors):
        return BestPath((), 0.0)
    path = posteriors.argmax(axis=1)
    changes = np.concatenate(([True], path[1:] != path[:-1]))
    units = path[changes & (path != BLANK)]
    return BestPath(tuple(units.tolist()), float(posteriors.max(axis=1).clip(FLOOR).sum(dtype=np.float64)))


def align(posteriors: Posteriors, units: Sequence[int]) -> npt.NDArray[np.float64]:
    """The log-probability of a text's best path, attributed to its units; shape (units,), ≤ 0.

    A frame's log-probability is attributed to the frame's unit; that of a blank frame to the unit before it, or to the
    first unit. A unit may be left out at a cost of `FLOOR`. The values add up to the path's log-probability.
    """
    if not len(units):
        return np.zeros(0)
    emissions = _emissions(posteriors, units)
    return _trace(emissions, *_forward(emissions, units))


def _emissions(posteriors: Posteriors, units: Sequence[int]) -> npt.NDArray[np.float64]:
    """Log posteriors of the states blank, u1, blank, u2, … blank; shape (frames, 2 · units + 1)."""
    states = np.zeros(2 * len(units) + 1, np.intp)
    states[1::2] = units
    emissions: npt.NDArray[np.float64] = posteriors[:, states].astype(np.float64).clip(FLOOR, 0.0)
    return emissions


_Back = npt.NDArray[np.int32]


def _forward(emissions: npt.NDArray[np.float64], units: Sequence[int]) -> tuple[_Back, _Back, int]:
    """The Viterbi forward pass.

    Returns:
        For each frame, the previous state of each state, shape (frames, states); for each blank, the blank from which
        it was reached by leaving units out, before each frame and after the last, shape (frames + 1, units + 1); the
        best path's last state.
    """
    frames, states = emissions.shape
    ids = np.asarray(units)
    may_jump = np.zeros(states, bool)  # from a unit to the next without a blank, if they differ
    may_jump[3::2] = ids[1:] != ids[:-1]
    skip_cost = np.arange(len(units) + 1, dtype=np.float64) * FLOOR
    came_from = np.zeros((frames, states), np.int32)
    skipped_from = np.zeros((frames + 1, len(units) + 1), np.int32)
    here = np.arange(states, dtype=np.int32)
    score = np.full(states, -np.inf)
    score[0] = 0.0
    skipped_from[0] = _skip(score, skip_cost)
    for frame in range(frames):
        step = np.concatenate(([-np.inf], score[:-1]))
        jump = np.where(may_jump, np.concatenate(([-np.inf, -np.inf], score[:-2])), -np.inf)
        moved = np.maximum(step, jump)
        came_from[frame] = here - np.where(moved > score, np.where(jump > step, 2, 1), 0)
        score = np.maximum(moved, score) + emissions[frame]
        skipped_from[frame + 1] = _skip(score, skip_cost)
    end = states - 1 if score[-1] >= score[-2] else states - 2
    return came_from, skipped_from, end


def _skip(score: npt.NDArray[np.float64], skip_cost: npt.NDArray[np.float64]) -> _Back:
    """Allow blanks to be reached from earlier blanks, leaving out the units between at a cost; changes `score`.

    Returns, for each blank, the blank it was reached from (mostly itself).
    """
    blanks = score[::2] - skip_cost  # score without the cost up to here, so that origins can be compared
    best_so_far = np.maximum.accumulate(blanks)
    origin = np.maximum.accumulate(np.where(blanks == best_so_far, np.arange(len(blanks), dtype=np.int32), 0))
    score[::2] = np.where(origin == np.arange(len(blanks)), score[::2], best_so_far + skip_cost)
    return origin.astype(np.int32)


def _trace(
    emissions: npt.NDArray[np.float64], came_from: _Back, skipped_from: _Back, end: int
) -> npt.NDArray[np.float64]:
    """Follow the best path backwards, and attribute each frame and each unit left out to a unit; shape (units,)."""
    count = emissions.shape[1] // 2
    attributed = np.zeros(count)
    state = end
    for frame in range(len(emissions) - 1, -2, -1):
        if state % 2 == 0:
            origin = int(skipped_from[frame + 1][state // 2])
            attributed[origin : state // 2] += FLOOR
            state = 2 * origin
        if frame >= 0:
            attributed[max(0, (state - 1) // 2)] += emissions[frame, state]
            state = int(came_from[frame, state])
    return attributed

"""Chooses the segments whose review is worth most: near the policy's boundary, and unlike one another.

They make good data, and show where a policy errs. They are no random sample, so nothing can be proved by them.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.calibration.draw import Draw, Floats, Parts, Population, draws_of, measure, sizes
from k2d.corpus.distinct import DistinctPart
from k2d.filtering.policy import Policy, thresholds

# All constants are chosen.
NEAR: Final = 0.1  # of α: a segment this far from the boundary is worth 1/e of one on it
POOL: Final = 20  # candidates for each segment that is chosen
AGAIN: Final = 0.5  # what another segment of the same recording, or of the same kind, is worth
KINDS: Final = np.array([0.05, 0.2, 0.5])  # edges of disagreement and of the share of English: sixteen kinds


def choose(parts: Parts, policy: Policy, *, count: int) -> tuple[list[Draw], Population]:
    """Choose up to `count` segments, the most valuable first; each is "drawn" once, in this order, with weight 1.

        chosen, population = choose(partial(distinct_parts, lake, batches), DEFAULT, count=100)

    The value of a segment falls with its distance from the policy's α, and halves with each one of the same recording
    or of the same kind (disagreement, share of English) that was chosen before it. Memory does not grow with the
    corpus.
    """
    population = measure(parts, policy)
    near, places, kinds, recordings = _pool(parts, policy, count * POOL)
    order = _greedy(near, kinds, recordings, count)
    ranks = {tuple(places[row]): rank for rank, row in enumerate(order.tolist())}
    return sorted(_drawn(parts, policy, ranks), key=lambda segment: segment.draws), population


def _pool(parts: Parts, policy: Policy, most: int) -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats]:
    """The `most` segments nearest the boundary: nearness, (part, row), kind, recording; shape (pool, …) each."""
    columns: list[npt.NDArray[np.float64]] = []
    first = 0  # number of the part's first recording
    for number, part in enumerate(parts()):
        risk = thresholds(policy, part).segments.astype(np.float64)
        rows = np.flatnonzero(np.isfinite(risk))
        near = np.exp(-np.abs(risk[rows] - policy.alpha) / NEAR)
        best = np.argsort(-near, kind="stable")[:most]
        rows, near = rows[best], near[best]
        recording = part.part.recordings.of_chunk(part.rows[part.segments["chunk"][rows]])
        table = [near, np.full(len(rows), number), rows, _kinds(part, rows), first + recording]
        columns.append(np.stack(table, axis=1).astype(np.float64))
        first += len(part.part.recordings)
        if sum(map(len, columns)) > 2 * most:
            columns = [_best(columns, most)]
    pool = _best(columns, most)
    return pool[:, 0], pool[:, 1:3].astype(np.int64), pool[:, 3], pool[:, 4]


def _best(columns: list[npt.NDArray[np.float64]], most: int) -> npt.NDArray[np.float64]:
    table = np.concatenate([np.empty((0, 5)), *columns])
    return table[np.argsort(-table[:, 0], kind="stable")[:most]]


def _kinds(part: DistinctPart, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    segments = part.segments
    zh, en = segments["zh_tokens"][rows].astype(np.float64), segments["en_tokens"][rows].astype(np.float64)
    disagreement = np.digitize(segments["disagreement_middle"][rows], KINDS)
    return np.asarray(disagreement * (len(KINDS) + 1) + np.digitize(en / np.maximum(1.0, zh + en), KINDS))


def _greedy(near: Floats, kinds: Floats, recordings: Floats, count: int) -> npt.NDArray[np.int64]:
    """The rows to choose, in order: each time the most valuable, given those before."""
    value = near.astype(np.float64).copy()
    chosen = []
    for _ in range(min(count, len(value))):
        row = int(np.argmax(value))
        chosen.append(row)
        value[recordings == recordings[row]] *= AGAIN
        value[kinds == kinds[row]] *= AGAIN
        value[row] = -1.0
    return np.array(chosen, np.int64)


def _drawn(parts: Parts, policy: Policy, ranks: dict[tuple[int, ...], int]) -> list[Draw]:
    segments: list[Draw] = []
    for number, part in enumerate(parts()):
        hits = {row: [rank] for (own, row), rank in ranks.items() if own == number}
        if hits:
            risk = thresholds(policy, part).segments
            ones = np.ones(len(risk))
            segments += draws_of(part, hits, risk=risk, size=sizes(part.segments), weights=ones)
    return segments

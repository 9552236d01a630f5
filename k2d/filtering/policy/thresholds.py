"""What a policy keeps at every α: the least α that keeps each chunk and each segment.

Everything else about a corpus follows from these thresholds: what is kept at α is `threshold <= α`, a curve over α is a
histogram of the thresholds, a ledger is a sum over what is kept.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import risk as risks
from k2d.filtering.policy.columns import RowSubset
from k2d.filtering.policy.document import Policy
from k2d.filtering.policy.metrics import Columns, Floats, distances
from k2d.filtering.policy.rules import Flags, broken_rules
from k2d.schema import Metric

Rows = npt.NDArray[np.intp]


class PartColumns(Protocol):
    """Chunks and their segments as columns (`k2d.corpus.index.Part`, or a dataclass with two mappings)."""

    @property
    def chunks(self) -> Columns:
        """COLUMNS and `ms` (duration) of every chunk; shape (chunks,) each."""
        ...

    @property
    def segments(self) -> Columns:
        """EVIDENCE_COLUMNS, `ms` and `chunk` (row of its chunk) of every segment; shape (segments,) each."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """The least α that keeps each chunk whole, and each segment (with its chunk, or salvaged).

    Infinite where a rule rejects it. In the precision of the metric: a row is kept at α if its threshold <= α.
    """

    chunks: Floats  # (chunks,)
    segments: Floats  # (segments,)
    chunk: npt.NDArray[Any]  # (segments,): the row of each segment's chunk

    def whole(self, alpha: float) -> Flags:
        """Which chunks are kept whole at α, shape (chunks,)."""
        whole: Flags = self.chunks <= alpha
        return whole

    def salvaged(self, alpha: float) -> Rows:
        """The rows of the segments that are kept at α although their chunks are not, ascending."""
        return np.flatnonzero((self.segments <= alpha) & ~self.whole(alpha)[self.chunk])


def thresholds(policy: Policy, part: PartColumns, *, alpha: float | None = None) -> Thresholds:
    """Compute the least α that keeps each chunk and each segment of `part` under the policy's other rules.

        least = thresholds(policy, part)
        least.whole(0.3).sum()  # how many chunks are kept whole at α = 0.3

    A segment is kept with its chunk or, if the policy salvages, by its own evidence.

    Args:
        alpha: the only α that the caller will ask for, if there is only one. Segments of chunks that are kept whole at
            this α are then not judged by themselves, which saves most of the work; the result at this α is the same.
    """
    columns, segments = part.chunks, part.segments
    chunks = least_alpha(policy, columns)
    chunk = segments["chunk"]
    kept: Floats = chunks[chunk]
    if policy.salvage and policy.metric is Metric.EVIDENCE:
        # a segment of zero duration has no audio to salvage
        judged = np.flatnonzero(segments["ms"] > 0 if alpha is None else (kept > alpha) & (segments["ms"] > 0))
        kept[judged] = np.minimum(kept[judged], least_alpha(policy, RowSubset(segments, judged)))
    return Thresholds(chunks, kept, chunk)


def least_alpha(policy: Policy, columns: Columns) -> Floats:
    """Compute the least α at which each row is kept by itself, shape (rows,); infinite where a rule rejects it."""
    least = metric_column(policy, columns).copy()
    for broken in broken_rules(policy, columns).values():
        least[np.flatnonzero(broken)] = np.inf  # few rows: over millions of rows this is much faster than a mask
    return least


def metric_column(policy: Policy, columns: Columns) -> Floats:
    """Compute the policy's metric of every row: a distance (float64) or the risk (float32), shape (rows,)."""
    if policy.metric is Metric.EVIDENCE:
        return risks.risk(policy, columns)
    return distances(policy.metric, columns, policy.repetition_max)

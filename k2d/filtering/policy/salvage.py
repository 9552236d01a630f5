"""Which segments are kept of chunks that are not: those that pass the same policy on their own evidence. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import Policy, decide
from k2d.filtering.policy.decide import Rows

Columns = Mapping[str, npt.NDArray[Any]]


def salvaged(policy: Policy, segments: Columns, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows of `segments` (k2d.corpus.numbers.SEGMENTS) that are salvaged, ascending.

    `kept` says of every chunk whether it is kept whole, shape (chunks,); only segments of the others are judged. A
    segment that spans no time has no audio, so there is nothing to salvage.
    """
    if not policy.salvage:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(~kept[segments["chunk"]])
    rows = rows[segments["ms"][rows] > 0]
    return rows[decide(policy, Rows(segments, rows)).accepted]


def milliseconds(segments: Columns, rows: npt.NDArray[np.int64], chunks: int) -> npt.NDArray[np.int64]:
    """How much of every chunk these segments are, shape (chunks,); pauses between segments belong to none of them."""
    found = np.bincount(segments["chunk"][rows], segments["ms"][rows], minlength=chunks)
    return found.astype(np.int64)

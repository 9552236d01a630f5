"""What a policy keeps at every α: the least α that keeps each chunk and each segment.

Everything else about a corpus follows from these thresholds: what is kept at α is `threshold <= α`, a curve over α is a
histogram of the thresholds, a ledger is a sum over what is kept.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import risk as risks
from k2d.filtering.policy.columns import RowSubset, evidence_tokens, label_tokens
from k2d.filtering.policy.metrics import Columns, Floats, distances
from k2d.filtering.policy.rules import Policy
from k2d.schema import Metric, Reason

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

# The reasons of rules that reject a label whatever its distance, in the order of `broken_rules`.
RULES: Final = (
    Reason.EMPTY,
    Reason.TEACHER_REPETITION,
    Reason.HALLUCINATION_PHRASE,
    Reason.PROMPT_ECHO,
    Reason.LANGUAGE_FLIP,
    Reason.SCRIPT_MIX,
    Reason.SPEECH_RATE,
    Reason.UNCONFIRMED,
)


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


def broken_rules(policy: Policy, columns: Columns) -> dict[Reason, Flags]:
    """Which rows each of the policy's rules rejects, whatever the metric; shape (rows,) each, in the order of RULES."""
    rules: dict[Reason, Flags] = {}
    if policy.reject_empty:
        rules[Reason.EMPTY] = label_tokens(columns) == 0
    rules[Reason.TEACHER_REPETITION] = columns["teacher_repetition"] > policy.repetition_max
    if policy.loops_max is not None:
        rules[Reason.TEACHER_REPETITION] |= columns["loops"] > policy.loops_max
    if policy.reject_phrases:
        rules[Reason.HALLUCINATION_PHRASE] = columns["is_phrase"].astype(np.bool_)
    if policy.reject_echoes:
        rules[Reason.PROMPT_ECHO] = columns["is_echo"].astype(np.bool_)
    if policy.flip_max is not None:
        rules[Reason.LANGUAGE_FLIP] = columns["flip"] > policy.flip_max
    if policy.foreign_max is not None:
        rules[Reason.SCRIPT_MIX] = columns["other_tokens"] > policy.foreign_max * evidence_tokens(columns)
    slow, fast = policy.min_phonemes_per_s, policy.max_phonemes_per_s
    if slow is not None or fast is not None:
        rules[Reason.SPEECH_RATE] = np.zeros(len(columns["phonemes"]), np.bool_)
        if slow is not None:
            rules[Reason.SPEECH_RATE] |= columns["phonemes"] < slow * columns["duration_s"]
        if fast is not None:
            rules[Reason.SPEECH_RATE] |= columns["phonemes"] > fast * columns["duration_s"]
    if policy.disagreement_max is not None:
        rules[Reason.UNCONFIRMED] = columns[risks.QUORUM_COLUMNS[policy.quorum]] > policy.disagreement_max
    return rules

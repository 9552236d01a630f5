"""Which labels are kept, and why. Pure; one implementation, over columns of facts.

A policy is applied when someone asks, never when facts are written, so changing α costs no model anything. Everything
here works on arrays with one entry a row; a single verdict is the one-row case of the same code. Segments are judged by
the same code as chunks: their evidence has the same columns.

What is kept at every α follows from `thresholds`: the least α that keeps each chunk and each segment. `decide` adds the
reasons at the policy's own α.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import risk as risks
from k2d.filtering.policy.metrics import COUNT_COLUMNS, METRICS, Columns, Floats, distances
from k2d.filtering.policy.rules import Policy
from k2d.schema import Distances, Evidence, Metric, Reason, Status, Verdict

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]
Rows = npt.NDArray[np.intp]

DISTANCE_COLUMNS: Final = (
    *(f"mer_{name}" for name in COUNT_COLUMNS),
    *(f"per_{name}" for name in COUNT_COLUMNS),
    "teacher_repetition",
    "validator_repetition",
    "is_phrase",
    "zh_tokens",
    "en_tokens",
)
EVIDENCE_COLUMNS: Final = tuple(field.name for field in fields(Evidence))
COLUMNS: Final = (*dict.fromkeys((*DISTANCE_COLUMNS, *EVIDENCE_COLUMNS)),)

# Hypotheses further apart than this contradict one another: then the label is not wrong but unresolved.
CONTRADICTION: Final = 0.5

STATUSES: Final = tuple(Status)  # a status code is a position in here
REASONS: Final = tuple(Reason)  # a reason code is a position in here
# Reasons that rules give, whatever the distance (`_broken_rules`, in this order): such a label is kept at no α.
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


# ---- what is kept at which α --------------------------------------------------------------------------------------


class Judged(Protocol):
    """Chunks and their segments as columns (`k2d.corpus.index.Part`, or a dataclass of two mappings)."""

    @property
    def chunks(self) -> Columns:
        """COLUMNS of every chunk, and `ms`; shape (chunks,) each."""
        ...

    @property
    def segments(self) -> Columns:
        """EVIDENCE_COLUMNS of every segment, `ms`, and `chunk`: its chunk's row; shape (segments,) each."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """The least α that keeps each chunk whole, shape (chunks,), and each segment, whole or salvaged, (segments,).

    Infinite where a rule rejects whatever α is. In the precision of the metric: what is kept at α is t ≤ α.
    """

    chunks: Floats
    segments: Floats
    chunk: npt.NDArray[Any]  # of each segment: its chunk's row

    def whole(self, alpha: float) -> Flags:
        """The chunks that are kept whole at α, shape (chunks,)."""
        whole: Flags = self.chunks <= alpha
        return whole

    def salvaged(self, alpha: float) -> Rows:
        """The segments that are kept at α of chunks that are not, ascending rows."""
        return np.flatnonzero((self.segments <= alpha) & ~self.whole(alpha)[self.chunk])


def thresholds(policy: Policy, part: Judged, *, alpha: float | None = None) -> Thresholds:
    """Compute the least α that keeps each chunk and each segment of `part` under the policy's other rules.

        t = thresholds(policy, part)
        t.whole(0.3).sum()  # chunks that α = 0.3 keeps whole

    A segment is kept with its chunk; where the policy salvages, also by its own evidence. Who asks for one `alpha` alone
    names it: then segments of chunks that are kept whole there are not judged by themselves, which saves most of the
    work, and what is kept at that α is the same.
    """
    columns, segments = part.chunks, part.segments
    chunks = least_alpha(policy, columns)
    chunk = segments["chunk"]
    kept: Floats = chunks[chunk]
    if policy.salvage and policy.metric is Metric.EVIDENCE:
        # a segment that spans no time has no audio to salvage
        judged = np.flatnonzero(segments["ms"] > 0 if alpha is None else (kept > alpha) & (segments["ms"] > 0))
        kept[judged] = np.minimum(kept[judged], least_alpha(policy, Taken(segments, judged)))
    return Thresholds(chunks, kept, chunk)


def least_alpha(policy: Policy, columns: Columns) -> Floats:
    """The least α at which a row passes by itself, shape (rows,); infinite where a rule rejects it."""
    least = metric_column(policy, columns).copy()
    for broken in _broken_rules(policy, columns).values():
        least[np.flatnonzero(broken)] = np.inf  # usually few: over millions of rows much faster than the mask
    return least


def metric_column(policy: Policy, columns: Columns) -> Floats:
    """The policy's metric of every row: a distance (float64) or a risk (float32), shape (rows,)."""
    if policy.metric is Metric.EVIDENCE:
        return risks.risk(policy, columns)
    return distances(policy.metric, columns, policy.repetition_max)


# ---- verdicts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Verdicts of many rows: codes into STATUSES and REASONS, shape (rows,)."""

    status: Codes
    reason: Codes

    @property
    def accepted(self) -> Flags:
        """Mask of the rows that are kept."""
        return np.equal(self.status, STATUSES.index(Status.ACCEPTED))

    def verdict(self, row: int) -> Verdict:
        """The verdict of one row."""
        return Verdict(STATUSES[self.status[row]], REASONS[self.reason[row]])


def decide(policy: Policy, columns: Columns) -> Decision:
    """Give every row its verdict at the policy's α.

    Whatever the metric, a teacher that loops is rejected ("or the teacher repeats itself, the label is dropped").
    A chunk that only the composite's exception for a looping validator keeps says so in its reason: its label was not
    checked.
    """
    kept = metric_column(policy, columns) <= policy.alpha
    explained = _evidence_reasons if policy.metric is Metric.EVIDENCE else _distance_reasons
    reasons = explained(policy, columns, kept)
    rules = _broken_rules(policy, columns)
    for rule, reason in zip(reversed(rules.values()), reversed(rules), strict=True):
        broken = np.flatnonzero(rule)
        reasons[broken] = REASONS.index(reason)
        kept[broken] = False
    status = np.where(kept, STATUSES.index(Status.ACCEPTED), STATUSES.index(Status.REJECTED)).astype(np.int8)
    return Decision(status, reasons)


def verdict(policy: Policy, chunk_distances: Distances, evidence: Evidence | None = None) -> Verdict:
    """What a policy says about one chunk: the one-row case of `decide`."""
    return decide(policy, columns_of([chunk_distances], None if evidence is None else [evidence])).verdict(0)


def _distance_reasons(policy: Policy, columns: Columns, kept: Flags) -> Codes:
    reasons = np.where(kept, REASONS.index(Reason.AGREEMENT), REASONS.index(Reason.DISAGREEMENT)).astype(np.int8)
    unchecked = METRICS[policy.metric].unchecked
    if unchecked is not None:
        without_exception = distances(unchecked, columns, policy.repetition_max)
        reasons[kept & (without_exception > policy.alpha)] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return reasons


def _evidence_reasons(policy: Policy, columns: Columns, kept: Flags) -> Codes:
    """Accepted: agreement, or homophone. Rejected: what speaks most against the label."""
    reasons = np.full(len(kept), REASONS.index(Reason.AGREEMENT), np.int8)
    reasons[columns["homophones"] > 0] = REASONS.index(Reason.HOMOPHONE)
    rejected = np.flatnonzero(~kept)  # usually few: the rest of the work is for them alone
    reasons[rejected] = _rejected_reasons(policy, Taken(columns, rejected))
    return reasons


# of rejected rows alone: which way the hypotheses differ, and whether they contradict one another
REJECTED_COLUMNS: Final = (
    "substituted",
    "deleted",
    "inserted",
    "disagreement_least",
    "disagreement_most",
    "hypothesis_repetition",
)


def _rejected_reasons(policy: Policy, columns: Columns) -> Codes:
    """Why labels of too high a risk are rejected."""
    against = risks.contributions(policy, columns)
    edits = np.stack([columns[name] for name in ("substituted", "deleted", "inserted")], axis=1)
    rows = len(edits)
    disagreement = against.pop("disagreement", np.zeros(rows, np.float32))
    confidence = sum(against.values(), np.zeros(rows, np.float32))
    kinds = np.array([REASONS.index(one) for one in (Reason.SUBSTITUTION, Reason.DELETION, Reason.INSERTION)], np.int8)
    reasons = kinds[np.argmax(edits, axis=1)] if rows else np.empty(0, np.int8)
    reasons[confidence > disagreement] = REASONS.index(Reason.LOW_CONFIDENCE)
    apart = columns["disagreement_most"] - columns["disagreement_least"]
    reasons[apart > CONTRADICTION] = REASONS.index(Reason.UNRESOLVED)
    reasons[columns["hypothesis_repetition"] > policy.repetition_max] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return reasons


# ---- rules --------------------------------------------------------------------------------------------------------


def _broken_rules(policy: Policy, columns: Columns) -> dict[Reason, Flags]:
    """The rows that each rule rejects whatever the metric says, first rule first; shape (rows,) each."""
    rules: dict[Reason, Flags] = {}
    if policy.reject_empty:
        rules[Reason.EMPTY] = _label_tokens(columns) == 0
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
        rules[Reason.SCRIPT_MIX] = columns["other_tokens"] > policy.foreign_max * tokens(columns)
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


def policy_columns(policy: Policy) -> tuple[str, ...]:
    """The columns that `decide` reads for this policy, each once: over millions of rows the others are not read."""
    names: list[str] = ["teacher_repetition"]
    if policy.reject_empty or policy.foreign_max is not None:
        names += TOKEN_COLUMNS
    if policy.loops_max is not None:
        names.append("loops")
    if policy.reject_phrases:
        names.append("is_phrase")
    if policy.reject_echoes:
        names.append("is_echo")
    if policy.flip_max is not None:
        names.append("flip")
    if policy.min_phonemes_per_s is not None or policy.max_phonemes_per_s is not None:
        names += ["phonemes", "duration_s"]
    if policy.disagreement_max is not None:
        names.append(risks.QUORUM_COLUMNS[policy.quorum])
    if policy.metric is not Metric.EVIDENCE:
        names += METRICS[policy.metric].columns
    elif policy.weights is not None:
        for feature in risks.nonzero(policy.weights):
            names += risks.FEATURES[feature].columns or (risks.QUORUM_COLUMNS[policy.quorum],)
        names += ("homophones", *REJECTED_COLUMNS)
    return tuple(dict.fromkeys(names))


# ---- columns ------------------------------------------------------------------------------------------------------

TOKEN_COLUMNS: Final = ("zh_tokens", "en_tokens", "other_tokens")


def columns_of(
    chunk_distances: Sequence[Distances], evidence: Sequence[Evidence] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Turn facts into the columns that policies work on, one row each, in order.

    COLUMNS names them; without evidence only DISTANCE_COLUMNS are there, and only distances can be judged by.
    """
    counts = {
        f"{prefix}_{name}": np.array([getattr(getattr(row, field), name) for row in chunk_distances], np.int64)
        for prefix, field in (("mer", "mixed"), ("per", "phonemes"))
        for name in COUNT_COLUMNS
    }
    plain = {
        name: np.array([getattr(row, name) for row in chunk_distances], np.int64)
        for name in ("teacher_repetition", "validator_repetition", "zh_tokens", "en_tokens")
    }
    known = counts | plain | {"is_phrase": np.array([row.phrase is not None for row in chunk_distances], np.bool_)}
    return known if evidence is None else known | evidence_columns(evidence)


def evidence_columns(evidence: Sequence[Evidence]) -> dict[str, npt.NDArray[Any]]:
    """The columns that evidence brings, one row each, in order (EVIDENCE_COLUMNS); all that a segment has."""
    types = {int: np.int32, float: np.float32, bool: np.bool_}
    return {
        field.name: np.array([getattr(row, field.name) for row in evidence], types[field.type])  # type: ignore[index]
        for field in fields(Evidence)
    }


def tokens(columns: Columns) -> npt.NDArray[Any]:
    """Mixed tokens of each label, shape (rows,)."""
    return columns["zh_tokens"] + columns["en_tokens"] + columns["other_tokens"]


class Taken(Mapping[str, npt.NDArray[Any]]):
    """Some rows of columns, each taken when it is first asked for."""

    def __init__(self, columns: Columns, rows: Rows) -> None:
        self._columns = columns
        self._rows = rows
        self._taken: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._taken:
            self._taken[name] = self._columns[name][self._rows]
        return self._taken[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _label_tokens(columns: Columns) -> npt.NDArray[Any]:
    """Tokens of the label. Where a row has no evidence (a distance was all that was asked for), by its counts."""
    if "other_tokens" in columns:
        return tokens(columns)
    return columns["mer_hits"] + columns["mer_substitutions"] + columns["mer_insertions"]

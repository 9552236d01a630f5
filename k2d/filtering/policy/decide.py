"""Which chunks are kept, and why. Pure; one implementation, over columns of facts.

A policy is applied when someone asks, never when facts are written, so changing α costs no model anything. Everything
here works on arrays with one entry a chunk; a single verdict is the one-row case of the same code. Segments are judged
by the same code too: their evidence has the same columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import risk as risks
from k2d.filtering.policy.rules import Policy
from k2d.schema import Distances, Evidence, Metric, Reason, Status, Verdict
from k2d.text.repetition import REPETITION_MAX

Columns = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

COUNT_COLUMNS: Final = ("hits", "substitutions", "deletions", "insertions")  # after "mer_" and "per_"
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
# Reasons that rules give, whatever the distance (`_rejections`, in this order): such a label is kept at no α.
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

COMPOSITES: Final = (Metric.COMPOSITE, Metric.COMPOSITE_BOUNDED)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Verdicts of many chunks: codes into STATUSES and REASONS, shape (chunks,)."""

    status: Codes
    reason: Codes

    @property
    def accepted(self) -> Flags:
        """Mask of the chunks that are kept."""
        return np.equal(self.status, STATUSES.index(Status.ACCEPTED))

    def verdict(self, row: int) -> Verdict:
        """The verdict of one chunk."""
        return Verdict(STATUSES[self.status[row]], REASONS[self.reason[row]])


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What each α would keep under one metric, shape (alphas,)."""

    alphas: Floats  # in the order they were asked for
    chunks: npt.NDArray[np.int64]
    seconds: Floats


def columns_of(
    distances: Sequence[Distances], evidence: Sequence[Evidence] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Turn facts into the columns that policies work on, one row each, in order.

    COLUMNS names them; without evidence only DISTANCE_COLUMNS are there, and only distances can be judged by.
    """
    counts = {
        f"{prefix}_{name}": np.array([getattr(getattr(one, field), name) for one in distances], np.int64)
        for prefix, field in (("mer", "mixed"), ("per", "phonemes"))
        for name in COUNT_COLUMNS
    }
    plain = {
        name: np.array([getattr(one, name) for one in distances], np.int64)
        for name in ("teacher_repetition", "validator_repetition", "zh_tokens", "en_tokens")
    }
    known = counts | plain | {"is_phrase": np.array([one.phrase is not None for one in distances], np.bool_)}
    return known if evidence is None else known | evidence_columns(evidence)


def evidence_columns(evidence: Sequence[Evidence]) -> dict[str, npt.NDArray[Any]]:
    """The columns that evidence brings, one row each, in order (EVIDENCE_COLUMNS); all that a segment has."""
    types = {int: np.int32, float: np.float32, bool: np.bool_}
    return {
        field.name: np.array([getattr(one, field.name) for one in evidence], types[field.type])  # type: ignore[index]
        for field in fields(Evidence)
    }


def distance_column(policy: Policy, columns: Columns) -> Floats:
    """The policy's metric of every chunk, shape (chunks,); distances equal those of `k2d.filtering.distance` row by row."""
    if policy.metric is Metric.EVIDENCE:
        return risks.risk(policy, columns)
    return metric_column(policy.metric, columns, policy.repetition_max)


def metric_column(metric: Metric, columns: Columns, repetition_max: int = REPETITION_MAX) -> Floats:
    """A distance that needs no weights (any metric but evidence) of every chunk, shape (chunks,)."""
    prefix = "mer" if metric in (Metric.MER, Metric.MER_BOUNDED) else "per"
    hits, substitutions, deletions, insertions = (columns[f"{prefix}_{name}"] for name in COUNT_COLUMNS)
    length = hits + substitutions + deletions
    if metric in (Metric.MER_BOUNDED, Metric.PER_BOUNDED, Metric.COMPOSITE_BOUNDED):
        length = np.maximum(length, hits + substitutions + insertions)
    error: Floats = (substitutions + deletions + insertions) / np.maximum(length, 1)
    if metric not in COMPOSITES:
        return error
    teacher_loops = columns["teacher_repetition"] > repetition_max
    validator_loops = columns["validator_repetition"] > repetition_max
    composite: Floats = np.maximum(teacher_loops, np.minimum(~validator_loops, error)).astype(np.float64)
    return composite


def decide(policy: Policy, columns: Columns) -> Decision:
    """Give every row its verdict.

    Whatever the metric, a teacher that loops is rejected ("or the teacher repeats itself, the label is dropped").
    A chunk that only the composite's exception for a looping validator keeps says so in its reason: its label was not
    checked.
    """
    kept, reasons = (
        _judged_by_evidence(policy, columns) if policy.metric is Metric.EVIDENCE else _by_distance(policy, columns)
    )
    rules = _rejections(policy, columns)
    for rule, reason in zip(reversed(rules.values()), reversed(rules), strict=True):
        broken = np.flatnonzero(rule)  # usually few: over millions of rows much faster than the mask
        reasons[broken] = REASONS.index(reason)
        kept[broken] = False
    status = np.where(kept, STATUSES.index(Status.ACCEPTED), STATUSES.index(Status.REJECTED)).astype(np.int8)
    return Decision(status, reasons)


def _by_distance(policy: Policy, columns: Columns) -> tuple[Flags, Codes]:
    kept = distance_column(policy, columns) <= policy.alpha
    reasons = np.where(kept, REASONS.index(Reason.AGREEMENT), REASONS.index(Reason.DISAGREEMENT)).astype(np.int8)
    if policy.metric in COMPOSITES:
        plain = policy.model_copy(
            update={"metric": Metric.PER if policy.metric is Metric.COMPOSITE else Metric.PER_BOUNDED}
        )
        reasons[kept & (distance_column(plain, columns) > policy.alpha)] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return kept, reasons


def _judged_by_evidence(policy: Policy, columns: Columns) -> tuple[Flags, Codes]:
    """Accepted: agreement, or homophone. Rejected: what speaks most against the label."""
    kept = risks.risk(policy, columns) <= policy.alpha
    reasons = np.full(len(kept), REASONS.index(Reason.AGREEMENT), np.int8)
    reasons[columns["homophones"] > 0] = REASONS.index(Reason.HOMOPHONE)
    rejected = np.flatnonzero(~kept)  # usually few: the rest of the work is for them alone
    reasons[rejected] = _why(policy, Rows(columns, rejected))
    return kept, reasons


class Rows(Mapping[str, npt.NDArray[Any]]):
    """Some rows of columns, each taken when it is first asked for."""

    def __init__(self, columns: Columns, rows: npt.NDArray[np.intp]) -> None:
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


def _why(policy: Policy, columns: Columns) -> Codes:
    """Why labels of too high a risk are rejected."""
    against = risks.contributions(policy, columns)
    rows = len(columns["score"])
    heard = against.pop("disagreement", np.zeros(rows, np.float32))
    doubted = sum(against.values(), np.zeros(rows, np.float32))
    edits = np.stack([columns[name] for name in ("substituted", "deleted", "inserted")], axis=1)
    kinds = np.array([REASONS.index(one) for one in (Reason.SUBSTITUTION, Reason.DELETION, Reason.INSERTION)], np.int8)
    reasons = kinds[np.argmax(edits, axis=1)] if rows else np.empty(0, np.int8)
    reasons[doubted > heard] = REASONS.index(Reason.LOW_CONFIDENCE)
    apart = columns["disagreement_most"] - columns["disagreement_least"]
    reasons[apart > CONTRADICTION] = REASONS.index(Reason.UNRESOLVED)
    reasons[columns["hypothesis_repetition"] > policy.repetition_max] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return reasons


def verdict(policy: Policy, distances: Distances, evidence: Evidence | None = None) -> Verdict:
    """What a policy says about one chunk: the one-row case of `decide`."""
    return decide(policy, columns_of([distances], None if evidence is None else [evidence])).verdict(0)


def curve(
    columns: Columns, durations_s: npt.ArrayLike, *, alphas: Sequence[float], policy: Policy
) -> dict[Metric, Curve]:
    """What every metric would keep at every α, under the other rules of `policy`.

    `durations_s` has shape (chunks,). Linear in the chunks: each is put into the first of the sorted alphas that keeps
    it, and the bins are summed up.
    """
    asked = np.asarray(alphas, np.float64)
    order = np.argsort(asked, kind="stable")
    back = np.argsort(order, kind="stable")
    durations = np.asarray(durations_s, np.float64)
    allowed = ~_any(_rejections(policy, columns), len(durations))
    kept = {name: column[allowed] for name, column in columns.items()}
    curves = {}
    for metric in Metric:
        if metric is Metric.EVIDENCE:
            if policy.weights is None:
                continue
            distance = risks.risk(policy, kept)
        else:
            distance = metric_column(metric, kept, policy.repetition_max)
        first = np.searchsorted(asked[order], distance, side="left")
        chunks = np.cumsum(np.bincount(first, minlength=len(asked) + 1))[back]
        seconds = np.cumsum(np.bincount(first, durations[allowed], minlength=len(asked) + 1))[back]
        curves[metric] = Curve(asked, chunks.astype(np.int64), seconds.astype(np.float64))
    return curves


def _rejections(policy: Policy, columns: Columns) -> dict[Reason, Flags]:
    """The rules that reject whatever the distance is, first rule first."""
    rules: dict[Reason, Flags] = {}
    if policy.reject_empty:
        rules[Reason.EMPTY] = _spoken(columns) == 0
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
        rules[Reason.SCRIPT_MIX] = columns["other_tokens"] > policy.foreign_max * _tokens(columns)
    slow, fast = policy.min_phonemes_per_s, policy.max_phonemes_per_s
    if slow is not None or fast is not None:
        rules[Reason.SPEECH_RATE] = np.zeros(len(columns["units"]), np.bool_)
        if slow is not None:
            rules[Reason.SPEECH_RATE] |= columns["units"] < slow * columns["duration_s"]
        if fast is not None:
            rules[Reason.SPEECH_RATE] |= columns["units"] > fast * columns["duration_s"]
    if policy.disagreement_max is not None:
        rules[Reason.UNCONFIRMED] = columns[risks.QUORUM_COLUMNS[policy.quorum]] > policy.disagreement_max
    return rules


def _tokens(columns: Columns) -> npt.NDArray[Any]:
    return columns["zh_tokens"] + columns["en_tokens"] + columns["other_tokens"]


def _spoken(columns: Columns) -> npt.NDArray[Any]:
    """Tokens of the label. Where a row has no evidence (a distance was all that was asked for), by its counts."""
    if "other_tokens" in columns:
        return _tokens(columns)
    return columns["mer_hits"] + columns["mer_substitutions"] + columns["mer_insertions"]


def _any(rules: Mapping[Reason, Flags], rows: int) -> Flags:
    flags = np.zeros(rows, np.bool_)
    for rule in rules.values():
        flags |= rule
    return flags

"""Policies: which chunks are kept, and why. Pure; one implementation, over columns of facts.

A policy is applied when someone asks, never when facts are written, so changing α costs no model anything. Everything
here works on arrays with one entry a chunk; a single verdict is the one-row case of the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k2d.errors import BadRequest
from k2d.keys import digest
from k2d.schema import Distances, Metric, Reason, Status, Verdict
from k2d.text.repetition import NGRAM, REPETITION_MAX

Columns = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

COUNT_COLUMNS: Final = ("hits", "substitutions", "deletions", "insertions")  # after "mer_" and "per_"
COLUMNS: Final = (
    *(f"mer_{name}" for name in COUNT_COLUMNS),
    *(f"per_{name}" for name in COUNT_COLUMNS),
    "teacher_repetition",
    "validator_repetition",
    "is_phrase",
    "zh_tokens",
    "en_tokens",
)

STATUSES: Final = tuple(Status)  # a status code is a position in here
REASONS: Final = tuple(Reason)  # a reason code is a position in here

COMPOSITES: Final = (Metric.COMPOSITE, Metric.COMPOSITE_BOUNDED)


class Policy(BaseModel):
    """Rules that turn the facts of a chunk into a verdict. Rejections are tried in the order of the fields below."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(default="custom", min_length=1, max_length=100, description="Shown to people; part of the key.")
    reject_empty: bool = Field(default=True, description="Reject labels in which no token survives normalisation.")
    repetition_max: int = Field(
        default=REPETITION_MAX,
        ge=1,
        description=f"A text loops when some {NGRAM} characters occur more often than this (c).",
    )
    reject_phrases: bool = Field(
        default=True, description="Reject labels that are nothing but known hallucination phrases."
    )
    metric: Metric = Field(default=Metric.COMPOSITE, description="The distance that is compared with alpha.")
    alpha: float = Field(default=0.4, ge=0, le=1, description="Keep a chunk when its distance is at most this: 0…1.")

    @property
    def key(self) -> str:
        """32 hex characters that name exactly these rules."""
        return digest(self.model_dump(mode="json"))

    def varied(self, *, metric: Metric | None = None, alpha: float | None = None) -> "Policy":
        """The same rules with another metric or α; named "custom" when that makes them different."""
        changes = {name: value for name, value in (("metric", metric), ("alpha", alpha)) if value is not None}
        varied = self.model_copy(update=changes)
        return varied if varied == self else varied.model_copy(update={"name": "custom"})


# As published: composite distance at most 0.4, nothing else (method.md, sections 1 and 2).
PAPER: Final = Policy(
    name="paper", metric=Metric.COMPOSITE, alpha=0.4, repetition_max=5, reject_phrases=False, reject_empty=False
)
# The same with the two leaks closed that no distance sees: shared stock phrases, and labels without a word.
DEFAULT: Final = Policy(name="default", metric=Metric.COMPOSITE, alpha=0.4)
PRESETS: Final = {policy.name: policy for policy in (PAPER, DEFAULT)}


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


def parse(fields: Mapping[str, Any]) -> Policy:
    """Make a policy of what a person wrote.

    Raises:
        BadRequest: an unknown field or an impossible value, such as an alpha of 1.5.
    """
    try:
        return Policy.model_validate(dict(fields))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'policy'}: {e['msg']}" for e in error.errors())
        raise BadRequest(
            f"impossible policy: {problems}",
            hint=f"alpha is 0…1; metric is one of {', '.join(Metric)}; fields are {', '.join(Policy.model_fields)}",
        ) from error


def columns_of(distances: Sequence[Distances]) -> dict[str, npt.NDArray[Any]]:
    """Turn distances into the columns that policies work on, one row each, in order (COLUMNS names them)."""
    counts = {
        f"{prefix}_{name}": np.array([getattr(getattr(one, field), name) for one in distances], np.int64)
        for prefix, field in (("mer", "mixed"), ("per", "phonemes"))
        for name in COUNT_COLUMNS
    }
    plain = {
        name: np.array([getattr(one, name) for one in distances], np.int64)
        for name in ("teacher_repetition", "validator_repetition", "zh_tokens", "en_tokens")
    }
    return counts | plain | {"is_phrase": np.array([one.phrase is not None for one in distances], np.bool_)}


def distance_column(metric: Metric, columns: Columns, repetition_max: int = REPETITION_MAX) -> Floats:
    """The metric of every chunk, shape (chunks,); equal to the functions of `k2d.distance` row by row."""
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
    """Give every chunk its verdict.

    Whatever the metric, a teacher that loops is rejected ("or the teacher repeats itself, the label is dropped").
    A chunk that only the composite's exception for a looping validator keeps says so in its reason: its label was not
    checked.
    """
    kept = distance_column(policy.metric, columns, policy.repetition_max) <= policy.alpha
    unchecked = np.zeros_like(kept)
    if policy.metric in COMPOSITES:
        plain = Metric.PER if policy.metric is Metric.COMPOSITE else Metric.PER_BOUNDED
        unchecked = kept & (distance_column(plain, columns) > policy.alpha)
    rules = _rejections(policy, columns)
    reason = np.select(
        [*rules.values(), unchecked, kept],
        [REASONS.index(one) for one in (*rules, Reason.VALIDATOR_REPETITION, Reason.AGREEMENT)],
        REASONS.index(Reason.DISAGREEMENT),
    ).astype(np.int8)
    accepted = kept & ~_any(rules, len(kept))
    status = np.where(accepted, STATUSES.index(Status.ACCEPTED), STATUSES.index(Status.REJECTED)).astype(np.int8)
    return Decision(status, reason)


def verdict(policy: Policy, distances: Distances) -> Verdict:
    """What a policy says about one chunk: the one-row case of `decide`."""
    return decide(policy, columns_of([distances])).verdict(0)


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
        first = np.searchsorted(asked[order], distance_column(metric, kept, policy.repetition_max), side="left")
        chunks = np.cumsum(np.bincount(first, minlength=len(asked) + 1))[back]
        seconds = np.cumsum(np.bincount(first, durations[allowed], minlength=len(asked) + 1))[back]
        curves[metric] = Curve(asked, chunks.astype(np.int64), seconds.astype(np.float64))
    return curves


def explain(policy: Policy) -> str:
    """The rules in plain language, one line each."""
    lines = [f"Policy {policy.name!r} looks at each chunk's label (the teacher's text) and rejects it when"]
    if policy.reject_empty:
        lines.append("- no word is left of it after normalisation (empty);")
    lines.append(
        f"- it loops: some {NGRAM} characters occur more than {policy.repetition_max} times (teacher_repetition);"
    )
    if policy.reject_phrases:
        lines.append(
            "- it is nothing but known hallucination phrases, such as subtitle credits (hallucination_phrase);"
        )
    lines.append(
        f"- its {_METRIC_WORDS[policy.metric]} from the validator's text is above {policy.alpha:g} (disagreement)."
    )
    lines.append("All else is kept (agreement).")
    if policy.metric in COMPOSITES:
        lines.append(
            "A chunk where only the validator loops is kept without having been checked (validator_repetition)."
        )
    return "\n".join(lines)


_BOUNDED_WORDS = "edits divided by the longer of the two texts"
_METRIC_WORDS: Final = {
    Metric.MER: "mixed error rate (Chinese characters and English words)",
    Metric.PER: "phoneme error rate (what it sounds like)",
    Metric.COMPOSITE: "phoneme error rate (what it sounds like)",
    Metric.MER_BOUNDED: f"mixed error rate (Chinese characters and English words; {_BOUNDED_WORDS})",
    Metric.PER_BOUNDED: f"phoneme error rate (what it sounds like; {_BOUNDED_WORDS})",
    Metric.COMPOSITE_BOUNDED: f"phoneme error rate (what it sounds like; {_BOUNDED_WORDS})",
}


def _rejections(policy: Policy, columns: Columns) -> dict[Reason, Flags]:
    """The rules that reject whatever the distance is, first rule first."""
    rules: dict[Reason, Flags] = {}
    if policy.reject_empty:
        spoken = columns["mer_hits"] + columns["mer_substitutions"] + columns["mer_insertions"]
        rules[Reason.EMPTY] = spoken == 0
    rules[Reason.TEACHER_REPETITION] = columns["teacher_repetition"] > policy.repetition_max
    if policy.reject_phrases:
        rules[Reason.HALLUCINATION_PHRASE] = columns["is_phrase"].astype(np.bool_)
    return rules


def _any(rules: Mapping[Reason, Flags], rows: int) -> Flags:
    flags = np.zeros(rows, np.bool_)
    for rule in rules.values():
        flags |= rule
    return flags

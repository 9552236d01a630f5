"""Verdicts: which rows a policy accepts or rejects at its own α, and for which reason.

A policy is applied when someone asks, not when facts are written, so a different α needs no model run. Everything works
on columns with one entry per row; the verdict about a single chunk is the same code with one row. Segments are judged
by the same code as chunks, since their evidence has the same columns.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import risk as risks
from k2d.filtering.policy.columns import RowSubset, columns_of
from k2d.filtering.policy.document import Policy
from k2d.filtering.policy.metrics import METRICS, Columns, distances
from k2d.filtering.policy.rules import Flags, broken_rules, rules_of
from k2d.filtering.policy.thresholds import metric_column
from k2d.schema import Distances, Evidence, Metric, Reason, Status, Verdict

Codes = npt.NDArray[np.int8]

# Least difference between the largest and the least disagreement at which a rejected label counts as unresolved (the
# hypotheses contradict one another) and not as wrong. Chosen: half of the range.
CONTRADICTION: Final = 0.5

STATUSES: Final = tuple(Status)  # a status code is an index into it
REASONS: Final = tuple(Reason)  # a reason code is an index into it
# the columns that explain a rejection by risk, beside those of the features
REJECTED_COLUMNS: Final = (
    "substituted",
    "deleted",
    "inserted",
    "disagreement_least",
    "disagreement_most",
    "hypothesis_repetition",
)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The verdicts on many rows, as codes."""

    status: Codes  # (rows,): indices into STATUSES
    reason: Codes  # (rows,): indices into REASONS

    @property
    def accepted(self) -> Flags:
        """Which rows are accepted, shape (rows,)."""
        return np.equal(self.status, STATUSES.index(Status.ACCEPTED))

    def verdict(self, row: int) -> Verdict:
        """The verdict on one row."""
        return Verdict(STATUSES[self.status[row]], REASONS[self.reason[row]])


def decide(policy: Policy, columns: Columns) -> Decision:
    """Compute the verdict on every row at the policy's α; `columns` must include `policy_columns(policy)`.

        decide(policy, columns).verdict(0)  # Verdict(status=<Status.ACCEPTED: 'accepted'>, reason=…)

    A label that loops is rejected under every metric. With the paper's composite, a chunk that is kept only because the
    validator loops gets the reason VALIDATOR_REPETITION: nothing confirmed its label.
    """
    kept = metric_column(policy, columns) <= policy.alpha
    reasons_of = _evidence_reasons if policy.metric is Metric.EVIDENCE else _distance_reasons
    reasons = reasons_of(policy, columns, kept)
    rules = broken_rules(policy, columns)
    for rule, reason in zip(reversed(rules.values()), reversed(rules), strict=True):
        broken = np.flatnonzero(rule)
        reasons[broken] = REASONS.index(reason)
        kept[broken] = False
    status = np.where(kept, STATUSES.index(Status.ACCEPTED), STATUSES.index(Status.REJECTED)).astype(np.int8)
    return Decision(status, reasons)


def verdict(policy: Policy, chunk_distances: Distances, evidence: Evidence | None = None) -> Verdict:
    """The verdict on one chunk: `decide` with one row. Evidence may be left out if the metric is a distance."""
    return decide(policy, columns_of([chunk_distances], None if evidence is None else [evidence])).verdict(0)


def policy_columns(policy: Policy) -> tuple[str, ...]:
    """The columns that `decide` reads for this policy, each once. Over millions of rows the others need not be read."""
    names = [name for rule in rules_of(policy).values() for name in rule.columns(policy)]
    if policy.metric is not Metric.EVIDENCE:
        names += METRICS[policy.metric].columns
    elif policy.weights is not None:
        for feature in risks.nonzero(policy.weights):
            names += risks.FEATURES[feature].columns or (risks.QUORUM_COLUMNS[policy.quorum],)
        names += ("homophones", *REJECTED_COLUMNS)
    return tuple(dict.fromkeys(names))


def _distance_reasons(policy: Policy, columns: Columns, kept: Flags) -> Codes:
    """The reasons under a distance, rules left out."""
    reasons = np.where(kept, REASONS.index(Reason.AGREEMENT), REASONS.index(Reason.DISAGREEMENT)).astype(np.int8)
    unchecked = METRICS[policy.metric].unchecked
    if unchecked is not None:
        without_exception = distances(unchecked, columns, policy.repetition_max)
        reasons[kept & (without_exception > policy.alpha)] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return reasons


def _evidence_reasons(policy: Policy, columns: Columns, kept: Flags) -> Codes:
    """The reasons under risk, rules left out. Rejected: the strongest evidence.

    Accepted: agreement, or homophone where every hypothesis has the label's sounds and some of them other characters.
    """
    reasons = np.full(len(kept), REASONS.index(Reason.AGREEMENT), np.int8)
    only_written = (columns["homophones"] > 0) & (columns["disagreement_most"] == 0)
    reasons[only_written] = REASONS.index(Reason.HOMOPHONE)
    rejected = np.flatnonzero(~kept)  # usually few, and only these need the work below
    reasons[rejected] = _rejected_reasons(policy, RowSubset(columns, rejected))
    return reasons


def _rejected_reasons(policy: Policy, columns: Columns) -> Codes:
    """Why each of these rows, all of too high a risk, is rejected; later reasons take precedence."""
    against = risks.contributions(policy, columns)
    edits = np.stack([columns[name] for name in ("substituted", "deleted", "inserted")], axis=1)
    rows = len(edits)
    disagreement = against.pop("disagreement", np.zeros(rows, np.float32))
    confidence = sum(against.values(), np.zeros(rows, np.float32))
    by_edit = (Reason.SUBSTITUTION, Reason.DELETION, Reason.INSERTION)
    codes = np.array([REASONS.index(reason) for reason in by_edit], np.int8)
    reasons = codes[np.argmax(edits, axis=1)] if rows else np.empty(0, np.int8)
    reasons[confidence > disagreement] = REASONS.index(Reason.LOW_CONFIDENCE)
    apart = columns["disagreement_most"] - columns["disagreement_least"]
    reasons[apart > CONTRADICTION] = REASONS.index(Reason.UNRESOLVED)
    reasons[columns["hypothesis_repetition"] > policy.repetition_max] = REASONS.index(Reason.VALIDATOR_REPETITION)
    return reasons

"""Policies: readable rules that decide which labels are kept, applied to columns of facts.

policy = load("evidence").varied(alpha=0.2)
columns = columns_of([facts.distances], [facts.evidence])
decide(policy, columns).verdict(0)      # the verdict at the policy's α
least_alpha(policy, columns)            # the least α that would keep the label
"""

from k2d.filtering.policy.columns import (
    COLUMNS,
    DISTANCE_COLUMNS,
    EVIDENCE_COLUMNS,
    RowSubset,
    columns_of,
    evidence_columns,
    evidence_tokens,
)
from k2d.filtering.policy.decide import REASONS, STATUSES, Decision, decide, policy_columns, verdict
from k2d.filtering.policy.document import DEFAULT, PAPER, PRESETS, Policy, from_yaml, load, parse, to_yaml
from k2d.filtering.policy.explain import explain
from k2d.filtering.policy.metrics import COUNT_COLUMNS, METRICS, SHORT_NAMES, Columns, distances
from k2d.filtering.policy.risk import FEATURES, Weights, features, risk
from k2d.filtering.policy.rules import RULES
from k2d.filtering.policy.switches import switched, switches
from k2d.filtering.policy.thresholds import PartColumns, Thresholds, least_alpha, metric_column, thresholds

__all__ = [
    "COLUMNS",
    "COUNT_COLUMNS",
    "DEFAULT",
    "DISTANCE_COLUMNS",
    "EVIDENCE_COLUMNS",
    "FEATURES",
    "METRICS",
    "PAPER",
    "PRESETS",
    "REASONS",
    "RULES",
    "SHORT_NAMES",
    "STATUSES",
    "Columns",
    "Decision",
    "PartColumns",
    "Policy",
    "RowSubset",
    "Thresholds",
    "Weights",
    "columns_of",
    "decide",
    "distances",
    "evidence_columns",
    "evidence_tokens",
    "explain",
    "features",
    "from_yaml",
    "least_alpha",
    "load",
    "metric_column",
    "parse",
    "policy_columns",
    "risk",
    "switched",
    "switches",
    "thresholds",
    "to_yaml",
    "verdict",
]

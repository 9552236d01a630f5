"""Every filter of the study, as a score (least is best) and a rule (rejected whatever the score is). Pure.

What the project's own policies do is asked of them, not repeated here: `k2d.filtering.policy` gives scores and rejections.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy import FEATURES, PAPER, Columns, Policy, features, least_alpha, metric_column
from k2d.schema import DecodeOptions, Metric
from trainer.study.table import Flags, Floats

# Whisper's own thresholds: a decode that breaks them is tried again at a higher temperature
_WHISPER = DecodeOptions()
# evidence that no weight of a policy refers to by itself
PARTS: Final = ("zh_error", "en_error", "deleted", "inserted", "substituted", "flip")
NO_FILTER, COMPOSITE, LOG_PROBABILITY, NGRAM = "no filter", "composite (paper)", "log-probability", "n-gram rule"


class Kind(StrEnum):
    """What a filter is, in the order of tables."""

    CONTROL = "control"
    RULE = "rule"
    SIGNAL = "teacher's signal"
    DISTANCE = "distance"
    POLICY = "policy"
    PART = "part of a policy"
    FEATURE = "feature alone"


SINGLE: Final = (Kind.SIGNAL, Kind.DISTANCE, Kind.FEATURE)  # measures that stand alone


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """One way to judge labels; arrays of shape (labels,)."""

    name: str
    kind: Kind
    score: Floats
    rejected: Flags
    has_alpha: bool = False  # whether a threshold 0…1 means something
    policy: Policy | None = None

    def accepts(self, alpha: float | None = None) -> Flags:
        """Labels that are kept at α; None: by the rule alone."""
        kept: Flags = ~self.rejected
        return kept if alpha is None else kept & (self.score <= alpha)

    def only(self, rows: Flags) -> "Filter":
        return replace(self, score=self.score[rows], rejected=self.rejected[rows])


def filters(columns: Columns, policies: Sequence[Policy]) -> tuple[Filter, ...]:
    """All filters over the columns of one validators; the first policy's features are shown alone.

    Columns are `k2d.filtering.policy.COLUMNS`; names are unique.
    """
    first = policies[0]
    names = [name for name in FEATURES if name not in _SIGNALS]
    alone = features(first, columns, tuple(names)).T
    return (
        _scored(NO_FILTER, Kind.CONTROL, np.zeros(len(columns["forced_logprob"]))),
        *_rules(columns),
        _scored(LOG_PROBABILITY, Kind.SIGNAL, 1 - np.exp(columns["avg_logprob"].astype(float)), has_alpha=True),
        _scored("no-speech probability", Kind.SIGNAL, columns["no_speech_prob"]),
        _scored("compression ratio", Kind.SIGNAL, columns["compression_ratio"]),
        *(_judged(name, Kind.DISTANCE, PAPER.varied(metric=metric), columns) for metric, name in _DISTANCES.items()),
        *(_judged(name, Kind.POLICY, policy, columns) for name, policy in zip(_names(policies), policies, strict=True)),
        *_taken_apart(first, columns),
        *(_scored(f"feature: {name}", Kind.FEATURE, score) for name, score in zip(names, alone, strict=True)),
        *(_scored(f"feature: {name}", Kind.FEATURE, columns[name]) for name in PARTS),
    )


_SIGNALS: Final = (
    "avg_logprob",
    "no_speech_prob",
)  # features that are the teacher's log-probability and no-speech probability
_DISTANCES: Final = {
    Metric.MER: "MER",
    Metric.PER: "PER",
    Metric.COMPOSITE: COMPOSITE,
    Metric.MER_BOUNDED: "MER, bounded",
    Metric.PER_BOUNDED: "PER, bounded",
    Metric.COMPOSITE_BOUNDED: "composite, bounded",
}


def _names(policies: Sequence[Policy]) -> list[str]:
    """Names of policies; a second one of a name, or one that is called like a filter, gets a number."""
    found: list[str] = []
    for policy in policies:
        taken = [*found, *_DISTANCES.values(), NO_FILTER, LOG_PROBABILITY, NGRAM]
        found.append(policy.name if policy.name not in taken else f"{policy.name} ({len(found) + 1})")
    return found


def _scored(name: str, kind: Kind, score: npt.NDArray[Any], *, has_alpha: bool = False) -> Filter:
    return Filter(name, kind, np.asarray(score, np.float64), np.zeros(len(score), np.bool_), has_alpha)


def _rules(columns: Columns) -> tuple[Filter, Filter]:
    loops = columns["teacher_repetition"] > PAPER.repetition_max
    assert _WHISPER.compression_ratio_threshold is not None
    assert _WHISPER.log_prob_threshold is not None
    # its third threshold, no-speech, only ever saves an unlikely text from being decoded again: it rejects nothing more
    unsure = (columns["compression_ratio"] > _WHISPER.compression_ratio_threshold) | (
        columns["avg_logprob"] < _WHISPER.log_prob_threshold
    )
    flat = np.zeros(len(loops))
    return Filter(NGRAM, Kind.RULE, flat, loops), Filter("Whisper's own rules", Kind.RULE, flat, unsure)


def _judged(name: str, kind: Kind, policy: Policy, columns: Columns) -> Filter:
    """A policy's own score; rejected is what it rejects however large α is."""
    score = metric_column(policy, columns)
    return Filter(
        name, kind, np.asarray(score, np.float64), np.isinf(least_alpha(policy, columns)), has_alpha=True, policy=policy
    )


def _taken_apart(policy: Policy, columns: Columns) -> tuple[Filter, Filter]:
    whole = _judged(policy.name, Kind.PART, policy, columns)
    return (
        replace(whole, name=f"{policy.name}: rules alone", score=np.zeros(len(whole.score)), has_alpha=False),
        replace(whole, name=f"{policy.name}: risk alone", rejected=np.zeros(len(whole.score), np.bool_)),
    )

"""Every filter of the study, as a score (least is best) and a rule (rejected whatever the score is). Pure.

The project's own policies are applied by `k2d.filtering.policy` itself, which gives scores and rejections.
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

NO_FILTER: Final = "no filter"
COMPOSITE: Final = "composite (paper)"
LOG_PROBABILITY: Final = "log-probability"
NGRAM: Final = "n-gram rule"
# evidence that no weight of a policy refers to by itself
PARTS: Final = ("zh_error", "en_error", "deleted", "inserted", "substituted", "flip")
# features that are filters of their own already: the teacher's log-probability and no-speech probability
_SIGNALS: Final = ("avg_logprob", "no_speech_prob")
_DISTANCES: Final = {
    Metric.MER: "MER",
    Metric.PER: "PER",
    Metric.COMPOSITE: COMPOSITE,
    Metric.MER_BOUNDED: "MER, bounded",
    Metric.PER_BOUNDED: "PER, bounded",
    Metric.COMPOSITE_BOUNDED: "composite, bounded",
}
# a distance judges every label; that the preset `paper` refuses second decodes' texts is no part of it
_EVERY_LABEL: Final = PAPER.model_copy(update={"reject_rescored": False})
# Whisper's own thresholds: a decode that breaks them is tried again at a higher temperature
_WHISPER: Final = DecodeOptions()


class FilterKind(StrEnum):
    """What a filter is, in the order of tables."""

    CONTROL = "control"
    RULE = "rule"
    SIGNAL = "teacher's signal"
    DISTANCE = "distance"
    POLICY = "policy"
    PART = "part of a policy"
    FEATURE = "feature alone"


SINGLE: Final = (FilterKind.SIGNAL, FilterKind.DISTANCE, FilterKind.FEATURE)  # measures that stand alone


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """One way to judge labels; arrays of shape (labels,)."""

    name: str
    kind: FilterKind
    score: Floats
    rejected: Flags
    has_alpha: bool = False  # whether a threshold 0…1 means something
    policy: Policy | None = None

    def accepts(self, alpha: float | None = None) -> Flags:
        """Labels that are kept at α; None: by the rule alone."""
        kept: Flags = ~self.rejected
        return kept if alpha is None else kept & (self.score <= alpha)

    def only(self, rows: Flags) -> "Filter":
        """The same filter over the labels of a mask."""
        return replace(self, score=self.score[rows], rejected=self.rejected[rows])


def filters(columns: Columns, policies: Sequence[Policy]) -> tuple[Filter, ...]:
    """All filters over the columns of one set of validators; the first policy's features are also shown alone.

    Columns are `k2d.filtering.policy.COLUMNS`; names are unique.

        names = [each.name for each in filters(columns, [DEFAULT, PAPER])]
    """
    first = policies[0]
    names = [name for name in FEATURES if name not in _SIGNALS]
    alone = features(first, columns, tuple(names)).T
    return (
        _by_score(NO_FILTER, FilterKind.CONTROL, np.zeros(len(columns["forced_logprob"]))),
        *_rules(columns),
        _by_score(LOG_PROBABILITY, FilterKind.SIGNAL, 1 - np.exp(columns["avg_logprob"].astype(float)), has_alpha=True),
        _by_score("no-speech probability", FilterKind.SIGNAL, columns["no_speech_prob"]),
        _by_score("compression ratio", FilterKind.SIGNAL, columns["compression_ratio"]),
        *(
            _by_policy(name, FilterKind.DISTANCE, _EVERY_LABEL.varied(metric=metric), columns)
            for metric, name in _DISTANCES.items()
        ),
        *(
            _by_policy(name, FilterKind.POLICY, policy, columns)
            for name, policy in zip(_unique_names(policies), policies, strict=True)
        ),
        *_parts(first, columns),
        *(_by_score(f"feature: {name}", FilterKind.FEATURE, score) for name, score in zip(names, alone, strict=True)),
        *(_by_score(f"feature: {name}", FilterKind.FEATURE, columns[name]) for name in PARTS),
    )


def _unique_names(policies: Sequence[Policy]) -> list[str]:
    """Names of policies; a second one of a name, or one with the name of another filter, gets a number."""
    names: list[str] = []
    for policy in policies:
        taken = [*names, *_DISTANCES.values(), NO_FILTER, LOG_PROBABILITY, NGRAM]
        names.append(policy.name if policy.name not in taken else f"{policy.name} ({len(names) + 1})")
    return names


def _by_score(name: str, kind: FilterKind, score: npt.NDArray[Any], *, has_alpha: bool = False) -> Filter:
    """A filter without a rule."""
    return Filter(name, kind, np.asarray(score, np.float64), np.zeros(len(score), np.bool_), has_alpha)


def _rules(columns: Columns) -> tuple[Filter, Filter]:
    """The n-gram rule and Whisper's own, each without a score."""
    loops = columns["teacher_repetition"] > PAPER.repetition_max
    assert _WHISPER.compression_ratio_threshold is not None
    assert _WHISPER.log_prob_threshold is not None
    # Whisper's third threshold, no-speech, only keeps an unlikely text from being decoded again: it rejects nothing
    unlikely = (columns["compression_ratio"] > _WHISPER.compression_ratio_threshold) | (
        columns["avg_logprob"] < _WHISPER.log_prob_threshold
    )
    no_score = np.zeros(len(loops))
    return (
        Filter(NGRAM, FilterKind.RULE, no_score, loops),
        Filter("Whisper's own rules", FilterKind.RULE, no_score, unlikely),
    )


def _by_policy(name: str, kind: FilterKind, policy: Policy, columns: Columns) -> Filter:
    """A policy's own score; rejected is what it rejects however large α is."""
    score = np.asarray(metric_column(policy, columns), np.float64)
    rejected = np.isinf(least_alpha(policy, columns))
    return Filter(name, kind, score, rejected, has_alpha=True, policy=policy)


def _parts(policy: Policy, columns: Columns) -> tuple[Filter, Filter]:
    """A policy's rules without its risk, and its risk without its rules."""
    whole = _by_policy(policy.name, FilterKind.PART, policy, columns)
    return (
        replace(whole, name=f"{policy.name}: rules alone", score=np.zeros(len(whole.score)), has_alpha=False),
        replace(whole, name=f"{policy.name}: risk alone", rejected=np.zeros(len(whole.score), np.bool_)),
    )

"""The results of a study, as frozen data."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy
from trainer.evaluation.bootstrap import Band
from trainer.study.filters import COMPOSITE, Filter, FilterKind
from trainer.study.judge import DRAWN, KEPT, RANGE, RandomBaseline, RankingDraws, SalvageFigures
from trainer.study.labeling import LabeledMaterial, ValidatorLabels
from trainer.study.resampling import BootstrapOptions, PairedFigures, compare_draws
from trainer.study.rescoring import RescoringFigures
from trainer.study.table import Floats

KEPT_FAILURE_ALPHA: Final = 0.6  # total failures that are kept at some α up to this one are listed


@dataclass(frozen=True, slots=True)
class FilterFigures:
    """One filter as a ranking. Of `kept` and `switch` the keys are shares of hours, of `auc` true MER."""

    name: str
    kind: FilterKind
    area: Band
    kept: dict[float, Band]
    switch: dict[float, Band]
    auc: dict[float, Band]


@dataclass(frozen=True, slots=True)
class ThresholdFigures:
    """What one filter keeps at one α (None: by its rule alone)."""

    name: str
    alpha: float | None
    labels: int  # kept
    failures: int  # total failures kept
    share: Band
    mer_kept: Band
    mer_dropped: Band
    switch_kept: Band
    precision: Band
    recall: Band
    recall_total: Band
    good_kept: Band
    random: tuple[float, float, float]  # label MER at this share in random order: mean and range


@dataclass(frozen=True, slots=True)
class FilterComparison:
    """One filter against another with the same validators."""

    name: str
    against: str
    area: PairedFigures
    kept: dict[float, PairedFigures]


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """Labels that have something in common."""

    by: str
    name: str
    labels: int
    seconds: float
    figures: tuple[FilterFigures, ...]
    curves: Floats  # label MER of what each of `figures` keeps, shape (figures, DRAWN)
    own_alpha: tuple[ThresholdFigures, ...]  # each filter at its own α


@dataclass(frozen=True, slots=True)
class KeptFailure:
    """A total failure that a policy keeps at some α up to KEPT_FAILURE_ALPHA."""

    name: str
    policy: str
    score: float
    alpha: float  # the least of ALPHAS that keeps it
    edits: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ValidatorFigures:
    """All filters with one set of validators."""

    validators: ValidatorLabels
    filters: tuple[Filter, ...]
    draws: RankingDraws
    figures: tuple[FilterFigures, ...]

    def index(self, name: str) -> int:
        """The place of a filter among `filters` and `figures`, and on the second axis of `draws`."""
        return next(index for index, each in enumerate(self.filters) if each.name == name)

    def figure(self, name: str) -> FilterFigures:
        """One filter's figures."""
        return self.figures[self.index(name)]

    @property
    def policies(self) -> tuple[Filter, ...]:
        """The filters that are policies, in the order in which they were asked for."""
        return tuple(each for each in self.filters if each.kind is FilterKind.POLICY)

    @property
    def best(self) -> Filter:
        """The first policy."""
        return self.policies[0]

    @property
    def composite(self) -> Filter:
        """The paper's composite."""
        return self.filters[self.index(COMPOSITE)]

    def compare(self, name: str, against: str) -> FilterComparison:
        """One filter against another."""
        first, second = self.index(name), self.index(against)
        areas, kept = self.draws.areas, self.draws.kept
        return FilterComparison(
            name,
            against,
            compare_draws(areas[:, first], areas[:, second]),
            {share: compare_draws(kept[:, first, at], kept[:, second, at]) for at, share in enumerate(KEPT)},
        )

    def curve_band(self, name: str) -> tuple[Floats, Floats, Floats]:
        """Shares, low and high of a curve, shape (DRAWN,) each; without draws the curve itself."""
        drawn = self.draws.drawn[:, self.index(name)]
        low, high = np.quantile(drawn[1:] if len(drawn) > 1 else drawn, RANGE, axis=0)
        return DRAWN, low, high


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """All results; the first validators and the first policy are examined closely."""

    labeled: LabeledMaterial
    options: BootstrapOptions
    policies: tuple[Policy, ...]
    validators: tuple[ValidatorFigures, ...]
    thresholds: tuple[ThresholdFigures, ...]
    own_alpha: tuple[ThresholdFigures, ...]  # each policy, and the paper's composite, at its own α
    comparisons: tuple[FilterComparison, ...]  # the first policy with the composite, then with every single measure
    across: tuple[PairedFigures, ...]  # areas of the first policy: with each set of validators against the first
    groups: tuple[LabelGroup, ...]
    kept_failures: tuple[KeptFailure, ...]
    failures: int  # total failures among the labels
    salvage: tuple[SalvageFigures, ...]
    rescoring: tuple[RescoringFigures, ...]  # empty: no label has a second decode's text
    random: RandomBaseline

    @property
    def first(self) -> ValidatorFigures:
        return self.validators[0]

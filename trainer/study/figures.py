"""From walked labels to all figures of the study, as frozen data. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy
from trainer.evaluation.bootstrap import Band
from trainer.evaluation.error_rates import BUCKETS
from trainer.study.filters import COMPOSITE, LOG_PROBABILITY, NO_FILTER, SINGLE, Filter, Kind, filters
from trainer.study.judge import (
    ALPHAS,
    BAD,
    DRAWN,
    KEPT,
    TOTAL_FAILURE,
    Chance,
    Cuts,
    Ranked,
    SalvageFigures,
    chance,
    cuts,
    ranked,
    salvage,
)
from trainer.study.resampling import How, Pair, banded, paired
from trainer.study.table import Flags, Floats, Labels
from trainer.study.walk import NOTHING_SAID, ValidatorLabels, Walked

SPLIT_BY: Final = ("language", "length", "set", "code mixing")
SHOWN: Final = (NO_FILTER, LOG_PROBABILITY, "MER", "PER", COMPOSITE)  # beside the policies, in groups
SURVIVING_ALPHA: Final = 0.6  # up to this α no total failure may be kept


@dataclass(frozen=True, slots=True)
class Figures:
    """One filter as a ranking. Of `kept`, `switch` and `auc` the keys are shares of hours and true MER."""

    name: str
    kind: Kind
    area: Band
    kept: dict[float, Band]
    switch: dict[float, Band]
    auc: dict[float, Band]


@dataclass(frozen=True, slots=True)
class Cut:
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
    random: tuple[float, float, float]  # label MER at this share, kept at random: mean and range


@dataclass(frozen=True, slots=True)
class Compared:
    """One filter against another of the same validators."""

    name: str
    against: str
    area: Pair
    kept: dict[float, Pair]


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that have something in common."""

    by: str
    name: str
    labels: int
    seconds: float
    figures: tuple[Figures, ...]
    cuts: tuple[Cut, ...]  # each filter at its own α


@dataclass(frozen=True, slots=True)
class Survivor:
    """A total failure that a policy keeps at some α up to SURVIVING_ALPHA."""

    name: str
    policy: str
    score: float
    alpha: float  # the least of ALPHAS that keeps it
    edits: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ValidatorFigures:
    """All filters under one validators."""

    validators: ValidatorLabels
    filters: tuple[Filter, ...]
    ranked: Ranked
    figures: tuple[Figures, ...]

    def at(self, name: str) -> int:
        return next(index for index, one in enumerate(self.filters) if one.name == name)

    @property
    def best(self) -> Filter:
        """The first policy."""
        return next(one for one in self.filters if one.kind is Kind.POLICY)

    def compared(self, name: str, against: str) -> Compared:
        first, second = self.at(name), self.at(against)
        areas, kept = self.ranked.areas, self.ranked.kept
        return Compared(
            name,
            against,
            paired(areas[:, first], areas[:, second]),
            {share: paired(kept[:, first, at], kept[:, second, at]) for at, share in enumerate(KEPT)},
        )

    def curve_band(self, name: str) -> tuple[Floats, Floats, Floats]:
        """Shares, low and high of a curve; without draws the curve itself."""
        drawn = self.ranked.drawn[:, self.at(name)]
        low, high = np.quantile(drawn[1:] if len(drawn) > 1 else drawn, (0.025, 0.975), axis=0)
        return DRAWN, low, high


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Everything that was found; the first validators is the one that is looked at closely."""

    walked: Walked
    how: How
    policies: tuple[Policy, ...]
    validator_sets: tuple[ValidatorFigures, ...]
    cuts: tuple[Cut, ...]
    own: tuple[Cut, ...]  # each policy at its own α
    compared: tuple[Compared, ...]  # the first policy against the composite, then against every single measure
    across: tuple[Pair, ...]  # areas of the first policy: every validators against the first
    groups: tuple[Group, ...]
    survivors: tuple[Survivor, ...]
    failures: int  # total failures among the labels
    salvage: tuple[SalvageFigures, ...]
    chance: Chance

    @property
    def first(self) -> ValidatorFigures:
        return self.validator_sets[0]


def study(walked: Walked, policies: Sequence[Policy], how: How) -> Study:
    """Judge every filter over every validators."""
    labels = walked.labels
    validator_sets = tuple(_panel(labels, validators, policies, how) for validators in walked.validator_sets)
    first = validator_sets[0]
    best = first.best.name
    by_chance = chance(labels, how)
    single = [one.name for one in first.filters if one.kind in SINGLE and one.name != COMPOSITE]
    column = first.at(best)
    return Study(
        walked=walked,
        how=how,
        policies=tuple(policies),
        validator_sets=validator_sets,
        cuts=_cuts(labels, _grid(first.filters), how, by_chance),
        own=_cuts(labels, _own_alphas([one for one in first.filters if one.kind is Kind.POLICY]), how, by_chance),
        compared=tuple(first.compared(best, other) for other in (COMPOSITE, *single)),
        across=tuple(paired(one.ranked.areas[:, column], first.ranked.areas[:, column]) for one in validator_sets),
        groups=tuple(_groups(labels, first, how)),
        survivors=tuple(_survivors(labels, first.filters)),
        failures=int((labels.true_mer > TOTAL_FAILURE).sum()),
        salvage=salvage(labels, first.validators, policies[0], how) if policies[0].salvage else (),
        chance=by_chance,
    )


def _panel(labels: Labels, validators: ValidatorLabels, policies: Sequence[Policy], how: How) -> ValidatorFigures:
    judged = filters(validators.chunks, policies)
    found = ranked(labels, judged, how)
    return ValidatorFigures(validators, judged, found, _figures(judged, found))


def _figures(judged: Sequence[Filter], found: Ranked) -> tuple[Figures, ...]:
    return tuple(
        Figures(
            name=one.name,
            kind=one.kind,
            area=banded(found.areas[:, at]),
            kept={share: banded(found.kept[:, at, column]) for column, share in enumerate(KEPT)},
            switch={share: banded(found.switch[:, at, column]) for column, share in enumerate(KEPT)},
            auc={limit: banded(found.aucs[:, at, column]) for column, limit in enumerate(BAD)},
        )
        for at, one in enumerate(judged)
    )


# ---- thresholds ---------------------------------------------------------------------------------------------------

_Asked = tuple[Filter, float | None]


def _grid(judged: Sequence[Filter]) -> list[_Asked]:
    """Every filter at every α; rules at none."""
    rules = (Kind.CONTROL, Kind.RULE)
    return [
        (one, alpha)
        for one in judged
        if one.has_alpha or one.kind in rules or "rules" in one.name
        for alpha in (ALPHAS if one.has_alpha else (None,))
    ]


def _own_alphas(judged: Sequence[Filter]) -> list[_Asked]:
    return [(one, one.policy.alpha) for one in judged if one.policy is not None]


def _cuts(labels: Labels, asked: Sequence[_Asked], how: How, by_chance: Chance) -> tuple[Cut, ...]:
    masks = [one.accepts(alpha) for one, alpha in asked]
    found = cuts(labels, masks, how)
    failed = labels.true_mer > TOTAL_FAILURE
    return tuple(
        _cut(found, at, one.name, alpha, mask, failed, by_chance)
        for at, ((one, alpha), mask) in enumerate(zip(asked, masks, strict=True))
    )


def _cut(found: Cuts, at: int, name: str, alpha: float | None, mask: Flags, failed: Flags, by_chance: Chance) -> Cut:
    return Cut(
        name=name,
        alpha=alpha,
        labels=int(mask.sum()),
        failures=int((mask & failed).sum()),
        random=by_chance.at(float(found.share[0, at])),
        **{
            field: banded(getattr(found, field)[:, at])
            for field in (
                "share",
                "mer_kept",
                "mer_dropped",
                "switch_kept",
                "precision",
                "recall",
                "recall_total",
                "good_kept",
            )
        },
    )


# ---- groups -------------------------------------------------------------------------------------------------------


def _groups(labels: Labels, found: ValidatorFigures, how: How) -> list[Group]:
    shown = [one for one in found.filters if one.name in SHOWN or one.kind is Kind.POLICY]
    groups = []
    for by in SPLIT_BY:
        values = labels.kinds[by]
        for name in _ordered(by, list(dict.fromkeys(values.tolist()))):
            rows = values == name
            members, judged = labels.only(rows), [one.only(rows) for one in shown]
            groups.append(
                Group(
                    by=by,
                    name=name,
                    labels=len(members),
                    seconds=float(members.seconds.sum()),
                    figures=_figures(judged, ranked(members, judged, how)),
                    cuts=_cuts(members, _own_alphas(judged), how, chance(members, how)),
                )
            )
    return groups


def _ordered(by: str, names: list[str]) -> list[str]:
    if by != "code mixing":
        return sorted(names)
    known = [*(name for _, name in BUCKETS), NOTHING_SAID]
    return sorted(names, key=known.index)


# ---- survivors ----------------------------------------------------------------------------------------------------


def _survivors(labels: Labels, judged: Sequence[Filter]) -> list[Survivor]:
    found = []
    for one in judged:
        if one.kind is not Kind.POLICY and one.name != COMPOSITE:
            continue
        rows = np.flatnonzero((labels.true_mer > TOTAL_FAILURE) & one.accepts(SURVIVING_ALPHA)).tolist()
        found += [_survivor(labels, one, row) for row in rows]
    return found


def _survivor(labels: Labels, judged: Filter, row: int) -> Survivor:
    return Survivor(
        name=labels.names[row],
        policy=judged.name,
        score=round(float(judged.score[row]), 4),
        alpha=next(alpha for alpha in ALPHAS if judged.score[row] <= alpha),
        edits=int(labels.edits[row]),
        tokens=int(labels.tokens[row]),
        seconds=round(float(labels.seconds[row]), 3),
    )

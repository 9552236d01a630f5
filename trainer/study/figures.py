"""From labels with their truth to all figures of the study. Pure."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy
from trainer.evaluation.error_rates import BUCKETS
from trainer.study.filters import COMPOSITE, LOG_PROBABILITY, NO_FILTER, SINGLE, Filter, FilterKind, filters
from trainer.study.judge import (
    ALPHAS,
    BAD,
    KEPT,
    TOTAL_FAILURE,
    RandomBaseline,
    RankingDraws,
    judge_rankings,
    judge_salvage,
    judge_thresholds,
    random_baseline,
)
from trainer.study.labeling import NOTHING_SAID, LabeledMaterial, ValidatorLabels
from trainer.study.resampling import BootstrapOptions, compare_draws, figure_with_band
from trainer.study.rescoring import judge_rescoring
from trainer.study.results import (
    KEPT_FAILURE_ALPHA,
    FilterFigures,
    KeptFailure,
    LabelGroup,
    Study,
    ThresholdFigures,
    ValidatorFigures,
)
from trainer.study.table import LabelTable

SPLIT_BY: Final = ("language", "length", "set", "code mixing")
SHOWN: Final = (NO_FILTER, LOG_PROBABILITY, "MER", "PER", COMPOSITE)  # beside the policies, in groups


def study(labeled: LabeledMaterial, policies: Sequence[Policy], options: BootstrapOptions) -> Study:
    """Judge every filter with every set of validators.

    result = study(label_material(material, ["perturbed"], settings, cost_audio_s=0), [DEFAULT], BootstrapOptions())
    result.first.figure("evidence").area.value
    """
    labels = labeled.labels
    validators = tuple(_judge(labels, each, policies, options) for each in labeled.validators)
    first = validators[0]
    best = first.best.name
    baseline = random_baseline(labels, options)
    single = [each.name for each in first.filters if each.kind in SINGLE and each.name != COMPOSITE]
    column = first.index(best)
    first_areas = first.draws.areas[:, column]
    return Study(
        labeled=labeled,
        options=options,
        policies=tuple(policies),
        validators=validators,
        thresholds=_at_thresholds(labels, _every_alpha(first.filters), options, baseline),
        own_alpha=_at_thresholds(labels, _own_alphas([*first.policies, first.composite]), options, baseline),
        comparisons=tuple(first.compare(best, other) for other in (COMPOSITE, *single)),
        across=tuple(compare_draws(each.draws.areas[:, column], first_areas) for each in validators),
        groups=tuple(_groups(labels, first, options)),
        kept_failures=tuple(_kept_failures(labels, first.filters)),
        failures=int((labels.true_mer > TOTAL_FAILURE).sum()),
        salvage=judge_salvage(labels, first.validators, policies[0], options) if policies[0].salvage else (),
        rescoring=judge_rescoring(labels, labeled.truths, options),
        random=baseline,
    )


def _judge(
    labels: LabelTable, validators: ValidatorLabels, policies: Sequence[Policy], options: BootstrapOptions
) -> ValidatorFigures:
    judged = filters(validators.chunks, policies)
    draws = judge_rankings(labels, judged, options)
    return ValidatorFigures(validators, judged, draws, _figures(judged, draws))


def _figures(judged: Sequence[Filter], draws: RankingDraws) -> tuple[FilterFigures, ...]:
    return tuple(
        FilterFigures(
            name=each.name,
            kind=each.kind,
            area=figure_with_band(draws.areas[:, at]),
            kept={share: figure_with_band(draws.kept[:, at, column]) for column, share in enumerate(KEPT)},
            switch={share: figure_with_band(draws.switch[:, at, column]) for column, share in enumerate(KEPT)},
            auc={limit: figure_with_band(draws.aucs[:, at, column]) for column, limit in enumerate(BAD)},
        )
        for at, each in enumerate(judged)
    )


# ---- thresholds ---------------------------------------------------------------------------------------------------

_FilterAtAlpha = tuple[Filter, float | None]  # None: by the rule alone


def _every_alpha(judged: Sequence[Filter]) -> list[_FilterAtAlpha]:
    """Every filter that has an α at each of ALPHAS; rules by themselves."""
    rules = (FilterKind.CONTROL, FilterKind.RULE)
    return [
        (each, alpha)
        for each in judged
        if each.has_alpha or each.kind in rules or "rules" in each.name
        for alpha in (ALPHAS if each.has_alpha else (None,))
    ]


def _own_alphas(judged: Sequence[Filter]) -> list[_FilterAtAlpha]:
    """Policies, and distances as the paper uses them, each at its own α."""
    return [(each, each.policy.alpha) for each in judged if each.policy is not None]


def _at_thresholds(
    labels: LabelTable, judged: Sequence[_FilterAtAlpha], options: BootstrapOptions, baseline: RandomBaseline
) -> tuple[ThresholdFigures, ...]:
    masks = [each.accepts(alpha) for each, alpha in judged]
    draws = judge_thresholds(labels, masks, options)
    failed = labels.true_mer > TOTAL_FAILURE
    return tuple(
        ThresholdFigures(
            name=each.name,
            alpha=alpha,
            labels=int(mask.sum()),
            failures=int((mask & failed).sum()),
            share=figure_with_band(draws.share[:, at]),
            mer_kept=figure_with_band(draws.mer_kept[:, at]),
            mer_dropped=figure_with_band(draws.mer_dropped[:, at]),
            switch_kept=figure_with_band(draws.switch_kept[:, at]),
            precision=figure_with_band(draws.precision[:, at]),
            recall=figure_with_band(draws.recall[:, at]),
            recall_total=figure_with_band(draws.recall_total[:, at]),
            good_kept=figure_with_band(draws.good_kept[:, at]),
            random=baseline.at(float(draws.share[0, at])),
        )
        for at, ((each, alpha), mask) in enumerate(zip(judged, masks, strict=True))
    )


# ---- groups -------------------------------------------------------------------------------------------------------


def _groups(labels: LabelTable, first: ValidatorFigures, options: BootstrapOptions) -> list[LabelGroup]:
    shown = [each for each in first.filters if each.name in SHOWN or each.kind is FilterKind.POLICY]
    groups = []
    for by in SPLIT_BY:
        values = labels.kinds[by]
        for name in _in_order(by, list(dict.fromkeys(values.tolist()))):
            rows = values == name
            members, judged = labels.only(rows), [each.only(rows) for each in shown]
            baseline = random_baseline(members, options)
            draws = judge_rankings(members, judged, options)
            groups.append(
                LabelGroup(
                    by=by,
                    name=name,
                    labels=len(members),
                    seconds=float(members.seconds.sum()),
                    figures=_figures(judged, draws),
                    curves=draws.drawn[0],
                    own_alpha=_at_thresholds(members, _own_alphas(judged), options, baseline),
                )
            )
    return groups


def _in_order(by: str, names: list[str]) -> list[str]:
    if by != "code mixing":
        return sorted(names)
    order = [*(name for _, name in BUCKETS), NOTHING_SAID]
    return sorted(names, key=order.index)


# ---- failures that are kept ---------------------------------------------------------------------------------------


def _kept_failures(labels: LabelTable, judged: Sequence[Filter]) -> list[KeptFailure]:
    kept = []
    for each in judged:
        if each.kind is not FilterKind.POLICY and each.name != COMPOSITE:
            continue
        failed = (labels.true_mer > TOTAL_FAILURE) & each.accepts(KEPT_FAILURE_ALPHA)
        kept += [_kept_failure(labels, each, row) for row in np.flatnonzero(failed).tolist()]
    return kept


def _kept_failure(labels: LabelTable, judged: Filter, row: int) -> KeptFailure:
    return KeptFailure(
        name=labels.names[row],
        policy=judged.name,
        score=round(float(judged.score[row]), 4),
        alpha=next(alpha for alpha in ALPHAS if judged.score[row] <= alpha),
        edits=int(labels.edits[row]),
        tokens=int(labels.tokens[row]),
        seconds=round(float(labels.seconds[row]), 3),
    )

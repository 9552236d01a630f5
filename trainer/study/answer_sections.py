"""The first sections of the report: what each filter keeps of the reader's sets, and what second decodes changed."""

from collections.abc import Sequence
from typing import Final

from trainer.study.blocks import (
    DASH,
    Paragraph,
    Section,
    Table,
    format_band,
    format_difference,
    format_number,
    format_percent,
    join_words,
)
from trainer.study.filters import COMPOSITE, NO_FILTER, FilterKind
from trainer.study.group_sections import groups_of
from trainer.study.judge import KEPT, TOTAL_FAILURE
from trainer.study.resampling import PairedFigures
from trainer.study.rescoring import ALL_SETS, RescoringFigures
from trainer.study.results import KEPT_FAILURE_ALPHA, FilterFigures, Study, ThresholdFigures

_SHARE: Final = 0.7  # of the hours: the middle one of KEPT, for sentences


def answer(study: Study) -> str:
    """The report in one paragraph: the error without a filter, with the first policy, with the paper's composite."""
    labels, first, own = study.labeled.labels, study.first, study.own_alpha[0]
    best, paper, unfiltered = (first.figure(name) for name in (first.best.name, COMPOSITE, NO_FILTER))
    sets = join_words(sorted(set(labels.kinds["set"].tolist())))
    sentences = [
        f"On {sets} ({len(labels)} labels, {labels.seconds.sum() / 3600:.2f} h, validator: {first.validators.name}),"
        f" label MER without a filter is {format_band(unfiltered.area)}.",
        f"At its α of {own.alpha:g}, {best.name} keeps {format_percent(own.share)} of the hours at label MER"
        f" {format_band(own.mer_kept)}.",
        f"The best {100 * _SHARE:.0f} % of the hours have {format_band(best.kept[_SHARE])} by {best.name} and"
        f" {format_band(paper.kept[_SHARE])} by the paper's composite: {_in_words(study.comparisons[0].kept[_SHARE])}.",
        *_least_area(first.figures),
        *[_rescoring_sentence(figures) for figures in study.rescoring[:1]],
    ]
    if study.failures:
        kept = sum(failure.policy == best.name for failure in study.kept_failures)
        sentences.append(
            f"Labels with more errors than words (true MER > {TOTAL_FAILURE:g}): {study.failures}, of which {best.name}"
            f" keeps {kept or 'none'} at α up to {KEPT_FAILURE_ALPHA:g}."
        )
    return " ".join(sentences)


def _in_words(pair: PairedFigures) -> str:
    difference = pair.difference
    if difference.low is None or difference.high is None:
        return "too few recordings to tell them apart"
    if pair.is_clear:
        return "lower by more than the band"
    return "higher by more than the band" if difference.low > 0 else "no clear difference"


def _least_area(figures: Sequence[FilterFigures]) -> list[str]:
    """A sentence on the filter that is best over all shares, of those that a policy file can ask for."""
    usable = [
        (figures.area.value, figures)
        for figures in figures
        if figures.kind in (FilterKind.POLICY, FilterKind.DISTANCE) and figures.area.value is not None
    ]
    if not usable:
        return []
    _, least = min(usable, key=lambda pair: pair[0])
    return [
        f"Over all shares, {least.name} is the best of the policies and of the distances a policy can use (area under"
        f" the risk–coverage curve {format_band(least.area)})."
    ]


def _rescoring_sentence(figures: RescoringFigures) -> str:
    return (
        f"{format_percent(figures.share)} of the hours have a second decode's text: label MER"
        f" {format_number(figures.mer_chosen.value)} there instead of {format_number(figures.mer_teacher.value)} with"
        f" the teacher's first texts, {format_number(figures.mer_all_chosen.value)} instead of"
        f" {format_number(figures.mer_all_teacher.value)} over all."
    )


def kept_section(study: Study) -> Section:
    """What no filter, each policy and the paper's composite keep, over all sets and over each."""
    labels = study.labeled.labels
    header = (
        "set",
        "labels",
        "hours",
        "filter",
        "α",
        "hours kept",
        "label MER",
        *(f"label MER, best {100 * share:.0f} %" for share in KEPT),
    )
    sets = groups_of(study, "set")
    whole = ALL_SETS if len(sets) > 1 else sets[0].name
    rows = _kept_rows(
        study, whole, len(labels), float(labels.seconds.sum()), figures=study.first.figures, own_alpha=study.own_alpha
    )
    if len(sets) > 1:
        for each in sets:
            rows += _kept_rows(
                study, each.name, each.labels, each.seconds, figures=each.figures, own_alpha=each.own_alpha
            )
    text = (
        "Each filter at its own α: the share of the hours it keeps and the label MER of what it keeps. Then the label"
        " MER if it kept the best half, 70 % or 90 % of the hours, whatever α that takes."
    )
    return Section("What each filter keeps", (Paragraph(text), Table(header, tuple(rows))))


def _kept_rows(
    study: Study,
    name: str,
    labels: int,
    seconds: float,
    *,
    figures: Sequence[FilterFigures],
    own_alpha: Sequence[ThresholdFigures],
) -> list[tuple[str, ...]]:
    by_name = {each.name: each for each in figures}
    at_alpha = {each.name: each for each in own_alpha}
    unfiltered = by_name[NO_FILTER].area
    cells = name, str(labels), f"{seconds / 3600:.2f}"
    rows: list[tuple[str, ...]] = [(*cells, NO_FILTER, DASH, "100 %", format_band(unfiltered), *[DASH] * len(KEPT))]
    for shown in (*(policy.name for policy in study.first.policies), COMPOSITE):
        kept = at_alpha[shown]
        rows.append(
            (
                *cells,
                shown,
                f"{kept.alpha:g}",
                format_percent(kept.share),
                format_band(kept.mer_kept),
                *(format_band(by_name[shown].kept[share]) for share in KEPT),
            )
        )
    return rows


def rescoring_section(study: Study) -> Section:
    """The labels whose text a second decode wrote, before and after."""
    header = (
        "set",
        "labels with a second decode's text",
        "of the hours",
        "their label MER, teacher's first text",
        "chosen text",
        "label MER of all, teacher's first text",
        "chosen text",
        "difference",
    )
    rows = tuple(
        (
            each.set,
            str(each.labels),
            format_percent(each.share),
            format_band(each.mer_teacher),
            format_band(each.mer_chosen),
            format_band(each.mer_all_teacher),
            format_band(each.mer_all_chosen),
            format_difference(each.change.difference),
        )
        for each in study.rescoring
    )
    text = (
        "Where the teacher was not sure, it decoded the chunk again, and the more probable text became the label. The"
        " teacher's first texts are scored as if they had stayed; no filter is applied."
    )
    return Section("What second decodes changed", (Paragraph(text), Table(header, rows)))

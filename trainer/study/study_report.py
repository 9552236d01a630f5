"""The study as a document: what was run, the answer in three sentences, then tables."""

from typing import Final

from trainer.study.about import About
from trainer.study.blocks import ReportDocument, format_band, format_number, format_percent
from trainer.study.filter_sections import (
    curves_section,
    failures_section,
    salvage_section,
    targets_section,
    thresholds_section,
    validators_section,
)
from trainer.study.filters import COMPOSITE, NO_FILTER
from trainer.study.group_sections import fairness_section, groups_of, material_section, split_section
from trainer.study.how_to_read import how_to_read_section
from trainer.study.judge import TOTAL_FAILURE
from trainer.study.results import KEPT_FAILURE_ALPHA, Study

TITLE: Final = "Which filter keeps the better labels"


def document(study: Study, about: About) -> ReportDocument:
    """Write the report. It has no transcripts, so it may be shown where the recordings may not."""
    several = len(study.validators) > 1 or study.first.validators.cost_s is not None
    sections = (
        targets_section(study),
        curves_section(study),
        thresholds_section(study),
        failures_section(study),
        *([salvage_section(study)] if study.salvage else []),
        *([validators_section(study)] if several else []),
        *(split_section(study, by) for by in ("language", "length", "set") if len(groups_of(study, by)) > 1),
        fairness_section(study),
        how_to_read_section(study.options),
        material_section(study),
    )
    return ReportDocument(TITLE, about.line, _answer(study), sections)


def _answer(study: Study) -> str:
    labels, first = study.labeled.labels, study.first
    name = first.best.name
    best, paper, unfiltered = first.figure(name), first.figure(COMPOSITE), first.figure(NO_FILTER)
    to_composite, own = study.comparisons[0], study.own_alpha[0]
    single = [each for each in study.comparisons[1:] if each.area.difference.value is not None]
    nearest = max(single, key=lambda each: each.area.difference.value or -1.0)
    is_below = (nearest.area.difference.value or 0.0) < 0
    below = to_composite.area.below
    kept = sum(failure.policy == name for failure in study.kept_failures)
    return (
        f"Of {len(labels)} labels ({labels.seconds.sum() / 3600:.2f} h, label MER"
        f" {format_number(unfiltered.area.value)} unfiltered), the best 70 % of the hours have label MER"
        f" {format_band(best.kept[0.7])} by {name} and {format_band(paper.kept[0.7])} by the paper's composite"
        f" (validator: {first.validators.name}). The area under the risk–coverage curve is {format_band(best.area)}"
        f" against {format_band(paper.area)}: {format_band(to_composite.area.ratio, 2)} times as large, smaller in"
        f" {'–' if below is None else f'{100 * below:.1f} %'} of the draws,"
        f" {'below every single measure' if is_below else f'not below {nearest.against}'}. At its own α of"
        f" {own.alpha:g}, {name} keeps {format_percent(own.share)} of the hours at label MER"
        f" {format_band(own.mer_kept)}; of {study.failures} total failures (true MER > {TOTAL_FAILURE:g}), it keeps"
        f" {kept} at α {KEPT_FAILURE_ALPHA:g}."
    )

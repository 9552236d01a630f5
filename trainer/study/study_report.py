"""The study as a document: what was run, the answer in a paragraph, what each filter keeps, then all other tables."""

from typing import Final

from trainer.study.about import About
from trainer.study.answer_sections import answer, kept_section, rescoring_section
from trainer.study.blocks import ReportDocument
from trainer.study.filter_sections import (
    curves_section,
    failures_section,
    salvage_section,
    thresholds_section,
    validators_section,
)
from trainer.study.group_sections import fairness_section, groups_of, material_section, split_section
from trainer.study.how_to_read import definitions_section, how_to_read_section
from trainer.study.results import Study

TITLE: Final = "Which filter keeps the better labels"


def document(study: Study, about: About) -> ReportDocument:
    """Write the report. It has no transcripts, so it may be shown where the recordings may not."""
    several = len(study.validators) > 1 or study.first.validators.cost_s is not None
    sections = (
        kept_section(study),
        *([rescoring_section(study)] if study.rescoring else []),
        how_to_read_section(),
        curves_section(study),
        thresholds_section(study),
        failures_section(study),
        *([salvage_section(study)] if study.salvage else []),
        *([validators_section(study)] if several else []),
        *(split_section(study, by) for by in ("language", "length", "set") if len(groups_of(study, by)) > 1),
        fairness_section(study),
        definitions_section(study.options),
        material_section(study),
    )
    return ReportDocument(TITLE, about.line, answer(study), sections)

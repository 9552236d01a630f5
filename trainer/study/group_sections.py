"""Sections of the report about groups of labels: by language, length and set; fairness; the material itself."""

from collections import Counter

from trainer.study.blocks import Paragraph, Section, Table, format_band, format_number, format_percent
from trainer.study.filter_sections import MOST_SHOWN
from trainer.study.filters import NO_FILTER
from trainer.study.judge import GOOD, KEPT, WRONG
from trainer.study.results import LabelGroup, Study


def groups_of(study: Study, by: str) -> list[LabelGroup]:
    """The groups that the labels are split into by one property."""
    return [group for group in study.groups if group.by == by]


def split_section(study: Study, by: str) -> Section:
    """The main filters as rankings within each group."""
    header = (
        by,
        "labels",
        "hours",
        "filter",
        "area",
        *(f"label MER, {100 * share:.0f} % kept" for share in KEPT),
        f"AUC, true MER > {WRONG:g}",
    )
    rows = tuple(
        (
            *_group_cells(group),
            figures.name,
            format_band(figures.area),
            *(format_band(figures.kept[share]) for share in KEPT),
            format_band(figures.auc[WRONG], 2),
        )
        for group in groups_of(study, by)
        for figures in group.figures
    )
    return Section(f"By {by}", (Table(header, rows),))


def fairness_section(study: Study) -> Section:
    """How much each policy keeps of labels with more and less code mixing."""
    header = (
        "code mixing",
        "labels",
        "hours",
        "policy",
        "α",
        "hours kept",
        f"labels with true MER ≤ {GOOD:g} kept",
        "label MER",
        "label MER kept",
    )
    rows = tuple(
        (
            *_group_cells(group),
            figures.name,
            f"{figures.alpha:g}",
            format_percent(figures.share),
            format_percent(figures.good_kept),
            format_number(next(each for each in group.figures if each.name == NO_FILTER).area.value),
            format_band(figures.mer_kept),
        )
        for group in groups_of(study, "code mixing")
        for figures in group.own_alpha
    )
    text = (
        "The code-mixing index of a reference is 1 minus the share of the language that has more tokens; 0 is"
        " monolingual. Each policy is applied at its own α."
    )
    return Section("Fairness: acceptance by code mixing", (Paragraph(text), Table(header, rows)))


def material_section(study: Study) -> Section:
    """What was studied and what was skipped."""
    labeled = study.labeled
    blocks: list[Paragraph | Table] = [
        Paragraph(
            f"{labeled.recordings} recordings, {labeled.seconds_in / 3600:.2f} h: {len(labeled.labels)} labels with a"
            f" known truth, {len(labeled.unlabeled)} recordings without a label because the teacher found no speech,"
            f" {len(labeled.skipped)} skipped."
        )
    ]
    reasons = Counter(labeled.skipped.values())
    if reasons:
        rows = tuple((reason, str(count)) for reason, count in reasons.most_common(MOST_SHOWN))
        blocks.append(Table(("skipped", "recordings"), rows))
    return Section("Material", tuple(blocks))


def _group_cells(group: LabelGroup) -> tuple[str, str, str]:
    return group.name, str(group.labels), f"{group.seconds / 3600:.2f}"

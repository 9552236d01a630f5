"""Sections of the report that compare filters over all labels: curves, thresholds, failures, validators."""

from collections.abc import Iterable
from typing import Final

from trainer.study.blocks import (
    DASH,
    Paragraph,
    Picture,
    Section,
    Table,
    format_band,
    format_difference,
    format_number,
    format_percent,
)
from trainer.study.filters import COMPOSITE
from trainer.study.judge import BAD, KEPT, PARTS, TOTAL_FAILURE, WRONG
from trainer.study.results import KEPT_FAILURE_ALPHA, FilterFigures, Study, ThresholdFigures

MOST_SHOWN: Final = 50  # rows of a list; report.json has all
_UNKNOWN_AREA: Final = 9.0  # where filters without an area are sorted: last


def curves_section(study: Study) -> Section:
    """Every filter as a ranking, and the first policy against each of the others."""
    first = study.first
    rows = sorted(
        first.figures, key=lambda figures: _UNKNOWN_AREA if figures.area.value is None else figures.area.value
    )
    areas = tuple(
        (
            figures.name,
            str(figures.kind),
            format_band(figures.area),
            *(format_band(figures.kept[share]) for share in KEPT),
        )
        for figures in rows
    )
    against = tuple(
        (
            each.against,
            format_band(each.area.ratio, 2),
            format_difference(each.area.difference),
            *(format_difference(each.kept[share].difference) for share in KEPT),
            DASH if each.area.below is None else f"{100 * each.area.below:.1f} %",
        )
        for each in study.comparisons
    )
    bad_and_switches = tuple(
        (
            figures.name,
            *(format_band(figures.auc[limit], 2) for limit in BAD),
            *(format_band(figures.switch[share]) for share in KEPT),
        )
        for figures in rows
    )
    kept = [f"{100 * share:.0f} % kept" for share in KEPT]
    strong = _policies_and_composite(study, rows)
    return Section(
        "Risk–coverage",
        (
            Picture("risk-coverage.png", "Label MER of what is kept, against the share of hours kept"),
            Table(("filter", "kind", "area", *(f"label MER, {title}" for title in kept)), areas, strong),
            Picture("areas.png", "Area under the curve of every filter, with bands"),
            Paragraph(f"{first.best.name} against each of the others, draw by draw (negative is better):"),
            Table(
                (
                    "against",
                    "ratio of areas",
                    "difference of areas",
                    *(f"of label MER, {title}" for title in kept),
                    "draws below",
                ),
                against,
            ),
            Paragraph("How well the same rankings tell bad labels from good ones, and errors at switch points:"),
            Table(
                (
                    "filter",
                    *(f"AUC, true MER > {limit:g}" for limit in BAD),
                    *(f"switch-point error, {title}" for title in kept),
                ),
                bad_and_switches,
                strong,
            ),
        ),
    )


def thresholds_section(study: Study) -> Section:
    """What every filter keeps and drops at every α."""
    header = (
        "filter",
        "α",
        "hours kept",
        "label MER kept",
        "dropped",
        "random, as many hours",
        f"precision, MER > {WRONG:g}",
        f"recall, MER > {WRONG:g}",
        f"recall, MER > {TOTAL_FAILURE:g}",
        "switch-point error kept",
        f"failures kept, of {study.failures}",
    )
    rows = tuple(
        (
            figures.name,
            DASH if figures.alpha is None else f"{figures.alpha:g}",
            format_percent(figures.share),
            format_band(figures.mer_kept),
            format_number(figures.mer_dropped.value),
            f"{figures.random[0]:.3f} [{figures.random[1]:.3f}–{figures.random[2]:.3f}]",
            format_number(figures.precision.value, 2),
            format_band(figures.recall, 2),
            format_number(figures.recall_total.value, 2),
            format_number(figures.switch_kept.value),
            str(figures.failures),
        )
        for figures in study.thresholds
    )
    strong = _policies_and_composite(study, study.thresholds)
    return Section("At each α", (Picture("alpha.png", "Hours kept and label MER by α"), Table(header, rows, strong)))


def failures_section(study: Study) -> Section:
    """The total failures that each policy keeps."""
    blocks: list[Paragraph | Table] = []
    for name in [*(policy.name for policy in study.first.policies), COMPOSITE]:
        kept = [failure for failure in study.kept_failures if failure.policy == name]
        text = f"{name} keeps {len(kept)} of {study.failures} total failures at some α up to {KEPT_FAILURE_ALPHA:g}."
        blocks.append(Paragraph(text))
        rows = tuple(
            (
                failure.name,
                f"{failure.seconds:.1f}",
                f"{failure.edits} of {failure.tokens}",
                format_number(failure.score),
                f"{failure.alpha:g}",
            )
            for failure in kept[:MOST_SHOWN]
        )
        if rows:
            blocks.append(Table(("label", "seconds", "edits, of tokens", "score", "kept from α"), rows))
    return Section("Total failures that are kept", tuple(blocks))


def salvage_section(study: Study) -> Section:
    """What the first policy keeps whole and salvages at every α."""
    header = ("labels", "α", "hours whole", "label MER", "hours salvaged", "label MER", "hours together", "label MER")
    rows = tuple(
        (
            figures.length,
            f"{figures.alpha:g}",
            *(text for part in PARTS for text in (format_percent(figures.share[part]), format_band(figures.mer[part]))),
        )
        for figures in study.salvage
    )
    text = (
        f"Of labels that {study.first.best.name} does not keep whole, segments that pass on their own evidence are"
        " kept. Shares are of the labels' seconds; a segment's truth is the part of its label's alignment that falls"
        " into it."
    )
    return Section("Salvage", (Paragraph(text), Table(header, rows)))


def validators_section(study: Study) -> Section:
    """The first policy and the composite with every set of validators."""
    name = study.first.best.name
    header = (
        "asked for as",
        "validators",
        "compute, s for an hour of audio",
        f"area, {name}",
        "difference to the first",
        "area, composite",
        "ratio",
        *(f"{name}, {100 * share:.0f} % kept" for share in KEPT),
        f"AUC, true MER > {WRONG:g}",
    )
    rows = []
    for at, (figures, pair) in enumerate(zip(study.validators, study.across, strict=True)):
        best, paper = figures.figure(figures.best.name), figures.figure(COMPOSITE)
        to_composite = figures.compare(figures.best.name, COMPOSITE)
        rows.append(
            (
                figures.validators.name,
                f"{figures.validators.full_name} ({figures.validators.fingerprints[1]})",
                format_number(figures.validators.cost_s, 0),
                format_band(best.area),
                format_difference(pair.difference) if at else DASH,
                format_band(paper.area),
                format_band(to_composite.area.ratio, 2),
                *(format_band(best.kept[share]) for share in KEPT),
                format_band(best.auc[WRONG], 2),
            )
        )
    pictures = [Picture("validators.png", "Areas with every set of validators")] if len(study.validators) > 1 else []
    text = (
        "The same labels, checked by other validators. Compute is the wall time of the hypotheses on this machine, with"
        " labels made and models loaded before, in a store of its own over a sample of the material."
    )
    return Section("Validators side by side", (Paragraph(text), *pictures, Table(header, tuple(rows))))


def _policies_and_composite(study: Study, rows: Iterable[FilterFigures | ThresholdFigures]) -> frozenset[int]:
    """The places of the rows that are highlighted."""
    names = {COMPOSITE, *(policy.name for policy in study.first.policies)}
    return frozenset(at for at, row in enumerate(rows) if row.name in names)

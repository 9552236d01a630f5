"""A report for people: Markdown, and one HTML page that needs nothing beside it."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.evaluation.bootstrap import Band
from trainer.evaluation.error_rates import METRICS
from trainer.evaluation.eval_report import Figure, Report

GROUPED = ("mer", "zh_cer", "en_wer", "switch", "poi")  # metrics that groups show
MOST_SET_ASIDE = 50  # that a page lists
OPS = {"equal": "", "substitute": "sub", "delete": "del", "insert": "ins"}


def markdown(report: Report) -> str:
    """The report as Markdown."""
    return _render("report.md.j2", report)


def html(report: Report) -> str:
    """The report as one HTML page: style inline, no script, no link to anywhere."""
    return _render("report.html.j2", report)


def percent(value: float | None, digits: int = 2) -> str:
    """0.1234 → 12.34; a dash where there is nothing to divide by."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def band(found: Band) -> str:
    """The range behind a figure."""
    return "" if found.low is None or found.high is None else f"{percent(found.low, 1)}–{percent(found.high, 1)}"


def change(found: Band | None) -> str:
    """A difference with its sign and range; a star where the range leaves zero out."""
    if found is None or found.value is None or found.low is None or found.high is None:
        return ""
    star = "*" if found.low > 0 or found.high < 0 else ""
    return f"{100 * found.value:+.2f}{star} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def brief(change: str) -> str:
    """A difference without its range, for tables with many of them."""
    return change.partition(" ")[0]


def cell(text: str) -> str:
    """Text inside one cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def edits(figure: Figure) -> str:
    """The counts behind a figure: substitutions, deletions, insertions of reference tokens."""
    counts = figure.counts
    return f"{counts.substitutions} S, {counts.deletions} D, {counts.insertions} I of {counts.reference_length}"


def _render(template: str, report: Report) -> str:
    groups: dict[str, list[Any]] = {}
    for group in report.groups:
        groups.setdefault(group.by, []).append(group)
    return (
        _environment()
        .get_template(template)
        .render(
            report=report,
            metrics=METRICS,
            grouped=GROUPED,
            groups=groups,
            ops=OPS,
            first=report.models[0],
            most=MOST_SET_ASIDE,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.evaluation"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "band": band,
        "change": change,
        "cell": cell,
        "brief": brief,
        "edits": edits,
    }
    return environment

"""Renders a report: Markdown, and one self-contained HTML page."""

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.evaluation.bootstrap import Band
from trainer.evaluation.error_rates import METRICS
from trainer.evaluation.eval_report import EvaluationReport, MetricFigure

GROUPED: Final = ("mer", "zh_cer", "en_wer", "switch", "poi")  # metrics shown for groups
MOST_SKIPPED: Final = 50  # utterances that a page lists; report.json has all
OPS: Final = {"equal": "", "substitute": "sub", "delete": "del", "insert": "ins"}


def markdown(report: EvaluationReport) -> str:
    """The report as Markdown."""
    return _render("report.md.j2", report)


def html(report: EvaluationReport) -> str:
    """The report as one HTML page: style inline, no script, no link to anywhere."""
    return _render("report.html.j2", report)


def percent(value: float | None, digits: int = 2) -> str:
    """0.1234 → 12.34; a dash where there is nothing to divide by."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def band(figure: Band) -> str:
    """A figure's range: 10.1–15.0."""
    return "" if figure.low is None or figure.high is None else f"{percent(figure.low, 1)}–{percent(figure.high, 1)}"


def change(difference: Band | None) -> str:
    """A difference with its sign and range; a star where the range does not contain zero."""
    if difference is None or difference.value is None or difference.low is None or difference.high is None:
        return ""
    star = "*" if difference.low > 0 or difference.high < 0 else ""
    return f"{100 * difference.value:+.2f}{star} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def brief(change: str) -> str:
    """A difference without its range, for tables with many of them."""
    return change.partition(" ")[0]


def cell(text: str) -> str:
    """Text inside one cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def edits(figure: MetricFigure) -> str:
    """The counts behind a figure: substitutions, deletions, insertions of reference tokens."""
    counts = figure.counts
    return f"{counts.substitutions} S, {counts.deletions} D, {counts.insertions} I of {counts.reference_length}"


def _render(template: str, report: EvaluationReport) -> str:
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
            most=MOST_SKIPPED,
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

"""Does a study reach this project's targets? Reads a report.json of `k2d study`, writes a Markdown table.

    k2d study ../shared/data/public ../shared/data/real --out study
    K2D_BEAM_SIZE=1 K2D_RESCORE=false k2d study ../shared/data/public ../shared/data/real --out greedy
    python bench/study_targets.py study/report.json --greedy greedy/report.json

The first policy of a report is held against the paper's composite, with the first validators.

- Filter and labels together (needs `--greedy`, a study of the same sets with the teacher's greedy labels): the first
  policy on new labels against what was kept before, greedy labels by the paper's composite; over all sets and each.
- The filter alone: both on the same labels of the first report.

The label MER at a share of the hours that no report gives is read from its curve, linearly between points 2 % apart.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = (2, 3)  # of report.json; 2 has no curves of sets, and does not say how its labels were decoded

MER_RATIO = 0.80  # largest ratio of label MER to greedy's
KEPT_SHARE = 0.87  # of the hours: what the composite at PAPER_ALPHA kept of all sets when the targets were set
KEPT_RATIO = 0.80  # the same ratio at KEPT_SHARE, of the policy to the composite at PAPER_ALPHA on greedy labels
LABEL_AREA_RATIO = 0.75  # of the policy's area to the composite's on greedy labels
AREA_RATIO = 0.80  # of the policy's area to the composite's on the same labels
FAILURE_MER = 1.0  # true MER above which no label should be kept …
FAILURE_ALPHA = 0.6  # … at any α up to this one

COMPOSITE = "composite (paper)"
NO_FILTER = "no filter"
SINGLE = ("teacher's signal", "distance", "feature alone")  # kinds of filters that are one measure
PAPER_ALPHA = 0.4
DASH = "–"
ALL_SETS = "all"


class ReportError(Exception):
    """A report cannot be held against the targets: the message says which, why, and what to do."""


@dataclass(frozen=True)
class Target:
    """One target; `holds` is None where the reports do not tell."""

    labels: str  # the set, or all
    asked: str
    found: str
    holds: bool | None


@dataclass(frozen=True)
class SetFigures:
    """What a report says of the labels of one set, or of all of them."""

    name: str
    shares: list[float]  # of the points of curves
    filters: dict[str, dict[str, Any]]
    curves: dict[str, list[float]]  # empty: the report has none
    own_alpha: dict[str, dict[str, Any]]  # filters at the α of their policies

    def area(self, name: str) -> float | None:
        value: float | None = self.filters[name]["area"]["value"]
        return value

    def mer_at(self, name: str, share: float) -> float | None:
        """Label MER of the best so many hours."""
        return float(np.interp(share, self.shares, self.curves[name])) if name in self.curves else None

    def kept(self, name: str) -> tuple[float | None, float | None]:
        """Share of the hours and label MER of what a filter keeps at its own α."""
        figures = self.own_alpha.get(name)
        return (None, None) if figures is None else (figures["share"]["value"], figures["mer_kept"]["value"])


def load(path: Path) -> dict[str, Any]:
    """Read a report.json.

    Raises:
        ReportError: it is something else, or of a version of k2d whose reports are otherwise.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        known = report["format"] in FORMATS
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReportError(f"{path} is not a report.json of `k2d study`: {error!r}") from error
    if not known:
        raise ReportError(f"{path} has format {report['format']}, known are {FORMATS}: run `k2d study` again")
    return report


def by_set(report: dict[str, Any]) -> dict[str, SetFigures]:
    """The figures of all labels and, where there are several sets, of each set, by name."""
    first = report["validators"][0]
    at_paper_alpha = [
        each for each in report["thresholds"] if (each["name"], each["alpha"]) == (COMPOSITE, PAPER_ALPHA)
    ]
    own_alpha = [*report["own_alpha"], *at_paper_alpha]  # groups have the composite's among the others
    parts = [{"name": ALL_SETS, "filters": first["filters"], "curves": first["curves"], "own_alpha": own_alpha}]
    sets = [group for group in report["groups"] if group["by"] == "set"]
    parts += sets if len(sets) > 1 else []
    return {
        part["name"]: SetFigures(
            name=part["name"],
            shares=report["shares"],
            filters={each["name"]: each for each in part["filters"]},
            curves=part.get("curves", {}),
            own_alpha={each["name"]: each for each in part["own_alpha"]},
        )
        for part in parts
    }


def first_policy(report: dict[str, Any]) -> str:
    return next(str(each["name"]) for each in report["validators"][0]["filters"] if each["kind"] == "policy")


# ---- filter and labels together -----------------------------------------------------------------------------------


def label_targets(report: dict[str, Any], greedy: dict[str, Any]) -> Iterator[Target]:
    """New labels with the first policy against greedy ones with the paper's composite.

    Raises:
        ReportError: the second report is not of greedy labels, or not of the same sets.
    """
    about = greedy["about"]
    if about.get("beam_size", 1) != 1 or about.get("rescore", False) or greedy.get("rescoring"):
        raise ReportError(
            "the report of --greedy is not of greedy labels: K2D_BEAM_SIZE=1 K2D_RESCORE=false k2d study …"
        )
    name, new, old = first_policy(report), by_set(report), by_set(greedy)
    if set(new) != set(old):
        raise ReportError(f"the reports are of different sets: {', '.join(new)}; {', '.join(old)}")
    for part, now in new.items():
        before = old[part]
        yield _ratio(
            part,
            f"label MER at 100 % of the hours ≤ {MER_RATIO:.2f} × greedy's",
            now.area(NO_FILTER),
            before.area(NO_FILTER),
            MER_RATIO,
        )
        share, kept = before.kept(COMPOSITE)
        yield _ratio(
            part,
            f"label MER of {name} at {100 * KEPT_SHARE:.0f} % of the hours ≤ {KEPT_RATIO:.2f} × greedy's, kept by the"
            f" composite at α {PAPER_ALPHA:g}",
            now.mer_at(name, KEPT_SHARE),
            kept,
            KEPT_RATIO,
            note="" if share is None else f" (greedy at {100 * share:.0f} %)",
        )
        yield _ratio(
            part,
            "the same, where both keep what that composite keeps",
            None if share is None else now.mer_at(name, share),
            kept,
            KEPT_RATIO,
            note="" if share is None else f" (both at {100 * share:.0f} %)",
        )
        yield _ratio(
            part,
            f"area of {name} ≤ {LABEL_AREA_RATIO:.2f} × the composite's on greedy labels",
            now.area(name),
            before.area(COMPOSITE),
            LABEL_AREA_RATIO,
        )


def _ratio(part: str, asked: str, now: float | None, before: float | None, limit: float, *, note: str = "") -> Target:
    if now is None or not before:
        return Target(part, asked, f"{_number(now)} against {_number(before)}{note}", None)
    ratio = now / before
    return Target(part, asked, f"{now:.3f} against {before:.3f}{note}: {ratio:.2f}", ratio <= limit)


# ---- the filter alone ---------------------------------------------------------------------------------------------


def filter_targets(report: dict[str, Any]) -> Iterator[Target]:
    """The first policy against other filters on the same labels."""
    name, parts = first_policy(report), by_set(report)
    composite, *others = report["comparisons"]
    kinds = {each["name"]: each["kind"] for each in report["validators"][0]["filters"]}
    ratio = composite["area"]["ratio"]
    asked = f"area of {name} ≤ {AREA_RATIO:.2f} × the composite's"
    holds = None if ratio["value"] is None else ratio["value"] <= AREA_RATIO
    yield Target(ALL_SETS, asked, _band(ratio, "{:.2f}"), holds)
    for part, figures in parts.items():
        if part != ALL_SETS:
            yield _ratio(part, asked, figures.area(name), figures.area(COMPOSITE), AREA_RATIO)
    for share, pair in composite["kept"].items():
        difference = pair["difference"]
        yield Target(
            ALL_SETS,
            f"below the composite at {100 * float(share):.0f} % kept, by more than the band",
            _band(difference, "{:+.3f}"),
            None if difference["high"] is None else difference["high"] < 0,
        )
    single = [each for each in others if kinds[each["against"]] in SINGLE]
    unknown = [each for each in single if each["area"]["difference"]["value"] is None]
    above = [each["against"] for each in single if each not in unknown and each["area"]["difference"]["value"] >= 0]
    yield Target(
        ALL_SETS,
        f"area of {name} below every single measure's",
        f"not below {', '.join(above)}" if above else f"below {len(single) - len(unknown)} of {len(single)}",
        False if above else None if unknown else True,
    )
    failures = report["material"]["total_failures"]
    kept = [each for each in report["kept_failures"] if each["policy"] == name and each["alpha"] <= FAILURE_ALPHA]
    yield Target(
        ALL_SETS,
        f"no label with true MER > {FAILURE_MER:g} kept at any α ≤ {FAILURE_ALPHA:g}",
        f"{len(kept)} of {failures}",
        not kept if failures else None,
    )


# ---- the table ----------------------------------------------------------------------------------------------------


def table(targets: list[Target]) -> str:
    """Targets as a Markdown table."""
    words = {True: "yes", False: "NO", None: DASH}
    rows = [f"| {each.labels} | {each.asked} | {each.found} | {words[each.holds]} |" for each in targets]
    return "\n".join(["| labels | asked | found | holds |", "|---|---|---|---|", *rows])


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _band(figure: dict[str, float | None], form: str) -> str:
    if figure["value"] is None:
        return DASH
    value = form.format(figure["value"])
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} [{form.format(figure['low'])} to {form.format(figure['high'])}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.json of a study")
    parser.add_argument("--greedy", type=Path, help="report.json of a study of the same sets' greedy labels")
    arguments = parser.parse_args()
    try:
        report = load(arguments.report)
        greedy = None if arguments.greedy is None else load(arguments.greedy)
        tables = {"The filter alone, on the same labels:": list(filter_targets(report))}
        if greedy is not None:
            tables = {
                "Filter and labels together, against greedy labels:": list(label_targets(report, greedy))
            } | tables
    except ReportError as error:
        parser.error(str(error))
    print("\n\n".join(f"{title}\n\n{table(targets)}" for title, targets in tables.items()))


if __name__ == "__main__":
    main()

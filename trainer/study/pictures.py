"""The study's pictures: PNGs on white whose lines differ in style as well as in colour."""

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from trainer.evaluation.bootstrap import Band
from trainer.study.curves import GRID
from trainer.study.filters import COMPOSITE, LOG_PROBABILITY, NGRAM, FilterKind
from trainer.study.judge import ALPHAS, RANDOM_ORDERS
from trainer.study.results import FilterFigures, Study, ValidatorFigures

# Okabe and Ito's palette, which people with every kind of colour blindness can tell apart
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#6b6b6b"
_LINES: Final = {
    COMPOSITE: (ORANGE, "--"),
    "MER": (GREEN, ":"),
    "PER": (SKY, (0, (5, 1, 1, 1))),
    LOG_PROBABILITY: (PURPLE, "-."),
    NGRAM: (GREY, (0, (1, 2))),
}
_OTHERS: Final = ("#332288", "#882255", "#117733")  # of further policies
_HEADROOM: Final = 1.6  # curves are cut off above so many times the MER of all labels: confident loops reach 20
_DPI: Final = 130


def pictures(study: Study) -> dict[str, bytes]:
    """All pictures by file name."""
    functions = {"risk-coverage.png": _coverage, "areas.png": _areas, "alpha.png": _alpha}
    if len(study.validators) > 1:
        functions["validators.png"] = _validators
    return {name: _draw(function, study) for name, function in functions.items()}


def _draw(what: Callable[[Any, Study], None], study: Study) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(layout="constrained")
    what(figure, study)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white", dpi=_DPI)
    pyplot.close(figure)
    return file.getvalue()


def _coverage(figure: Any, study: Study) -> None:
    """Risk–coverage curves with the first validators, with the bands of the first policy and of the composite."""
    figure.set_size_inches(9.6, 5.0)
    axis = figure.subplots()
    first = study.first
    mer_of_all = first.draws.curves[0, -1]
    top = mer_of_all * _HEADROOM
    axis.fill_between(100 * GRID, study.random.low, study.random.high, color="#dddddd", linewidth=0)
    axis.plot([], [], color="#dddddd", linewidth=8, label=f"random ({RANDOM_ORDERS} orders)")
    for name, colour, style, width in _lines(first):
        if name in (first.best.name, COMPOSITE):
            shares, low, high = first.curve_band(name)
            axis.fill_between(100 * shares, low, high, color=colour, alpha=0.15, linewidth=0)
        curve = first.draws.curves[first.index(name)]
        axis.plot(100 * GRID, curve, color=colour, linestyle=style, linewidth=width, label=name)
    axis.set(xlim=(0, 100), ylim=(0, top), xlabel="share of hours kept, %", ylabel="label MER of what is kept")
    axis.set_title("Risk-coverage: lower is better; bands are 95 % over recordings", loc="left", fontsize=11)
    _add_legend(axis, first)


def _add_legend(axis: Any, first: ValidatorFigures) -> None:
    """Name the lines right of the axes, from the highest to the lowest in the middle of the picture."""
    heights = {each.name: first.draws.curves[at, len(GRID) // 2] for at, each in enumerate(first.filters)}
    handles, names = axis.get_legend_handles_labels()
    ordered = sorted(zip(handles, names, strict=True), key=lambda pair: -heights.get(pair[1], np.inf))
    legend = axis.legend(
        [handle for handle, _ in ordered],
        [name for _, name in ordered],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        labelcolor="linecolor",
        handlelength=3.2,
    )
    for text in legend.get_texts():
        if text.get_text().startswith("random"):
            text.set_color(GREY)


def _lines(first: ValidatorFigures) -> list[tuple[str, str, Any, float]]:
    """Name, colour, style and width of each line that is drawn; the policies on top."""
    known = {each.name for each in first.filters}
    lines = [(name, colour, style, 1.5) for name, (colour, style) in _LINES.items() if name in known]
    policies = [policy.name for policy in first.policies]
    others = [(name, _OTHERS[at % len(_OTHERS)], "-", 1.6) for at, name in enumerate(policies[1:])]
    return [*lines, *others, (policies[0], BLUE, "-", 2.6)]


def _areas(figure: Any, study: Study) -> None:
    """The area of every filter with the first validators, with its band, best first."""
    ordered = sorted(study.first.figures, key=lambda figures: figures.area.value or 0.0)
    figure.set_size_inches(9.0, 0.9 + 0.27 * len(ordered))
    axis = figure.subplots()
    for place, figures in enumerate(ordered):
        _dot(axis, figures.area, place, _colour(figures, study))
    axis.set_yticks(range(len(ordered)), [figures.name for figures in ordered])
    for label, figures in zip(axis.get_yticklabels(), ordered, strict=True):
        label.set_color(_colour(figures, study))
        label.set_fontweight("bold" if figures.kind is FilterKind.POLICY else "normal")
    axis.invert_yaxis()
    axis.set_xscale("log")
    _plain_log_ticks(axis, [figures.area for figures in ordered])
    axis.set_xlabel("area under the risk-coverage curve (logarithmic), 95 % band")
    axis.grid(axis="x", color="#e5e5e5")
    axis.set_axisbelow(True)


def _colour(figures: FilterFigures, study: Study) -> str:
    if figures.name == study.first.best.name:
        return BLUE
    return ORANGE if figures.name == COMPOSITE else "#222222" if figures.kind is FilterKind.POLICY else GREY


def _dot(axis: Any, band: Band, place: float, colour: str, marker: str = "o") -> None:
    axis.plot([band.value], [place], marker, color=colour, markersize=6)
    if band.low is not None:
        axis.plot([band.low, band.high], [place, place], color=colour, linewidth=1.6)


def _plain_log_ticks(axis: Any, bands: list[Band]) -> None:
    """Put ticks of a logarithmic axis at round numbers, written in full."""
    values = [value for band in bands for value in (band.low, band.value, band.high) if value]
    low, high = min(values, default=0.1) / 1.1, max(values, default=1.0) * 1.1
    steps = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9) if high < 4 * low else (1, 1.5, 2, 3, 5, 7)
    ticks = [mantissa * 10.0**power for power in range(-4, 3) for mantissa in steps]
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in ticks if low <= tick <= high], minor=False)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda *_: "")


def _alpha(figure: Any, study: Study) -> None:
    """What each α keeps, and at which label MER: the first policy and the composite."""
    figure.set_size_inches(10.0, 4.2)
    axes = figure.subplots(1, 2)
    fields = (("share", "share of hours kept, %", 100.0), ("mer_kept", "label MER of what is kept", 1.0))
    for axis, (field, title, factor) in zip(axes, fields, strict=True):
        ends: list[tuple[float, str, str]] = []
        for name, colour, style, marker in (
            (COMPOSITE, ORANGE, "--", "s"),
            (study.first.best.name, BLUE, "-", "o"),
        ):
            points = [each for each in study.thresholds if each.name == name and each.alpha is not None]
            alphas = [point.alpha for point in points]
            bands = [getattr(point, field) for point in points]
            values = [factor * band.value if band.value is not None else np.nan for band in bands]
            axis.plot(alphas, values, color=colour, linestyle=style, marker=marker, linewidth=2)
            if all(band.low is not None for band in bands):
                low, high = [factor * band.low for band in bands], [factor * band.high for band in bands]
                axis.fill_between(alphas, low, high, color=colour, alpha=0.15, linewidth=0)
            ends.append((values[-1], name, colour))
        _name_at_ends(axis, ends, x=ALPHAS[-1])
        axis.set_xlabel("α")
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylim(bottom=0)


def _name_at_ends(axis: Any, ends: list[tuple[float, str, str]], *, x: float) -> None:
    """Write two lines' names at their ends, the higher one higher."""
    for (value, name, colour), way in zip(sorted(ends), ("top", "bottom"), strict=True):
        axis.annotate(name, (x, value), xytext=(8, 0), textcoords="offset points", color=colour, va=way)


def _validators(figure: Any, study: Study) -> None:
    """Areas of the first policy and of the composite with every set of validators."""
    figure.set_size_inches(9.0, 1.2 + 0.62 * len(study.validators))
    axis = figure.subplots()
    bands = []
    for place, figures in enumerate(study.validators):
        for offset, name, colour, marker in ((-0.14, figures.best.name, BLUE, "o"), (0.14, COMPOSITE, ORANGE, "s")):
            band = figures.figure(name).area
            bands.append(band)
            _dot(axis, band, place + offset, colour, marker)
            if place == 0:
                axis.annotate(
                    name, (band.high or band.value, place + offset), xytext=(6, 0), textcoords="offset points",
                    color=colour, va="center", fontsize=9.5,
                )  # fmt: skip
    axis.set_yticks(range(len(study.validators)), [figures.validators.name for figures in study.validators])
    axis.set_ylim(len(study.validators) - 0.5, -0.5)
    axis.set_xscale("log")
    _plain_log_ticks(axis, bands)
    axis.grid(axis="x", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.set_xlabel("area under the risk-coverage curve (logarithmic), 95 % band")

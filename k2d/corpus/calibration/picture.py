"""Draws a calibration's curve: label error against hours kept, with its confidence band. Needs matplotlib."""

from importlib.util import find_spec
from pathlib import Path

from k2d.corpus.calibration.calibrate import Calibration
from k2d.wording import counted


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_picture(calibration: Calibration, path: Path) -> None:
    """Write the risk-coverage curve as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [point for point in calibration.curve if point.label_mer is not None]
    shares = [100 * point.share for point in points]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    lower, upper = [100 * point.lower for point in points], [100 * point.upper for point in points]
    axes.fill_between(shares, lower, upper, alpha=0.2, label=f"band, each end {calibration.confidence:.0%}")
    axes.plot(shares, [100 * (point.label_mer or 0.0) for point in points], label="estimated")
    axes.axhline(100 * calibration.target, color="black", linewidth=0.8, linestyle="--", label="target")
    point = calibration.point
    if point is not None:
        axes.axvline(100 * point.share, color="green", linewidth=0.8, label=f"α = {point.alpha:g}")
    top = max([2 * calibration.target, *(point.label_mer or 0.0 for point in points)])
    axes.set(xlabel="hours kept, %", ylabel="label MER of what is kept, %", xlim=(0, 100), ylim=(0, 150 * top))
    axes.set_title(counted(calibration.draws, "reviewed draw"), fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""The curve as a picture: label error against hours kept, with its band. Only where matplotlib is installed."""

from importlib.util import find_spec
from pathlib import Path

from k2d.corpus.calibration.calibrate import Calibration


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def write_picture(found: Calibration, path: Path) -> None:
    """Write the risk-coverage curve as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [point for point in found.curve if point.label_mer is not None]
    shares = [100 * point.share for point in points]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    lower, upper = [100 * point.lower for point in points], [100 * point.upper for point in points]
    axes.fill_between(shares, lower, upper, alpha=0.2, label=f"band, each end {found.confidence:.0%}")
    axes.plot(shares, [100 * (point.label_mer or 0.0) for point in points], label="estimated")
    axes.axhline(100 * found.target, color="black", linewidth=0.8, linestyle="--", label="target")
    if found.point is not None:
        axes.axvline(100 * found.point.share, color="green", linewidth=0.8, label=f"α = {found.point.alpha:g}")
    top = max([2 * found.target, *(point.label_mer or 0.0 for point in points)])
    axes.set(xlabel="hours kept, %", ylabel="label MER of what is kept, %", xlim=(0, 100), ylim=(0, 150 * top))
    axes.set_title(f"{found.draws} reviewed draws", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

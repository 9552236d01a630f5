"""Draws a finished or interrupted run: a picture (curves.png) and a self-contained page (report.html)."""

import base64
import io
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, select_autoescape

from trainer.run.runs import METRICS, VALIDATION, Run

CURVES: Final = "curves.png"
PAGE: Final = "report.html"
SMOOTHED: Final = 50  # a curve is a running mean over at most so many steps, and over at most a tenth of the run


def write_report(run: Run) -> Path:
    """Draw the curves and write the page; returns the page's path.

        write_report(Run(Path("runs/first")))

    Raises:
        NotFound: there is no run.
    """
    recipe = run.recipe()
    metrics, validation = run.lines(METRICS), run.lines(VALIDATION)
    picture = draw(metrics, validation)
    (run.folder / CURVES).write_bytes(picture)
    pages = Environment(loader=PackageLoader("trainer"), autoescape=select_autoescape())
    page = pages.get_template("run.html").render(
        name=run.folder.name,
        about=run.description(),
        recipe=recipe.model_dump(mode="json"),
        first=metrics[0] if metrics else None,
        last=metrics[-1] if metrics else None,
        validation=validation,
        seen_s=sum(line["audio_s"] for line in metrics),
        wall_s=sum(line["wall_s"] for line in metrics),
        picture=base64.b64encode(picture).decode(),
    )
    path = run.folder / PAGE
    path.write_text(page, "utf-8")
    return path


def draw(metrics: list[dict[str, Any]], validation: list[dict[str, Any]]) -> bytes:
    """Loss parts, validation MER, learning rate and gradient norm over steps; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    steps = [line["step"] for line in metrics]
    window = min(SMOOTHED, max(1, len(metrics) // 10))
    for name, colour in (("loss", "#1b4965"), ("ce", "#2a9d8f"), ("kl", "#e07a5f")):
        values = [line[name] for line in metrics]
        axes[0].plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        axes[0].plot(steps, smooth(values, window), color=colour, label=name, linewidth=1.6)
    axes[0].set_title("loss and its parts")
    axes[0].legend(frameon=False)
    if validation:
        axes[1].plot([line["step"] for line in validation], [line["mer"] for line in validation], "o-", color="#1b4965")
        axes[1].set_ylim(bottom=0)
    else:
        axes[1].text(0.5, 0.5, "no validation", ha="center", va="center", transform=axes[1].transAxes, color="#777")
    axes[1].set_title("validation MER")
    axes[2].plot(
        steps, [line["gradient_norm"] for line in metrics], color="#e07a5f", linewidth=1, label="gradient norm"
    )
    if any(line["gradient_norm"] > 0 for line in metrics):
        axes[2].set_yscale("log")
    rate = axes[2].twinx()
    rate.plot(steps, [line["learning_rate"] for line in metrics], color="#1b4965", linewidth=1.4, label="learning rate")
    rate.set_ylim(bottom=0)
    axes[2].set_title("gradient norm (left), learning rate (right)")
    for axis in axes:
        axis.set_xlabel("step")
        axis.spines[["top"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    pyplot.close(figure)
    return picture.getvalue()


def smooth(values: list[float], window: int) -> list[float]:
    """A running mean over the last `window` values."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means

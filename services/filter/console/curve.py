"""The curve of a calibration as coordinates of an SVG: label error against the share of hours kept, with its band."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 280
LEFT, TOP, RIGHT, BOTTOM = 52, 12, 28, 40  # margins
LEAST_TOP: Final = 0.02  # of the label error's axis


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class CurvePicture:
    """Coordinates for a viewBox of WIDTH × HEIGHT."""

    band: str  # points of a polygon
    line: str  # points of a polyline: the estimate
    target_y: float
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]
    proved_x: float | None  # of the largest α that is proved


def curve_picture(curve: Sequence[dict[str, Any]], target: float) -> CurvePicture | None:
    """Lay the curve out; None if there is no point with an estimate.

    curve_picture(result.curve, 0.08).line  # "52.0,240.0 …"
    """
    points = [point for point in curve if point.get("label_mer") is not None]
    if not points:
        return None
    top: float = min(1.0, max(2.5 * target, 1.3 * max(point["label_mer"] for point in points), LEAST_TOP))

    def x(share: float) -> float:
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(rate: float) -> float:
        return round(HEIGHT - BOTTOM - min(rate, top) / top * (HEIGHT - TOP - BOTTOM), 1)

    upper = [f"{x(point['share'])},{y(point['upper'])}" for point in points]
    lower = [f"{x(point['share'])},{y(point['lower'])}" for point in reversed(points)]
    proved = [point for point in curve if point["proved"]]
    return CurvePicture(
        band=" ".join(upper + lower),
        line=" ".join(f"{x(point['share'])},{y(point['label_mer'])}" for point in points),
        target_y=y(target),
        x_ticks=tuple(AxisTick(x(share / 100), f"{share} %") for share in (0, 20, 40, 60, 80, 100)),
        y_ticks=tuple(AxisTick(y(top * part / 4), f"{100 * top * part / 4:.1f} %") for part in range(5)),
        proved_x=x(proved[-1]["share"]) if proved else None,
    )

"""A curve of bounded size: neighbouring points are averaged when there are too many. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

MOST_POINTS: Final = 1000  # chosen: more than a screen has pixels for, and about 100 kB as JSON


class TrainingCurve:
    """Points of a run's steps, each the mean of `stride` of them; the newest may be the mean of fewer.

        curve = TrainingCurve(("loss",))
        curve.add(1, {"loss": 4.0})
        curve.columns()  # {"step": [1], "loss": [4.0]}

    When there are more than `most`, neighbours are merged and the stride doubles: memory does not grow with the run.
    """

    def __init__(self, names: Sequence[str], *, most: int = MOST_POINTS) -> None:
        self.stride = 1
        self._names, self._most = tuple(names), most
        self._points: list[tuple[int, int, list[float]]] = []  # last step, steps counted, sums

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a step's values."""
        sums = [float(values[name]) for name in self._names]
        if self._points and self._points[-1][1] < self.stride:
            _, count, before = self._points[-1]
            self._points[-1] = (step, count + 1, [a + b for a, b in zip(before, sums, strict=True)])
            return
        self._points.append((step, 1, sums))
        if len(self._points) > self._most:
            self._merge()

    def columns(self) -> dict[str, list[float]]:
        """The points as columns of equal length."""
        columns: dict[str, list[float]] = {"step": [float(step) for step, _, _ in self._points]}
        for index, name in enumerate(self._names):
            columns[name] = [round(sums[index] / count, 6) for _, count, sums in self._points]
        return columns

    def _merge(self) -> None:
        merged = []
        for start in range(0, len(self._points), 2):
            pair = self._points[start : start + 2]
            sums = [sum(values) for values in zip(*(sums for _, _, sums in pair), strict=True)]
            merged.append((pair[-1][0], sum(count for _, count, _ in pair), sums))
        self._points, self.stride = merged, self.stride * 2

"""The distances that a policy can compare with α: how each is computed, and what it is called.

To add one: a member of `k2d.schema.Metric`, and its entry in METRICS. Source of the formulas: docs/method.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.schema import Counts, Metric
from k2d.text.repetition import REPETITION_MAX

Columns = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.floating[Any]]

COUNT_COLUMNS: Final = tuple(field.name for field in fields(Counts))  # as columns prefixed with "mer_" and "per_"
REPETITION_COLUMNS: Final = ("teacher_repetition", "validator_repetition")


@dataclass(frozen=True, slots=True)
class DistanceMetric:
    """One distance: its computation and its names."""

    columns: tuple[str, ...]  # that `distance` reads
    distance: Callable[[Columns, int], Floats]  # of columns and the policy's repetition_max; shape (chunks,)
    short: str  # name in tables
    words: str  # name in a policy's explanation
    unchecked: Metric | None = None  # the same distance without the exception for a looping validator, if it has one


def distances(metric: Metric, columns: Columns, repetition_max: int = REPETITION_MAX) -> Floats:
    """Compute a distance for every chunk, shape (chunks,), float64.

        columns = columns_of([compare("今天 meeting", ["今天 meetings"])])
        distances(Metric.MER, columns)  # array([0.33333333])

    Raises:
        KeyError: the metric is not a distance. Evidence needs a policy's weights (`k2d.filtering.policy.risk`).
    """
    return METRICS[metric].distance(columns, repetition_max)


def _rate(prefix: str, columns: Columns) -> Floats:
    """edits / |validator|, as in the paper; unbounded. An empty validator transcript counts as one token."""
    hits, substitutions, deletions, insertions = (columns[f"{prefix}_{name}"] for name in COUNT_COLUMNS)
    rate: Floats = (substitutions + deletions + insertions) / np.maximum(hits + substitutions + deletions, 1)
    return rate


def _bounded(prefix: str, columns: Columns) -> Floats:
    """edits / max(|teacher|, |validator|): at most 1, and symmetric."""
    hits, substitutions, deletions, insertions = (columns[f"{prefix}_{name}"] for name in COUNT_COLUMNS)
    longer = hits + substitutions + np.maximum(deletions, insertions)
    rate: Floats = (substitutions + deletions + insertions) / np.maximum(longer, 1)
    return rate


def _composite(error: Floats, columns: Columns, repetition_max: int) -> Floats:
    """The paper's max(h(Y), min(1 - h(V), error)): 1 if the teacher loops, 0 if only the validator loops."""
    teacher_loops = columns["teacher_repetition"] > repetition_max
    validator_loops = columns["validator_repetition"] > repetition_max
    composite: Floats = np.maximum(teacher_loops, np.minimum(~validator_loops, error)).astype(np.float64)
    return composite


_MER: Final = tuple(f"mer_{name}" for name in COUNT_COLUMNS)
_PER: Final = tuple(f"per_{name}" for name in COUNT_COLUMNS)
_MIXED: Final = "mixed error rate (Chinese characters and English words)"
_SOUND: Final = "phoneme error rate (what it sounds like)"
_LONGER: Final = "edits divided by the longer of the two texts"

METRICS: Final[Mapping[Metric, DistanceMetric]] = {
    Metric.MER: DistanceMetric(_MER, lambda c, _: _rate("mer", c), "MER", _MIXED),
    Metric.PER: DistanceMetric(_PER, lambda c, _: _rate("per", c), "PER", _SOUND),
    Metric.COMPOSITE: DistanceMetric(
        (*_PER, *REPETITION_COLUMNS),
        lambda c, most: _composite(_rate("per", c), c, most),
        "composite",
        _SOUND,
        unchecked=Metric.PER,
    ),
    Metric.MER_BOUNDED: DistanceMetric(
        _MER, lambda c, _: _bounded("mer", c), "bounded MER", f"{_MIXED[:-1]}; {_LONGER})"
    ),
    Metric.PER_BOUNDED: DistanceMetric(
        _PER, lambda c, _: _bounded("per", c), "bounded PER", f"{_SOUND[:-1]}; {_LONGER})"
    ),
    Metric.COMPOSITE_BOUNDED: DistanceMetric(
        (*_PER, *REPETITION_COLUMNS),
        lambda c, most: _composite(_bounded("per", c), c, most),
        "bounded comp.",
        f"{_SOUND[:-1]}; {_LONGER})",
        unchecked=Metric.PER_BOUNDED,
    ),
}
SHORT_NAMES: Final = {metric: kind.short for metric, kind in METRICS.items()} | {Metric.EVIDENCE: "risk"}

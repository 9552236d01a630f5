"""The metrics that our model adds to Triton's own, under the names that the FastAPI host uses.

Triton counts requests, queue and compute time itself (nv_inference_*). Waiting in its queue is not repeated here.
Requests that Triton refuses because its queue is full never reach the model: clients count them
(`TritonEndpoint.queue_full`).
"""

from collections.abc import Sequence
from typing import Any, Final

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from k2d.schema import ModelInfo

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)


class CounterHistogram:
    """A Prometheus histogram made of counters: this Triton's Python backend has no histograms (24.12 brought them)."""

    def __init__(self, name: str, description: str, *, bounds: Sequence[float], labels: dict[str, str]) -> None:
        families = [
            pb_utils.MetricFamily(f"{name}_{part}", description, pb_utils.MetricFamily.COUNTER)
            for part in ("bucket", "sum", "count")
        ]
        self._families = families  # Triton drops a family that is not referenced
        self._bounds = [*bounds, float("inf")]
        self._buckets = [
            families[0].Metric(labels={**labels, "le": "+Inf" if bound == float("inf") else f"{bound:g}"})
            for bound in self._bounds
        ]
        self._sum = families[1].Metric(labels=labels)
        self._count = families[2].Metric(labels=labels)

    def observe(self, value: float) -> None:
        for bound, bucket in zip(self._bounds, self._buckets, strict=True):
            if value <= bound:
                bucket.increment(1)
        self._sum.increment(value)
        self._count.increment(1)


class TritonMetrics:
    """The metrics of one model instance."""

    def __init__(self, role: str, info: ModelInfo) -> None:
        labels = {"model": role}
        self._labels = labels
        self._batch = CounterHistogram(
            "k2d_batch_size", "Windows in one engine call", bounds=BATCH_SIZES, labels=labels
        )
        self._seconds = CounterHistogram(
            "k2d_engine_seconds", "Seconds of one engine call", bounds=SECONDS, labels=labels
        )
        self._refused_family = pb_utils.MetricFamily(
            "k2d_refused_total", "Requests answered with an error", pb_utils.MetricFamily.COUNTER
        )
        self._refused: dict[str, Any] = {}
        self._info_family = pb_utils.MetricFamily("k2d_model_info", "The model", pb_utils.MetricFamily.GAUGE)
        about = {"reference": info.reference, "fingerprint": info.fingerprint, "device": info.device}
        self._info = self._info_family.Metric(labels={**labels, **about})
        self._info.set(1)
        self._loaded_family = pb_utils.MetricFamily(
            "k2d_model_loaded", "Weights in memory", pb_utils.MetricFamily.GAUGE
        )
        self._loaded = self._loaded_family.Metric(labels=labels)
        self._loaded.set(1)

    def engine_call(self, windows: int, seconds: float) -> None:
        """One call of the engine."""
        self._batch.observe(windows)
        self._seconds.observe(seconds)

    def refused(self, reason: str) -> None:
        """One request that got an error, by its code."""
        if reason not in self._refused:
            self._refused[reason] = self._refused_family.Metric(labels={**self._labels, "reason": reason})
        self._refused[reason].increment(1)

"""Prometheus metrics of an inference server. Small batches while windows wait mean that the engine is not kept full."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from services.web.request_metrics import REGISTRY

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SIZES: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)
BATCH_SIZE: Final = Histogram("k2d_batch_size", "Windows in one engine call.", buckets=SIZES, registry=REGISTRY)
WAIT: Final = Histogram("k2d_wait_seconds", "Time a window waited for the engine.", buckets=SECONDS, registry=REGISTRY)
ENGINE: Final = Histogram("k2d_engine_seconds", "Time of one engine call.", buckets=SECONDS, registry=REGISTRY)
AUDIO: Final = Counter("k2d_audio_seconds", "Seconds of audio in windows that were answered.", registry=REGISTRY)
WAITING: Final = Gauge("k2d_waiting", "Windows that wait for the engine.", registry=REGISTRY)
REFUSED: Final = Counter("k2d_refused", "Requests that were refused, by error code.", ["reason"], registry=REGISTRY)
LOADED: Final = Gauge("k2d_model_loaded", "1 while the weights are in memory.", registry=REGISTRY)
MODEL: Final = Gauge(
    "k2d_model_info", "The model, as labels; always 1.", ["reference", "fingerprint", "device"], registry=REGISTRY
)


class BatchMetrics:
    """Counts the micro-batcher's batches and refusals for Prometheus (`k2d.inference.batcher.Observer`)."""

    def batch(self, *, size: int, waited_s: Sequence[float], engine_s: float) -> None:
        BATCH_SIZE.observe(size)
        ENGINE.observe(engine_s)
        for seconds in waited_s:
            WAIT.observe(seconds)

    def refused(self, reason: str) -> None:
        REFUSED.labels(reason).inc()

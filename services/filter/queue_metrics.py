"""Prometheus metrics of the labeling API. The gauge to scale workers on is the age of the oldest waiting job."""

from contextlib import suppress
from typing import Final

from prometheus_client import Gauge, generate_latest
from redis.exceptions import RedisError

from services.filter.queue import QUEUES, WorkQueue
from services.web.request_metrics import REGISTRY

QUEUE_UP: Final = Gauge("k2d_queue_up", "1 when Redis answers.", registry=REGISTRY)
QUEUE_JOBS: Final = Gauge("k2d_queue_jobs", "Jobs waiting.", ["queue"], registry=REGISTRY)
QUEUE_STARTED: Final = Gauge(
    "k2d_queue_started", "Jobs running, or waiting for another attempt.", ["queue"], registry=REGISTRY
)
QUEUE_FAILED: Final = Gauge("k2d_queue_failed", "Failed jobs of the last 7 days.", ["queue"], registry=REGISTRY)
QUEUE_OLDEST: Final = Gauge("k2d_queue_oldest_seconds", "Age of the oldest waiting job.", ["queue"], registry=REGISTRY)


def exposition(queue: WorkQueue) -> bytes:
    """Return all metrics in Prometheus' text format, the queue's read now."""
    QUEUE_UP.set(0)
    with suppress(RedisError):
        for name in QUEUES:
            QUEUE_JOBS.labels(name).set(queue.depth(name))
            QUEUE_STARTED.labels(name).set(queue.started(name))
            QUEUE_FAILED.labels(name).set(queue.failed(name))
            QUEUE_OLDEST.labels(name).set(queue.oldest_s(name))
        QUEUE_UP.set(1)
    return generate_latest(REGISTRY)

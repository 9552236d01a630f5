"""Prometheus metrics of the labeling API. The gauge to scale workers on is the age of the oldest waiting job."""

import time
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.filter.queue import QUEUES, WorkQueue

REGISTRY = CollectorRegistry()
REQUESTS = Counter("k2d_http_requests", "HTTP requests answered.", ["method", "route", "status"], registry=REGISTRY)
LATENCY = Histogram("k2d_http_request_seconds", "Time to the last byte.", ["method", "route"], registry=REGISTRY)
QUEUE_UP = Gauge("k2d_queue_up", "1 when Redis answers.", registry=REGISTRY)
QUEUE_JOBS = Gauge("k2d_queue_jobs", "Jobs waiting.", ["queue"], registry=REGISTRY)
QUEUE_STARTED = Gauge("k2d_queue_started", "Jobs a worker has, or had and will have again.", ["queue"], registry=REGISTRY)
QUEUE_FAILED = Gauge("k2d_queue_failed", "Jobs given up in the last 7 days.", ["queue"], registry=REGISTRY)
QUEUE_OLDEST = Gauge("k2d_queue_oldest_seconds", "Age of the oldest waiting job.", ["queue"], registry=REGISTRY)


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


class Timed:
    """Counts and times every request by its route template, so that ids do not become label values."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            REQUESTS.labels(scope["method"], route, status).inc()
            LATENCY.labels(scope["method"], route).observe(time.perf_counter() - started)

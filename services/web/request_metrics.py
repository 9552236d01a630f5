"""Counts and timings of HTTP requests, and the registry that a host adds its own metrics to."""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# what a client sends must not make series: other methods count as "other", other paths as "unmatched"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second, unused series for each of ours
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory and CPU of this process, where the system reports them
REQUESTS: Final = Counter(
    "k2d_http_requests", "HTTP requests answered.", ["method", "route", "status"], registry=REGISTRY
)
LATENCY: Final = Histogram("k2d_http_request_seconds", "Time to the last byte.", ["method", "route"], registry=REGISTRY)


class RequestMetrics:
    """Middleware that counts and times every request by its route template, so that ids do not become label values."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(method, route, status).inc()
            LATENCY.labels(method, route).observe(time.perf_counter() - started)

"""One inference server, whatever its protocol, and which of its failures are worth another attempt."""

from typing import Any, Protocol

from k2d.inference.wire import Head
from k2d.schema import Samples

# HTTP statuses that another attempt, or another server, may not meet. Everything else is the request's own fault (4xx)
# or would only happen again (500 is an unexpected error inside: the same window would meet it again).
RETRYABLE_HTTP = {
    408: "request timeout",
    425: "too early",
    429: "too many requests",
    502: "bad gateway: the server behind a proxy went away",
    503: "the queue is full, or the server is starting or stopping",
    504: "the deadline passed while it waited",
}

# gRPC status codes, with what Triton means by them
RETRYABLE_GRPC = {
    "UNAVAILABLE": "the queue is full, or nobody listens",
    "NOT_FOUND": "the server is stopping or the model is being loaded",
    "DEADLINE_EXCEEDED": "the deadline passed",
    "RESOURCE_EXHAUSTED": "out of room for this message now",
    "ABORTED": "the server gave the request up",
    "CANCELLED": "the server cancelled it while shutting down",
}


class Endpoint(Protocol):
    """One server. Each call is one attempt: retrying and routing is `k2d.inference.remote`'s business."""

    @property
    def address(self) -> str:
        """As the operator wrote it, without secrets."""
        ...

    async def call(self, head: Head, samples: Samples, *, timeout_s: float) -> dict[str, Any]:
        """Send one request and return the answer document (`k2d.inference.wire`).

        Cancelling the call withdraws the request.

        Raises:
            ServerUnavailable: the attempt failed in a way that another may not (the tables above, a lost connection).
            K2DError: the server refused the request, or cannot do it.
        """
        ...

    async def close(self) -> None: ...

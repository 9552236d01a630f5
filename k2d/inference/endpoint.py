"""The protocol of a client of one inference server, and which failures are worth a retry."""

from typing import Any, Final, Protocol

from k2d.inference.wire import Head
from k2d.schema import Samples

# HTTP statuses worth a retry on this or another server. Others are the request's fault (4xx) or would happen again (500
# is an unexpected error, which the same window would cause again).
RETRYABLE_HTTP: Final = {
    408: "request timeout",
    425: "too early",
    429: "too many requests",
    502: "bad gateway: the server behind a proxy went away",
    503: "the queue is full, or the server is starting or stopping",
    504: "the deadline passed while it waited",
}

# gRPC status codes worth a retry, with what Triton means by them
RETRYABLE_GRPC: Final = {
    "UNAVAILABLE": "the queue is full, or there is no server",
    "NOT_FOUND": "the server is stopping or the model is being loaded",
    "DEADLINE_EXCEEDED": "the deadline passed",
    "RESOURCE_EXHAUSTED": "no memory for this message now",
    "ABORTED": "the server aborted the request",
    "CANCELLED": "the server cancelled it while shutting down",
}


class Endpoint(Protocol):
    """A client of one server. Each call is a single attempt; `k2d.inference.remote` retries and chooses servers."""

    @property
    def address(self) -> str:
        """The server's address as configured; contains no secrets."""
        ...

    async def call(self, head: Head, samples: Samples, *, timeout_s: float) -> dict[str, Any]:
        """Send one request and return the answer document (`k2d.inference.wire`).

        Cancelling the call cancels the request.

        Raises:
            ServerUnavailable: the attempt failed, but a retry may not (the tables above, a lost connection).
            K2DError: the server refused the request, or failed permanently.
        """
        ...

    async def close(self) -> None: ...

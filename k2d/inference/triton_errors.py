"""Errors of our Triton model as text, and back: Triton's protocol carries one message and a coarse code."""

import json
from collections.abc import Iterator
from typing import Any

from k2d.errors import K2DError

MARK = '{"k2d_error":'  # how our messages begin; whatever Triton puts before it is skipped
# The message travels in HTTP/2 trailers, of which gRPC takes 8 KiB by default, percent-encoded (up to 3 bytes for 1)
MAX_MESSAGE_CHARS = 500
MAX_HINT_CHARS = 300


class RequestCancelled(K2DError):
    """The client cancelled its request, or closed the connection, before an engine took it."""

    code = "cancelled"
    status = 499


def dump(error: K2DError) -> str:
    """An error as one line of ASCII JSON, short enough for trailers; details are for logs and stay behind."""
    body = {"code": error.code, "status": error.status, "message": error.message[:MAX_MESSAGE_CHARS]}
    if error.hint:
        body["hint"] = error.hint[:MAX_HINT_CHARS]
    return MARK + json.dumps(body, separators=(",", ":")) + "}"


def load(message: str) -> K2DError | None:
    """The error a message of our model stands for; None when Triton itself wrote it."""
    start = message.find(MARK)
    if start < 0:
        return None
    try:
        document, _ = json.JSONDecoder().raw_decode(message[start:])
        return _rebuilt(document["k2d_error"])
    except (ValueError, KeyError, TypeError, AttributeError):  # cut off on the way, or not ours after all
        return None


def _rebuilt(body: dict[str, Any]) -> K2DError:
    """An instance of the class with that code; of the base class, with the same code and status, if none is known."""
    kind = next((known for known in _family(K2DError) if known.code == body["code"]), None)
    if kind is None or kind.__init__ is not K2DError.__init__:  # a class that wants more than a message
        kind = type("RemoteError", (K2DError,), {"code": str(body["code"]), "status": int(body["status"])})
    return kind(str(body["message"]), hint=body.get("hint"))


def _family(kind: type[K2DError]) -> Iterator[type[K2DError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)

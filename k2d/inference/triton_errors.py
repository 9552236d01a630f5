"""Encodes the errors of our Triton model as text, and decodes them: Triton sends only a message and a coarse status."""

import json
from collections.abc import Iterator
from typing import Any, Final

from k2d.errors import K2DError

MARK: Final = '{"k2d_error":'  # how our messages begin; Triton may put text before it
# The message is sent in HTTP/2 trailers, limited by gRPC to 8 KiB by default, percent-encoded (up to 3 bytes for 1)
MAX_MESSAGE_CHARS: Final = 500
MAX_HINT_CHARS: Final = 300


class RequestCancelled(K2DError):
    """The client cancelled its request, or closed the connection, before the engine processed it."""

    code = "cancelled"
    status = 499


def dump(error: K2DError) -> str:
    """Encode an error as one line of ASCII JSON, short enough for trailers. Details are left out."""
    body = {"code": error.code, "status": error.status, "message": error.message[:MAX_MESSAGE_CHARS]}
    if error.hint:
        body["hint"] = error.hint[:MAX_HINT_CHARS]
    return MARK + json.dumps(body, separators=(",", ":")) + "}"


def load(message: str) -> K2DError | None:
    """Decode the error in a message; None if the message is Triton's own."""
    start = message.find(MARK)
    if start < 0:
        return None
    try:
        document, _ = json.JSONDecoder().raw_decode(message[start:])
        return _rebuilt(document["k2d_error"])
    except (ValueError, KeyError, TypeError, AttributeError):  # truncated in transport, or not ours
        return None


def _rebuilt(body: dict[str, Any]) -> K2DError:
    """An instance of the error class with that code, or of a generic one with the same code and status."""
    kind = next((known for known in _subclasses(K2DError) if known.code == body["code"]), None)
    if kind is None or kind.__init__ is not K2DError.__init__:  # its constructor needs more than a message
        kind = type("RemoteError", (K2DError,), {"code": str(body["code"]), "status": int(body["status"])})
    return kind(str(body["message"]), hint=body.get("hint"))


def _subclasses(kind: type[K2DError]) -> Iterator[type[K2DError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)

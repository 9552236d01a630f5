"""Middleware that refuses bodies that are too large, and more of them at once than memory has room for."""

import re
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.web.problems import problem

_LENGTH: Final = re.compile(r"[0-9]{1,18}")  # a longer one is larger than any limit
DOCUMENT_BYTES: Final = 32 << 20  # of one body that is held in memory: 300,000 URIs
DOCUMENTS_BYTES: Final = 48 << 20  # of all that are held at once; a document takes several times this when it is parsed
JSON: Final = "application/json"


class BodyTooLarge(Exception):
    """More body arrived than the host takes: ends the reading of it. `BodyLimit` answers."""


class BodyLimit:
    """Answers 413 as soon as a body is, or claims to be, too large. Bytes are counted as they arrive.

    A body that its endpoint streams to disk may have `max_bytes`. All others are documents, which are read into memory:
    one may have DOCUMENT_BYTES, and all at once DOCUMENTS_BYTES, beyond which the answer is 503.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.held_bytes = 0  # of documents whose requests are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        streams = scope.get("state", {}).get("streams", False) and kind != JSON
        limit = self.max_bytes if streams else min(self.max_bytes, DOCUMENT_BYTES)
        claimed = headers.get("content-length")
        if claimed is not None and (not _LENGTH.fullmatch(claimed) or int(claimed) > limit):
            await self._refusal(limit, streams=streams)(scope, receive, send)
            return
        received, held = 0, 0
        refusal: Response | None = None
        answered = False

        async def receive_counted() -> Message:
            nonlocal received, held, refusal
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if received > limit:
                refusal = self._refusal(limit, streams=streams)
            elif not streams:
                if self.held_bytes + size > DOCUMENTS_BYTES:
                    refusal = _busy()
                self.held_bytes += size
                held += size
            if refusal is not None:
                raise BodyTooLarge
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answered
            if answered or refusal is None:
                answered = True
                await send(message)

        try:
            # FastAPI answers 400 to any exception while it reads JSON: what it says of a body that was cut off is not
            # sent
            with suppress(BodyTooLarge):
                await self.app(scope, receive_counted, send_unless_refused)
        finally:
            self.held_bytes -= held
        if refusal is not None and not answered:
            await refusal(scope, receive, send)

    def _refusal(self, limit: int, *, streams: bool) -> Response:
        hint = "send fewer files a batch, refer to them by URI, or raise K2D_MAX_UPLOAD_BYTES"
        if not streams and limit == DOCUMENT_BYTES:
            hint = "send the list in several requests"
        answer = problem(413, "too_large", f"the body is larger than {limit} bytes", hint=hint, limit=limit)
        answer.headers["Connection"] = "close"  # the rest of the body is not read
        return answer


def _busy() -> Response:
    answer = problem(503, "busy", "too many large documents are being read at once", hint="send it again later")
    answer.headers["Connection"] = "close"
    return answer

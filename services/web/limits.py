"""Middleware that refuses bodies that are too large."""

import re
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.web.problems import problem

_LENGTH: Final = re.compile(r"[0-9]{1,18}")  # a longer one is larger than any limit


class BodyTooLarge(Exception):
    """More body arrived than the host takes: ends the reading of it. `BodyLimit` answers."""


class BodyLimit:
    """Answers 413 as soon as a body is, or claims to be, larger than `max_bytes`. Bytes are counted as they arrive."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("content-length")
        if claimed is not None and (not _LENGTH.fullmatch(claimed) or int(claimed) > self.max_bytes):
            await self._refuse(scope, receive, send)
            return
        received = 0
        answered = False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise BodyTooLarge
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answered
            if answered or received <= self.max_bytes:
                answered = True
                await send(message)

        # FastAPI answers 400 to any exception while it reads JSON: what it says of a body that was cut off is not sent
        with suppress(BodyTooLarge):
            await self.app(scope, receive_counted, send_unless_refused)
        if not answered and received > self.max_bytes:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(
            413,
            "too_large",
            f"the body is larger than {self.max_bytes} bytes",
            hint="send fewer files a batch, refer to them by URI, or raise K2D_MAX_UPLOAD_BYTES",
            limit=self.max_bytes,
        )
        answer.headers["Connection"] = "close"  # the rest of the body is not read
        await answer(scope, receive, send)

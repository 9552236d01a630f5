"""Middleware that answers 408 to a client that sends the body of its request too slowly.

The head, and clients that do not read their answer, are watched by `services.web.connection`.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.web.problems import problem

WINDOW_S: Final = 20.0  # chosen: a laptop that changes its network is back by then
BYTES_PER_S: Final = 4096  # chosen: a tenth of a slow mobile connection


class BodyTooSlow(Exception):
    """The body stays away, or trickles: ends the reading of it. `SlowBodies` answers."""


class SlowBodies:
    """Answers 408 when the server has waited `window_s` for the next `window_s` × `bytes_per_s` bytes of a body.

    Only the time in which the server waits counts, not the time in which it works on what it has. What comes after the
    body, the wait for a client to leave, is not limited.
    """

    def __init__(self, app: ASGIApp, *, window_s: float = WINDOW_S, bytes_per_s: float = BYTES_PER_S) -> None:
        self.app, self.window_s, self.window_bytes = app, window_s, window_s * bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        waited_s, received = 0.0, 0  # since the last window that was full
        complete = too_slow = answered = False

        async def receive_in_time() -> Message:
            nonlocal waited_s, received, complete, too_slow
            if complete:
                return await receive()
            if too_slow:
                raise BodyTooSlow
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.window_s - waited_s):
                    message = await receive()
            except TimeoutError:
                too_slow = True
                raise BodyTooSlow from None
            waited_s += time.monotonic() - began
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received >= self.window_bytes:
                waited_s, received = 0.0, 0
            return message

        async def send_unless_slow(message: Message) -> None:
            nonlocal answered
            if answered or not too_slow:
                answered = True
                await send(message)

        # what the application says of a body that did not come is not sent, unless it has begun to answer
        with suppress(BodyTooSlow):
            await self.app(scope, receive_in_time, send_unless_slow)
        if too_slow and not answered:
            answer = problem(
                408,
                "too_slow",
                f"the body of the request came slower than {self.window_bytes / self.window_s:.0f} bytes a second",
                hint="send it again on a better connection; large files by PUT, which goes on where it stopped",
            )
            answer.headers["Connection"] = "close"  # the rest of the body is not read
            await answer(scope, receive, send)

"""The HTTP connection of all hosts: uvicorn's, with limits for clients that hold one without using it.

uvicorn itself has a time limit between two requests only: half a head, half a body after the answer, or an answer that
is not read would hold a connection for ever. It takes a protocol class as its option `http`:

    uvicorn services.filter.app:create_app --factory --http services.web.connection:GuardedConnection
"""

import asyncio
import json
import resource
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 15.0  # from the connection, or the end of the request before, to the end of the head
REST_S: Final = 5.0  # for the rest of a body after its answer, which is thrown away
STALLED_S: Final = 60.0  # for which an answer may not move
BYTES_PER_S: Final = 4096  # at least at this rate answers are read
MOST: Final = 4096  # connections at once
FILES_LEFT: Final = 256  # descriptors for everything else
ONE_ADDRESS: Final = 0.75  # the share of all connections that one address may have

_BODY: Final = {
    "type": "about:blank",
    "title": "Request Timeout",
    "status": 408,
    "code": "too_slow",
    "detail": f"the head of the request was not complete after {HEAD_S:.0f} s",
    "hint": "send it in one piece",
}


def most_connections() -> int:
    """How many connections a process may have: as many as descriptors are left for, and MOST."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(64, min(MOST, (soft - FILES_LEFT) * 2 // 3))  # uploads have a file beside their connection


class GuardedConnection(H11Protocol):
    """A connection that is closed when its client neither sends a request nor reads an answer.

    A head that is not complete after HEAD_S is answered 408. An address that has most of all connections gets no more.
    """

    head_s, rest_s, stalled_s = HEAD_S, REST_S, STALLED_S

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_one_too_many():
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._rest_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()
        if self._rest_timer is not None and self.conn.their_state is not h11.SEND_BODY:
            self._rest_timer.cancel()
            self._rest_timer = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:  # a part of the next head is there
            self._unset_keepalive_if_required()
            self._watch_head()
        if self.conn.their_state is h11.SEND_BODY and self._rest_timer is None:
            self._rest_timer = self.loop.call_later(self.rest_s, self._close)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            allowed_s = self.stalled_s + self.transport.get_write_buffer_size() / BYTES_PER_S
            self._stall_timer = self.loop.call_later(allowed_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _is_one_too_many(self) -> bool:
        most = most_connections()
        if len(self.connections) > most:
            return True
        if self.client is None or len(self.connections) <= most * ONE_ADDRESS:
            return False
        address = self.client[0]
        own = sum(1 for other in self.connections if (getattr(other, "client", None) or ("",))[0] == address)
        return own > most * ONE_ADDRESS

    def _watch_head(self) -> None:
        """Run the clock while a head is waited for. Between two requests uvicorn's own runs until the first byte."""
        waits = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if waits and self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.head_s, self._refuse_head)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:  # who has sent nothing waits for no answer
            body = json.dumps(_BODY).encode()
            headers = [
                ("content-type", "application/problem+json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            answer = h11.Response(status_code=408, headers=headers, reason=b"Request Timeout")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

"""Connections whose clients neither send a request nor read the answer are closed; the others are left alone."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from services.local.redis_server import free_port
from services.web import connection
from services.web.connection import GuardedConnection

pytestmark = pytest.mark.integration

LIMIT_S = 0.3
PATIENCE_S = 20.0
BIG = 8 << 20


class Hasty(GuardedConnection):
    head_s = rest_s = stalled_s = LIMIT_S


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, without reading the body; /big with more than buffers hold."""
    body = b"x" * (BIG if scope["path"] == "/big" else 2)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    config = uvicorn.Config(app, port=number, http=Hasty, lifespan="off", log_level="critical", timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield number
    server.should_exit = True
    thread.join(PATIENCE_S)


def talk(port: int, *pieces: bytes) -> bytes:
    """Send some bytes, then wait; all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(65536), b""))


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes or breaks the connection."""
    read = b""
    with suppress(ConnectionError):
        while block := client.recv(65536):
            read += block
    return read


HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_half_a_head_is_answered_408_and_nothing_at_all_is_closed(port: int) -> None:
    answer = talk(port, HEAD)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"too_slow" in answer
    assert talk(port) == b""


def test_a_head_that_trickles_gets_no_more_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.settimeout(0.05)
        answer = b""
        client.sendall(HEAD + b"X: ")
        while not answer:  # a byte whenever there is no answer yet
            try:
                answer = client.recv(65536)
            except TimeoutError:
                client.sendall(b"x")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_half_a_head_after_a_whole_request_is_answered_408(port: int) -> None:
    answer = talk(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", HEAD)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


def test_a_body_that_trickles_after_its_answer_is_cut(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n1")
        client.settimeout(0.05)
        seen, open_ = b"", True
        for _ in range(int(PATIENCE_S / 0.05)):
            try:
                block = client.recv(65536)
                seen += block
                open_ = bool(block)
            except TimeoutError:
                client.sendall(b"1")
            except ConnectionError:
                open_ = False
            if not open_:
                break
        assert seen.startswith(b"HTTP/1.1 200 ")
        assert not open_


def test_an_answer_that_nobody_reads_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BYTES_PER_S", 1 << 30)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        threading.Event().wait(3 * LIMIT_S)
        assert len(rest(client)) < BIG


def test_one_address_does_not_get_all_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "most_connections", lambda: 8)
    held = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(7)]
    try:
        assert rest(held[-1]) == b""
    finally:
        for client in held:
            client.close()
    assert talk(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")

"""Bodies that stay away or trickle are refused, whoever sends them; the server's own slow work does not count."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request

from services.web.slow_bodies import SlowBodies

WINDOW_S = 0.2
BYTES_PER_S = 1000  # 200 bytes a window


def host(received: list[bytes], *, working_s: float = 0.0) -> SlowBodies:
    app = FastAPI()

    @app.post("/json")
    async def read_json(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.post("/stream")
    async def read_stream(request: Request) -> str:
        async for block in request.stream():
            received.append(block)
            await asyncio.sleep(working_s)
        return "ok"

    return SlowBodies(app, window_s=WINDOW_S, bytes_per_s=BYTES_PER_S)


def post(app: SlowBodies, path: str, blocks: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        async for block in blocks:
            return {"type": "http.request", "body": block, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    return sent


async def trickle(*, size: int, every_s: float) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(every_s)
        yield b"1" * size


async def silence(first: bytes) -> AsyncIterator[bytes]:
    yield first
    await asyncio.sleep(3600)


def test_a_body_that_stays_away_or_trickles_is_answered_408_once() -> None:
    for path in ("/json", "/stream"):
        for blocks in (silence(b'{"a'), silence(b"1" * 100_000), trickle(size=1, every_s=0.01)):
            sent = post(host([]), path, blocks)
            assert [message.get("status") for message in sent] == [408, None]
            assert (b"connection", b"close") in sent[0]["headers"]
            assert b"too_slow" in sent[1]["body"]


def test_a_body_at_the_least_rate_and_a_server_that_takes_its_time_are_no_reason() -> None:
    async def some(count: int, *, size: int, every_s: float) -> AsyncIterator[bytes]:
        for _ in range(count):
            await asyncio.sleep(every_s)
            yield b"1" * size

    received: list[bytes] = []
    sent = post(host(received), "/stream", some(5, size=250, every_s=0.1))  # longer than a window in all
    assert (sent[0]["status"], len(b"".join(received))) == (200, 1250)
    received.clear()
    sent = post(host(received, working_s=0.15), "/stream", some(5, size=1, every_s=0.0))
    assert (sent[0]["status"], len(b"".join(received))) == (200, 5)

"""One HTTP server that hangs, or answers something else: an error with a reason, and whether to try again."""

import asyncio

import numpy as np
import pytest

from k2d.errors import ModelError, ServerUnavailable
from k2d.inference.http_endpoint import HttpEndpoint
from k2d.inference.wire import Head

pytestmark = pytest.mark.anyio

SAMPLES = np.zeros(160, np.int16)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client closes the connection
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    endpoint = HttpEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(ServerUnavailable, match="ReadTimeout"):
        await endpoint.call(Head(), SAMPLES, timeout_s=0.1)
    await endpoint.close()
    server.close()


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", ServerUnavailable, "HTTP 502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", ModelError, "not as an inference server"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ModelError, "HTTP 404"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{",
            ServerUnavailable,
            "http://127.0.0.1:",
        ),  # cut off in the middle
        (b"", ServerUnavailable, "http://127.0.0.1:"),  # closed without a word
        (b"what?\r\n\r\n", ServerUnavailable, "http://127.0.0.1:"),
    ],
)
async def test_whatever_answers_instead_is_an_error_with_a_reason(
    answer: bytes, error: type[Exception], why: str
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    endpoint = HttpEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(error, match=why):
        await endpoint.call(Head(), SAMPLES, timeout_s=5)
    await endpoint.close()
    server.close()

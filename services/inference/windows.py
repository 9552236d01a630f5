"""Windows in, text or scores out: what workers ask of an inference server."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from k2d.errors import BadRequest, Overloaded, TooLarge
from k2d.inference import wire
from k2d.inference.http_endpoint import CONTENT_TYPE
from k2d.inference.wire import Head
from k2d.schema import SAMPLE_RATE_HZ, Samples
from services.inference import batch_metrics
from services.inference.host import Host
from services.web.problems import responses

router = APIRouter(tags=["windows"])
T = TypeVar("T")

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": (
            "One line of JSON (`options`, `prompt`, `text`, `client`, `timeout_s`; all optional), a line feed, then at "
            "most 30 s of 16 kHz mono int16 samples, little-endian."
        ),
        "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class ClientGone(Exception):
    """Nobody is there any more to be answered."""


def host(request: Request) -> Host:
    """The host of this server."""
    found: Host = request.app.state.host
    return found


InHost = Annotated[Host, Depends(host)]


@router.get("/v1/model", summary="Which model this server has", responses=responses(401, 503))
async def model(host: InHost) -> dict[str, Any]:
    return host.describe()


@router.post(
    "/v1/windows:transcribe",
    summary="Decode one window of at most 30 s",
    openapi_extra=BODY,
    responses=responses(400, 401, 413, 503, 504),
)
async def transcribe(request: Request, host: InHost) -> JSONResponse:
    async with Admitted(request, host) as (head, samples):
        work = host.batcher.transcribe(
            wire.window(head, samples), head.options, client=_client(request, head), timeout_s=head.timeout_s
        )
        result = await unless_gone(request, work)
    batch_metrics.AUDIO.inc(len(samples) / SAMPLE_RATE_HZ)
    return JSONResponse(wire.answer(result, host.model))


@router.post(
    "/v1/score",
    summary="How likely the model finds a given text for a window",
    openapi_extra=BODY,
    responses=responses(400, 401, 413, 503, 504),
)
async def score(request: Request, host: InHost) -> JSONResponse:
    async with Admitted(request, host) as (head, samples):
        if head.text is None:
            raise BadRequest("which text?", hint='give "text" in the head')
        work = host.batcher.score(
            wire.window(head, samples), head.text, head.options, client=_client(request, head), timeout_s=head.timeout_s
        )
        result = await unless_gone(request, work)
    batch_metrics.AUDIO.inc(len(samples) / SAMPLE_RATE_HZ)
    return JSONResponse(wire.answer(result, host.model))


class Admitted:
    """A request with its body in memory. Twice as many as may wait are let in; the batcher chooses among them."""

    def __init__(self, request: Request, host: Host) -> None:
        self._request, self._host = request, host

    async def __aenter__(self) -> tuple[Head, Samples]:
        batcher = self._host.batcher
        if self._host.admitted >= 2 * self._host.settings.max_waiting:
            await _drain(self._request)
            batch_metrics.REFUSED.labels(Overloaded.code).inc()
            raise Overloaded(
                f"{self._host.admitted} requests are being read or wait",
                hint="ask again later, or add servers",
                retry_after_s=round(batcher.retry_after_s, 1),
            )
        self._host.admitted += 1
        try:
            return wire.unpack(await _read(self._request))
        except BaseException:
            self._host.admitted -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._host.admitted -= 1


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client disconnects.

    Raises:
        ClientGone: it did.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it can be no window.
        ClientGone: the client left before it had sent all of it.
    """
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > wire.MAX_BODY_BYTES:
                await _drain(request)
                raise TooLarge(f"the body is larger than {wire.MAX_BODY_BYTES} bytes", hint=wire.HINT)
            parts.append(part)
    except ClientDisconnect as error:
        raise ClientGone from error
    return b"".join(parts)


async def _drain(request: Request) -> None:
    """Let the rest of the body pass, so that the client gets to read the answer; no more of it than a window has."""
    passed = 0
    while passed <= wire.MAX_BODY_BYTES:
        message = await request.receive()
        passed += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _client(request: Request, head: Head) -> str:
    return head.client or (request.client.host if request.client else "")

"""The routes that workers call: a window's audio in, its text or the score of a given text out."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from k2d.errors import BadRequest, Overloaded, TooLarge
from k2d.inference import wire
from k2d.inference.http_endpoint import CONTENT_TYPE
from k2d.inference.wire import Head
from k2d.schema import SAMPLE_RATE_HZ, Samples, TextScore, WindowResult
from services.inference import batch_metrics
from services.inference.admission import RequestKind
from services.inference.disconnect import ClientGone, unless_gone
from services.inference.host import Host, InHost
from services.web.problems import responses

router = APIRouter(tags=["windows"])

BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": (
            "One line of JSON (`options`, `prompt`, `text`, `client`, `timeout_s`; all optional), a line feed, then at "
            "most 30 s of 16 kHz mono int16 samples, little-endian."
        ),
        "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/v1/model", summary="Which model this server has", responses=responses(401, 403, 503))
async def model(host: InHost) -> dict[str, Any]:
    return host.describe()


@router.post(
    "/v1/windows:transcribe",
    summary="Decode one window of at most 30 s",
    openapi_extra=BODY,
    responses=responses(400, 401, 403, 413, 503, 504),
)
async def transcribe(request: Request, host: InHost) -> JSONResponse:
    return await _answer(request, host, "transcribe")


@router.post(
    "/v1/score",
    summary="How likely the model finds a given text for a window",
    openapi_extra=BODY,
    responses=responses(400, 401, 403, 413, 503, 504),
)
async def score(request: Request, host: InHost) -> JSONResponse:
    return await _answer(request, host, "score")


async def _answer(request: Request, host: Host, act: Literal["transcribe", "score"]) -> JSONResponse:
    """Read the request and let the micro-batcher do it; give it up when the client disconnects."""
    batcher = host.batcher
    work: Coroutine[Any, Any, WindowResult | TextScore]
    async with _admitted(request, host) as (head, samples):
        window = wire.window(head, samples)
        client = head.client or (request.client.host if request.client else "")
        if act == "transcribe":
            work = batcher.transcribe(window, head.options, client=client, timeout_s=head.timeout_s)
        elif head.text is not None:
            work = batcher.score(window, head.text, head.options, client=client, timeout_s=head.timeout_s)
        else:
            raise BadRequest("score needs a text", hint='give it as "text" in the head')
        result: WindowResult | TextScore = await unless_gone(request, work)
    batch_metrics.AUDIO.inc(len(samples) / SAMPLE_RATE_HZ)
    return JSONResponse(wire.answer(result, batcher.model))


@asynccontextmanager
async def _admitted(request: Request, host: Host) -> AsyncIterator[tuple[Head, Samples]]:
    """The body of a request that the server has room for."""
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(host.admission.admit(RequestKind.WINDOW))
        except Overloaded:
            await _drain(request)
            raise
        yield wire.unpack(await _read(request))


async def _read(request: Request) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is larger than any window.
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
    """Read the rest of the body, at most as much as a window has, so that the client gets to read the answer."""
    drained = 0
    while drained <= wire.MAX_BODY_BYTES:
        message = await request.receive()
        drained += len(message.get("body", b""))
        if not message.get("more_body", False):
            return

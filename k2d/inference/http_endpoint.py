"""Client of one FastAPI inference server, over HTTP."""

from http import HTTPStatus
from typing import Any, Final

import httpx

from k2d.errors import BadRequest, K2DError, ModelError, ServerUnavailable
from k2d.inference.endpoint import RETRYABLE_HTTP
from k2d.inference.wire import Head, pack
from k2d.schema import Samples

CONNECT_S: Final = 5.0
PATHS: Final = {"transcribe": "/v1/windows:transcribe", "score": "/v1/score"}
CONTENT_TYPE: Final = "application/vnd.k2d.window"


class HttpEndpoint:
    """An Endpoint over HTTP. Keeps one connection for each concurrent call, and reuses them.

    endpoint = HttpEndpoint("http://127.0.0.1:8080")
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        self._address = address
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0)
        self._client = httpx.AsyncClient(base_url=address, headers=headers, limits=limits)

    @property
    def address(self) -> str:
        return self._address

    async def call(self, head: Head, samples: Samples, *, timeout_s: float) -> dict[str, Any]:
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        try:
            if head.act == "describe":
                response = await self._client.get("/v1/model", timeout=timeout)
            else:
                response = await self._client.post(
                    PATHS[head.act],
                    content=pack(head, samples),
                    headers={"Content-Type": CONTENT_TYPE},
                    timeout=timeout,
                )
        except httpx.TransportError as error:  # refused, reset, cut off, timed out
            what = str(error) or type(error).__name__
            raise ServerUnavailable(
                f"{self._address}: {what}", hint="check that the server is running, and its log"
            ) from error
        if response.status_code == HTTPStatus.OK:
            return self._document(response)
        raise self._error(response)

    async def close(self) -> None:
        await self._client.aclose()

    def _document(self, response: httpx.Response) -> dict[str, Any]:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ModelError(f"{self._address} answers, but not as an inference server", hint="check the port")
        return document

    def _error(self, response: httpx.Response) -> K2DError:
        """The error in the server's problem document."""
        try:
            problem = response.json()
            detail, code, hint = str(problem["detail"]), str(problem["code"]), problem.get("hint")
        except (ValueError, KeyError, TypeError):  # a proxy's error page, or another kind of server
            detail, code, hint = f"HTTP {response.status_code}", "", None
        message = f"{self._address}: {detail}"
        if response.status_code in RETRYABLE_HTTP:
            return ServerUnavailable(
                message, hint=hint, retry_after_s=_retry_after(response), busy=code == "overloaded"
            )
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            return ModelError(message, hint="set K2D_API_TOKEN to the server's token")
        if code == BadRequest.code:
            return BadRequest(detail, hint=hint)
        return ModelError(message, hint=hint or "see the server's log")


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):  # there is none, or it is a date
        return None

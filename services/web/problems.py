"""Errors as problem documents (RFC 9457), `application/problem+json`: one form for every error of every host."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2d.errors import K2DError, QueueError, StoreError
from k2d.store.parquet import printable

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 10.0  # of a 503 or 429 whose error names no other

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "example": "about:blank"},
        "title": {"type": "string", "example": "Not Found"},
        "status": {"type": "integer", "example": 404},
        "code": {"type": "string", "example": "not_found"},
        "detail": {"type": "string", "example": "no batch is called 'lectures'"},
        "hint": {"type": "string", "example": "GET /v1/batches lists them"},
    },
    "additionalProperties": True,
}


def problem(status: int, code: str, detail: str, *, hint: str | None = None, **members: Any) -> JSONResponse:
    """A problem document as a response; `members` are added to it.

    problem(404, "not_found", "no batch is called 'lectures'", hint="GET /v1/batches lists them")
    """
    headers = None
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers = {"Retry-After": str(math.ceil(members.get("retry_after_s", RETRY_AFTER_S)))}
    document = problem_document(status, code, detail, hint=hint, **members)
    return JSONResponse(document, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def problem_document(status: int, code: str, detail: str, *, hint: str | None = None, **members: Any) -> dict[str, Any]:
    """A problem document as JSON values; `members` are added to it."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    if hint:
        body["hint"] = hint
    document: dict[str, Any] = sendable(members | body)
    return document


def sendable(value: Any) -> Any:
    """A JSON value without what UTF-8 and JSON do not have: lone surrogates become escapes, NaN and infinities null.

    Errors quote what was sent, and `"\\ud800"` is a valid JSON string.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {printable(str(name)): sendable(member) for name, member in value.items()}
    return [sendable(member) for member in value] if isinstance(value, list | tuple) else value


def install(
    app: FastAPI, endpoints: Iterable[str], page_of: Callable[[Scope, Response], Response] | None = None
) -> None:
    """Register handlers for our errors, FastAPI's validation errors and Starlette's own.

    `endpoints`: all of the host's, as "GET /v1/batches/{batch}"; a 405 says which methods its path has. `page_of` makes
    a page of a problem document, for browsers that ask for what is not there.
    """
    methods = [(method, compile_path(path)[0]) for method, path in (name.split(" ") for name in endpoints)]

    @app.exception_handler(K2DError)
    async def handle_k2d_error(request: Request, error: K2DError) -> JSONResponse:
        if isinstance(error, StoreError | QueueError):
            log.error("request failed", path=request.url.path, code=error.code, error=error.message)
        return problem(error.status, error.code, error.message, hint=error.hint, **error.details)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [{"where": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        detail = "; ".join(f"{item['where']}: {item['message']}" for item in problems)
        return problem(422, "invalid_request", detail, hint="see /docs for what is expected", errors=problems)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).name.lower()
        answer: Response = problem(
            error.status_code, code, str(error.detail), hint="see /docs for the API's paths and methods"
        )
        answer.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = _allowed(methods, request.scope)
        if page_of is None:
            return answer
        if asks_for_page(request.scope):
            allowed = answer.headers.get("Allow")
            answer = page_of(request.scope, answer)
            answer.headers.update({"Allow": allowed} if allowed else {})
        answer.headers.add_vary_header("Accept")
        return answer


def asks_for_page(scope: Scope) -> bool:
    """Whether a browser asks for a page, or htmx for a part of one: other clients name neither."""
    headers = Headers(scope=scope)
    wants_page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "").lower()
    return wants_page or "hx-request" in headers


def _allowed(methods: Sequence[tuple[str, re.Pattern[str]]], scope: Scope) -> str:
    """The methods of a request's path, for the header Allow."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    path = path.removeprefix(root) if root and path.startswith(root + "/") else path
    return ", ".join(dict.fromkeys(method for method, pattern in methods if pattern.match(path)))


class UnexpectedErrors:
    """Middleware that logs an unexpected error once and answers 500.

    A handler for `Exception` would not do: Starlette raises the error again after it, and the server logs it a second
    time. Once an answer has begun the error goes on to the server, which logs it and closes the connection.
    """

    def __init__(self, app: ASGIApp, *, page_of: Callable[[Scope, Response], Response] | None = None) -> None:
        """`page_of` makes a page of the answer, for browsers that ask for one."""
        self.app, self.page_of = app, page_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http" or answered:
                raise
            log.exception("unexpected error", path=scope["path"], error=str(error))
            answer: Response = problem(
                500, "internal", "an unexpected error; it is in the server's log", hint="please report it"
            )
            if self.page_of is not None and asks_for_page(scope):
                answer = self.page_of(scope, answer)
            await answer(scope, receive, send)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems an endpoint can answer with."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
        for status in statuses
    }


# what any route of the labeling API may answer: no key, too small a role, too slow a body, impossible parameters, a
# store or queue that does not answer
EVERYWHERE: Final = responses(401, 403, 408, 422, 503)

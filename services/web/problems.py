"""One error shape for every error: problem documents (RFC 9457), `application/problem+json`."""

import math
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from k2d.errors import K2DError, QueueError, StoreError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 10.0  # unless the error knows better

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "example": "about:blank"},
        "title": {"type": "string", "example": "Not Found"},
        "status": {"type": "integer", "example": 404},
        "code": {"type": "string", "example": "not_found"},
        "detail": {"type": "string", "example": "no batch is called 'lectures'"},
        "hint": {"type": "string", "nullable": True, "example": "GET /v1/batches lists them"},
    },
    "additionalProperties": True,
}


def problem(status: int, code: str, detail: str, *, hint: str | None = None, **members: Any) -> JSONResponse:
    """Build a problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    if hint:
        body["hint"] = hint
    headers = None
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(math.ceil(members.get("retry_after_s", RETRY_AFTER_S)))}
    return JSONResponse(members | body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers: ours, FastAPI's validation, Starlette's own, and the unexpected."""

    @app.exception_handler(K2DError)
    async def ours(request: Request, error: K2DError) -> JSONResponse:
        if isinstance(error, StoreError | QueueError):
            log.error("request failed", path=request.url.path, code=error.code, error=error.message)
        return problem(error.status, error.code, error.message, hint=error.hint, **error.details)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [{"where": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        detail = "; ".join(f"{item['where']}: {item['message']}" for item in problems)
        return problem(422, "invalid_request", detail, hint="see /docs for what is expected", errors=problems)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        return problem(error.status_code, code, str(error.detail), hint="see /docs for what is there")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("unexpected error", path=request.url.path, error=str(error))
        return problem(500, "internal", "an unexpected error; it is in the server's log", hint="please report it")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems an endpoint can answer with."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
        for status in statuses
    }

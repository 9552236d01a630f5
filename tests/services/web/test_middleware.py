"""What every host has around its routes: one form of error, limits, the token, metrics."""

import asyncio

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from local_client import LocalClient
from structlog.testing import capture_logs

from k2d.errors import NotFound, StoreError
from k2d.settings import Settings
from services.web import middleware
from services.web.access import OPEN
from services.web.request_metrics import REGISTRY


def host(**settings) -> FastAPI:
    app = FastAPI()

    @app.get("/missing")
    def missing() -> None:
        raise NotFound("no batch is called 'x'", hint="GET /v1/batches lists them", batch="x")

    @app.get("/full")
    def full() -> None:
        raise StoreError("the disk is full", retry_after_s=3.2)

    @app.get("/bug/{what}")
    def bug(what: str) -> None:
        raise ZeroDivisionError(what)

    @app.get("/late")
    def late() -> StreamingResponse:
        def parts():
            yield b"begun"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    routes = ("GET /missing", "GET /full", "GET /bug/{what}", "GET /late", "POST /echo", "GET /healthz")
    middleware.install(app, Settings(_env_file=None, **settings), dict.fromkeys(routes, OPEN))
    return app


def count(route: str, status: int) -> float:
    labels = {"method": "GET", "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("k2d_http_requests_total", labels) or 0.0


def test_errors_are_problem_documents_with_their_details():
    answer = LocalClient(host()).get("/missing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "no batch is called 'x'",
        "hint": "GET /v1/batches lists them",
        "batch": "x",
    }
    full = LocalClient(host()).get("/full")
    assert (full.status_code, full.headers["retry-after"]) == (503, "4")


def test_an_unexpected_error_is_logged_once_and_answered():
    before = count("/bug/{what}", 500)
    with capture_logs() as logs:
        answer = LocalClient(host()).get("/bug/1")  # a client that raises whatever reaches the server
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "ZeroDivisionError" not in answer.text
    [entry] = logs
    assert (entry["event"], entry["path"], entry["exc_info"]) == ("unexpected error", "/bug/1", True)
    assert count("/bug/{what}", 500) == before + 1


def test_an_error_after_the_answer_has_begun_is_left_to_the_server():
    with capture_logs() as logs, pytest.raises(ZeroDivisionError):
        LocalClient(host()).get("/late")
    assert logs == []


@pytest.mark.parametrize("headers", [{}, {"content-length": "12"}, {"content-length": "many"}])
def test_a_body_over_the_limit_is_refused_whatever_its_headers_say(headers):
    sent, body = [], [b'{"a": 1, ', b'"b": 2}']

    async def receive():
        return {"type": "http.request", "body": body.pop(0), "more_body": bool(body)}

    async def send(message):
        sent.append(message)

    raw = [(b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in headers.items())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/echo",
        "headers": [(b"host", b"127.0.0.1"), *raw],
        "query_string": b"",
    }
    asyncio.run(host(max_upload_bytes=10)(scope, receive, send))
    assert [message.get("status") for message in sent] == [413, None]  # one answer, and no other
    assert (b"connection", b"close") in sent[0]["headers"]
    assert LocalClient(host(max_upload_bytes=10)).post("/echo", json={"a": 1}).json() == {"a": 1}

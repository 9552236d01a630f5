"""Keys, roles, the audit log: on both kinds of server, every endpoint."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from local_client import LocalClient
from starlette.types import Message
from structlog.testing import capture_logs

from k2d.errors import BadRequest
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from services.filter import app as labeling
from services.filter import endpoints as labeling_endpoints
from services.inference import app as inference
from services.inference import endpoints as inference_endpoints
from services.web.access import Authenticator, FailedAttempts, is_loopback

TOKEN = "a-token-of-tests-and-nothing-else"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def settings(lake: Lake, **others: object) -> Settings:
    return Settings(store=lake.files.root, redis_url="redis://127.0.0.1:1/0", _env_file=None, **others)


@pytest.fixture
def both(lake: Lake) -> list[FastAPI]:
    return [labeling.create_app(settings(lake)), inference.create_app("teacher", settings(lake))]


def routes(app: FastAPI) -> Iterator[str]:
    for route in app.routes:
        included = getattr(route, "original_router", None)
        for inner in included.routes if included else [route]:
            if path := getattr(inner, "path", None):
                yield from (f"{method} {path}" for method in inner.methods - {"HEAD"})


def without_converters(name: str) -> str:
    """A route as OpenAPI writes it: `{source}` for `{source:path}`."""
    return re.sub(r":\w+}", "}", name)


def test_every_route_is_in_the_table_and_nothing_else(both: list[FastAPI]) -> None:
    tables = (labeling_endpoints.ENDPOINTS, inference_endpoints.ENDPOINTS)
    for app, table in zip(both, tables, strict=True):
        assert {without_converters(name) for name in routes(app)} == {without_converters(name) for name in table}


@pytest.mark.parametrize("given", ["none", "wrong", "revoked", "role below", "basic", "prefix"])
def test_every_endpoint_refuses_who_may_not(both: list[FastAPI], lake: Lake, given: str) -> None:
    _, secret = lake.access.create("viewer", AccessRole.VIEWER, created_by="local:test")
    key, revoked = lake.access.create("gone", AccessRole.ADMIN, created_by="local:test")
    lake.access.revoke(key.id)
    header = {
        "none": None,
        "wrong": f"Bearer {secret[:-1]}x",
        "revoked": f"Bearer {revoked}",
        "role below": f"Bearer {secret}",
        "basic": f"Basic {secret}",
        "prefix": f"Bearer {secret[:30]}",
    }[given]
    tables = (labeling_endpoints.ENDPOINTS, inference_endpoints.ENDPOINTS)
    for app, table in zip(both, tables, strict=True):
        api = LocalClient(app)
        _no_waits(app)
        for name, endpoint in table.items():
            method, path = name.split(" ")
            if endpoint.least is None or (given == "role below" and AccessRole.VIEWER.covers(endpoint.least)):
                continue
            url = re.sub(r"{\w+}", "1", path)
            answer = api.request(
                method, url, headers={"Authorization": header} if header else {}, follow_redirects=False
            )
            if endpoint.page:
                assert answer.status_code == (403 if given == "role below" else 303), name
                continue
            expected = (403, "forbidden") if given == "role below" else (401, "unauthorized")
            assert (answer.status_code, answer.json()["code"]) == expected, name
            assert answer.headers.get("www-authenticate") == (None if given == "role below" else "Bearer")


def _no_waits(app: FastAPI) -> None:
    async def sleep(_: float) -> None: ...

    for layer in app.user_middleware:
        if "attempts" in layer.kwargs:
            layer.kwargs["attempts"] = FailedAttempts(sleep=sleep)


def test_a_key_does_what_its_role_may(lake: Lake) -> None:
    app = labeling.create_app(settings(lake, api_token=TOKEN))
    with LocalClient(app) as api:
        for role in AccessRole:
            _, secret = lake.access.create(role, role, created_by="local:test")
            _forget(app)
            headers = {"Authorization": f"Bearer {secret}"}
            assert api.get("/v1/datasets", headers=headers).status_code == 200
            cancelled = api.delete("/v1/batches/none", headers=headers).status_code
            deleted = api.delete("/v1/datasets/none", headers=headers).status_code
            assert cancelled == (404 if role.covers(AccessRole.OPERATOR) else 403)
            assert deleted == (404 if role is AccessRole.ADMIN else 403)
        assert api.delete("/v1/datasets/none", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404
        assert api.get("/healthz").status_code == 200


def _forget(app: FastAPI) -> None:
    """As if KEYS_FRESH_S had passed."""
    for layer in app.user_middleware:
        if "authenticator" in layer.kwargs:
            layer.kwargs["authenticator"]._read_at = None


def test_keys_are_stored_hashed_and_their_use_is_noted(lake: Lake) -> None:
    key, secret = lake.access.create("ci", AccessRole.VIEWER, created_by="local:test")
    assert len(secret) >= 43
    stored = b"".join(path.read_bytes() for path in Path(lake.files.root).rglob("*") if path.is_file())
    assert secret.encode() not in stored
    assert secret.rpartition("_")[2].encode() not in stored
    assert lake.access.last_used(key.id) is None
    with LocalClient(labeling.create_app(settings(lake))) as api:
        assert api.get("/v1/batches", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert lake.access.last_used(key.id) is not None


def test_revoking_the_last_key_opens_nothing(lake: Lake) -> None:
    app = labeling.create_app(settings(lake))
    with LocalClient(app) as api:
        assert api.get("/v1/batches").status_code == 200  # this machine, and no keys yet
        key, secret = lake.access.create("only", AccessRole.ADMIN, created_by="local:test")
        lake.access.revoke("only")
        _forget(app)
        assert api.get("/v1/batches").status_code == 401
        assert api.get("/v1/batches", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
        assert lake.access.all()[0].id == key.id


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[1]", b"{}"])
def test_a_damaged_key_closes_and_does_not_open_and_the_others_go_on(lake: Lake, content: bytes) -> None:
    key, secret = lake.access.create("only", AccessRole.ADMIN, created_by="local:test")
    lake.files.write(f"access/keys/{key.id}.json", content)
    app = labeling.create_app(settings(lake))
    with LocalClient(app) as api:
        for headers in ({}, {"Authorization": f"Bearer {secret}"}):
            assert api.get("/v1/batches", headers=headers).status_code == 401
        assert api.get("/healthz").status_code == 200
        _, other = lake.access.create("other", AccessRole.VIEWER, created_by="local:test")
        _forget(app)
        assert api.get("/v1/batches", headers={"Authorization": f"Bearer {other}"}).status_code == 200
        lake.access.revoke(key.id)
        assert [stored.error for stored in lake.access.all()] == [None, None]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "k2d.example.org"])
def test_a_host_beyond_loopback_needs_a_key(lake: Lake, host: str) -> None:
    for create in (labeling.create_app, lambda asked: inference.create_app("teacher", asked)):
        with pytest.raises(BadRequest, match="no key is set") as error:
            create(settings(lake, host=host))
        assert "K2D_ALLOW_ANONYMOUS" in str(error.value.hint)
        create(settings(lake, host=host, allow_anonymous=True))
        create(settings(lake, host=host, api_token=TOKEN))
    lake.access.create("any", AccessRole.VIEWER, created_by="local:test")
    labeling.create_app(settings(lake, host=host))
    assert not is_loopback(host)


@pytest.mark.parametrize("token", ["x", "fifteen-letters"])
def test_a_short_token_is_refused_and_not_shown(lake: Lake, token: str) -> None:
    with pytest.raises(BadRequest, match="at least 16") as error:
        Authenticator(settings(lake, api_token=token))
    assert token not in str(error.value).replace("characters", "")


@pytest.mark.parametrize(
    ("server", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.5", 403), ("2001:db8::1", 403)],
)
def test_without_keys_only_this_machine_is_answered_however_it_was_started(
    lake: Lake, server: str, status: int
) -> None:
    """`uvicorn services.filter.app:create_app --host 0.0.0.0` tells the app no host."""
    app = labeling.create_app(settings(lake))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", f"[{server}]".encode() if ":" in server else server.encode())]
    scope = {"type": "http", "method": "GET", "path": "/v1/batches", "query_string": b"", "headers": headers}
    asyncio.run(app(scope | {"server": (server, 8080), "client": ("10.0.0.9", 1)}, receive, send))
    assert sent[0]["status"] == status


def test_changes_are_in_the_audit_log_and_secrets_in_no_log(
    lake: Lake, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    operator, secret = lake.access.create("ada", AccessRole.OPERATOR, created_by="local:test")
    app = labeling.create_app(settings(lake).model_copy(update={"redis_url": Settings(redis_url=redis_url).redis_url}))
    headers = {"Authorization": f"Bearer {secret}"}
    with LocalClient(app) as api, capture_logs() as logs:
        _no_waits(app)
        posted = api.post("/v1/batches", headers=headers, files={"files": ("a.wav", b"RIFF", "audio/wav")})
        assert posted.status_code == 202
        frozen = api.post("/v1/datasets", headers=headers, json={"name": "v1", "batches": [posted.json()["id"]]})
        assert frozen.status_code == 202
        api.delete("/v1/datasets/v1", headers=headers)
        api.get("/v1/batches", headers=headers)
        api.get("/v1/batches", headers={"Authorization": f"Bearer {secret}x"})
    entries = list(lake.audit_log.entries())
    who = f"{operator.id} ada"
    assert [(entry["action"], entry["by"], entry["target"], entry["status"]) for entry in entries] == [
        ("post", who, f"/v1/batches/{posted.json()['id']}", 202),
        ("freeze", who, "/v1/datasets/v1", 202),
        ("delete", who, "/v1/datasets/v1", 403),
    ]
    assert {entry["event"] for entry in logs} == {"not allowed", "wrong key"}
    said = json.dumps(logs) + json.dumps(entries) + "".join(capfd.readouterr())
    assert secret not in said
    assert secret.rpartition("_")[2] not in said


def test_failures_wait_longer_and_longer_by_address() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def fail() -> None:
        attempts = FailedAttempts(sleep=sleep, clock=lambda: 1.0)
        for _ in range(12):
            await attempts.fail("192.0.2.1")
        assert await attempts.fail("192.0.2.2") == 1

    asyncio.run(fail())
    assert waits == sorted(waits)
    assert len(waits) == 12 - FailedAttempts.FREE
    assert waits[-1] == FailedAttempts.LONGEST_S


def test_the_memory_for_addresses_is_bounded() -> None:
    async def fail() -> int:
        attempts = FailedAttempts(clock=lambda: 1.0)
        for number in range(FailedAttempts.MOST_ADDRESSES + 10):
            await attempts.fail(str(number))
        return len(attempts._failures)

    assert asyncio.run(fail()) == FailedAttempts.MOST_ADDRESSES

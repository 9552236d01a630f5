"""Foreign web pages: Host, Origin, security headers; and /docs, which loads nothing from elsewhere."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from local_client import LocalClient

from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from services.filter import app as labeling
from services.inference import app as inference
from services.web.docs import FILES
from services.web.origins import HEADERS

TOKEN = "a-token-of-tests-and-nothing-else"


def client(tmp_path: Path, **settings: object) -> LocalClient:
    return LocalClient(labeling.create_app(own(tmp_path, **settings)))


def own(tmp_path: Path, **settings: object) -> Settings:
    return Settings(store=str(tmp_path / "lake"), redis_url="redis://127.0.0.1:1/0", _env_file=None, **settings)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "192.0.2.1", "localhost."]
)
def test_addresses_and_localhost_are_no_foreign_names(tmp_path: Path, host: str) -> None:
    assert client(tmp_path).get("/v1/batches", headers={"Host": host}).status_code == 200


FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "k2d.example.org@evil.example",
    "evil.example#localhost",
    "evil.example/localhost",
    "2130706433.evil.example",
    "",
    "a b",
    "[::1",
    "localhost:port",
    "notk2d.example.org",
]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("allowed", [(), ("k2d.example.org", "*.k2d.example.org")])
@pytest.mark.parametrize("path", ["/v1/batches", "/healthz", "/docs", "/nothing"])
def test_a_name_that_is_not_ours_is_refused_on_every_path(
    tmp_path: Path, host: str, allowed: tuple[str, ...], path: str
) -> None:
    answer = client(tmp_path, allowed_hosts=allowed).get(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "host_refused")


def test_names_of_the_setting_are_ours(tmp_path: Path) -> None:
    api = client(tmp_path, allowed_hosts=("k2d.example.org", "*.lab.example.org"))
    for host in ("k2d.example.org", "K2D.example.org:443", "a.lab.example.org", "a.b.lab.example.org"):
        assert api.get("/v1/batches", headers={"Host": host}).status_code == 200, host
    assert api.get("/v1/batches", headers={"Host": "lab.example.org"}).status_code == 400


def test_where_keys_are_needed_any_name_will_do_unless_names_are_set(tmp_path: Path) -> None:
    headers = {"Host": "api", "Authorization": f"Bearer {TOKEN}"}
    assert client(tmp_path, api_token=TOKEN).get("/v1/batches", headers=headers).status_code == 200
    assert client(tmp_path, api_token=TOKEN, allowed_hosts=("x.org",)).get("/v1/batches", headers=headers).is_error
    _, secret = Lake(str(tmp_path / "lake")).access.create("any", AccessRole.VIEWER, created_by="local:test")
    headers["Authorization"] = f"Bearer {secret}"
    assert client(tmp_path).get("/v1/batches", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"Origin": "http://127.0.0.1"}, False),
        ({"Origin": "http://127.0.0.1:80"}, True),  # no browser writes it so
        ({"Origin": "http://127.0.0.1:3000"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "file://"}, True),
        ({"Origin": ""}, True),
        ({"Origin": "https://k2d.example.org"}, False),
        ({"Origin": "https://127.0.0.1@evil.example"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, True),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, False),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_pages_of_other_origins_neither_read_nor_write(
    tmp_path: Path, headers: dict[str, str], foreign: bool, method: str
) -> None:
    api = client(tmp_path, allowed_hosts=("k2d.example.org",))
    path = {"GET": "/v1/batches", "DELETE": "/v1/batches/none", "POST": "/v1/batches/none/retry"}[method]
    answer = api.request(method, path, headers=headers)
    assert (answer.status_code == 403) == foreign, answer.text
    assert not foreign or answer.json()["code"] == "origin_refused"
    assert "access-control-allow-origin" not in answer.headers


def test_a_post_that_a_foreign_page_navigates_to_is_refused(tmp_path: Path) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client(tmp_path).post("/v1/resume", headers=headers).status_code == 403
    assert client(tmp_path).get("/docs", headers=headers).status_code == 200  # a link from elsewhere


def apps(tmp_path: Path) -> list[FastAPI]:
    return [labeling.create_app(own(tmp_path)), inference.create_app("teacher", own(tmp_path))]


def test_every_answer_has_the_security_headers(tmp_path: Path) -> None:
    for app in apps(tmp_path):
        api = LocalClient(app)
        answers = [
            api.get(path) for path in ("/healthz", "/readyz", "/metrics", "/v1/nothing", "/docs", "/openapi.json")
        ]
        answers += [api.put("/healthz"), api.get("/healthz", headers={"Host": "evil.example"})]
        answers.append(api.post("/v1/batches", headers={"Content-Length": str(10**12)}))
        for answer in answers:
            for name, value in HEADERS.items():
                assert answer.headers.get_list(name), (answer.url, name)
                if name not in ("Content-Security-Policy", "Cache-Control"):
                    assert answer.headers.get_list(name) == [value]


def test_the_page_of_the_api_loads_own_files_only(tmp_path: Path) -> None:
    for app in apps(tmp_path):
        api = LocalClient(app)
        page = api.get("/docs")
        assert page.status_code == 200
        assert "http" not in page.text
        loaded = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
        assert len(loaded) == 3
        for path in loaded:
            answer = api.get(f"/{path}")
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        assert (
            "unsafe-inline" not in page.headers["content-security-policy"].partition("script-src")[2].partition(";")[0]
        )
        assert not re.search(r"<script(?! src=)", page.text)
        assert "Apache License" in api.get("/docs/LICENSE").text
        assert "SwaggerUIBundle" in api.get("/docs/start.js").text
        for name in ("../pyproject.toml", "%2e%2e/x", "nothing.js"):
            assert api.get(f"/docs/{name}").status_code == 404
    assert set(FILES) == {"swagger-ui-bundle.js", "swagger-ui.css", "LICENSE"}

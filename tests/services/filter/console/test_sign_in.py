"""Signing in to the console: sessions, their cookies, and requests that a foreign page would forge."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_client import LocalClient

from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from services.filter.app import create_app
from services.web.sessions import COOKIE

TOKEN = "a token of the operator"


def app_of(tmp_path: Path, **settings: object) -> LocalClient:
    return LocalClient(create_app(Settings(store=str(tmp_path / "lake"), _env_file=None, **settings)))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[LocalClient]:
    """A console that needs keys."""
    with app_of(tmp_path, api_token=TOKEN) as client:
        yield client


def sign_in(client: LocalClient, key: str, target: str = "/"):
    return client.post(f"/sign-in?next={target}", data={"key": key}, follow_redirects=False)


def csrf(page: str) -> str:
    found = re.search(r'data-csrf="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def test_whoever_has_no_key_is_sent_to_sign_in_and_comes_back(console):
    answer = console.get("/?cursor=b_1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2F%3Fcursor%3Db_1")
    answer = sign_in(console, TOKEN, "/datasets")
    assert (answer.status_code, answer.headers["location"]) == (303, "/datasets")
    assert console.get("/").status_code == 200


def test_a_part_of_a_page_sends_the_whole_page_to_sign_in(console):
    answer = console.get("/", headers={"HX-Request": "true"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/sign-in")


def test_the_cookie_is_for_this_server_and_no_script(console):
    cookie = sign_in(console, TOKEN).headers["set-cookie"]
    assert re.search(r"; HttpOnly;.*; SameSite=strict", cookie)
    assert "Secure" not in cookie  # to a loopback address; test_https has the other case


def test_over_https_the_cookie_is_secure(tmp_path):
    with app_of(tmp_path, api_token=TOKEN) as client:
        answer = client.post("https://127.0.0.1/sign-in", data={"key": TOKEN}, follow_redirects=False)
    assert "; Secure" in answer.headers["set-cookie"]


def test_no_key_is_taken_over_a_network_without_https(console):
    answer = console.post("http://192.0.2.7/sign-in", data={"key": TOKEN}, follow_redirects=False)
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers
    assert "not HTTPS" in answer.text


@pytest.mark.parametrize("key", ["", "wrong", "k2d_0123456789ab_" + "A" * 43, "密", "\0", TOKEN + "x"])
def test_a_wrong_key_begins_no_session(console, key):
    answer = console.post("/sign-in", data={"key": key}, follow_redirects=False)
    assert answer.status_code in (401, 422)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "x"]
)
def test_signing_in_leads_to_no_other_host(console, target):
    assert sign_in(console, TOKEN, target).headers["location"] == "/"


def test_an_altered_cookie_is_no_session(console):
    sign_in(console, TOKEN)
    cookie = console.cookies[COOKIE]
    console.cookies.clear()
    altered = cookie[:-2] + ("AA" if not cookie.endswith("AA") else "BB")
    for value in (altered, cookie.partition(".")[0], "x", "."):
        assert console.get("/v1/batches", headers={"Cookie": f"{COOKIE}={value}"}).status_code == 401


def test_a_session_reaches_the_api_and_changes_something_only_with_its_token(tmp_path, console):
    sign_in(console, TOKEN)
    assert console.get("/v1/batches").status_code == 200
    answer = console.delete("/v1/datasets/none")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    token = csrf(console.get("/").text)
    assert console.delete("/v1/datasets/none", headers={"X-CSRF-Token": token}).status_code == 404
    assert console.delete("/v1/datasets/none", headers={"X-CSRF-Token": "密".encode()}).status_code == 403


def test_a_session_has_the_role_of_its_key_and_ends_with_it(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    key, secret = lake.access.create("ada", AccessRole.VIEWER, created_by="test")
    with app_of(tmp_path) as console:
        assert sign_in(console, secret).status_code == 303
        page = console.get("/").text
        assert "ada" in page
        assert "audit-log" not in page
        token = csrf(page)
        assert console.delete("/v1/datasets/none", headers={"X-CSRF-Token": token}).status_code == 403
        lake.access.revoke(key.id)
        console.app.state.authenticator._read_at = None  # as after KEYS_FRESH_S
        assert console.get("/", follow_redirects=False).status_code == 303


def test_another_token_of_the_server_ends_its_sessions(tmp_path, console):
    sign_in(console, TOKEN)
    with app_of(tmp_path, api_token=TOKEN + " changed") as later:
        later.cookies.set(COOKIE, console.cookies[COOKIE])
        assert later.get("/v1/batches").status_code == 401


def test_all_servers_of_a_store_take_a_session(tmp_path, console):
    sign_in(console, TOKEN)
    with app_of(tmp_path, api_token=TOKEN) as second:
        second.cookies.set(COOKIE, console.cookies[COOKIE])
        assert second.get("/v1/batches").status_code == 200


def test_where_no_key_is_needed_whoever_started_it_is_signed_in(tmp_path):
    with app_of(tmp_path) as console:
        page = console.get("/")
        assert "signed in as admin" in page.text
        assert COOKIE in console.cookies
        assert console.get("/v1/batches").status_code == 200


def test_signing_out_takes_the_cookie(console):
    sign_in(console, TOKEN)
    answer = console.post("/sign-out")
    assert answer.headers["hx-redirect"] == "/sign-in"
    assert console.get("/v1/batches").status_code == 401


def test_language_and_colours_are_kept(console):
    sign_in(console, TOKEN)
    answer = console.get("/preferences?language=zh-Hant&theme=dark&next=/")
    assert '<html lang="zh-Hant" data-theme="dark">' in answer.text
    assert "批次" in answer.text
    answer = console.get("/preferences?language=xx&theme=yy&next=//evil.example", follow_redirects=False)
    assert "set-cookie" not in answer.headers
    assert answer.headers["location"] == "/"


def test_an_error_is_a_page(console):
    sign_in(console, TOKEN)
    answer = console.get("/?cursor=<script>alert(1)</script>")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script>alert" not in answer.text
    part = console.get("/?cursor=x", headers={"HX-Request": "true"})
    assert part.text.startswith("<p class=")


def test_a_browser_says_where_its_form_was_sent_from(console):
    """With the API's policy, no-referrer, it says `Origin: null`, which is refused: nobody could sign in."""
    assert console.get("/sign-in").headers["referrer-policy"] == "same-origin"
    assert console.post("/sign-in", data={"key": TOKEN}, headers={"Origin": "null"}).status_code == 403

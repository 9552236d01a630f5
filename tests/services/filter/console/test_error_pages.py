"""Error pages say in the reader's language what happened, to what, and what to do on the page."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin

import pytest
from factories import finished_batch
from local_client import LocalClient

from k2d.datasets.freeze import freeze
from k2d.documents import BatchOptions
from k2d.errors import K2DError
from k2d.filtering.policy import PAPER
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from services.filter.app import create_app
from services.filter.console import errors
from services.filter.console.errors import ALLOWED, BY_CODE, BY_MEMBER, FIELDS, LISTS, Link, Wording
from services.filter.console.words import table

pytestmark = pytest.mark.integration

KEY = "0" * 64
BAD = (
    "nope", "v1/nope", "v1/policies/preview", "keys/nope", "batches/nope", "batches/nope/delete",
    "batches/new?add=nope",
    "batches/waiting/delete", "batches/nope/explore", "batches/nope/chunks", "batches/nope/progress", "?cursor=x",
    "?hours=maybe", "batches/lectures/progress?wait=999", "batches/lectures/subtitles/exe",
    "batches/lectures/chunks.csv?verdict=x", "batches/lectures/chunks?verdict=x", "batches/lectures/chunks?reason=x",
    "batches/lectures/chunks?recording=nope", "batches/lectures/chunks?min_distance=x",
    "batches/lectures/chunks?cursor=x", "chunks/nope", f"chunks/{KEY}-00000", f"chunks/{KEY}-00000.000",
    *(f"batches/lectures/explore?{query}" for query in (
        "alpha=7", "alpha=x", "alpha=nan", "policy=x", "own=%7B%22alpha%22:3%7D", "metric=x", "show=x", "rules=1&on=x",
        "other_alpha=9", "metric=evidence&policy=paper",
    )),
    "batches/lectures/explore/panel?show=flips&cursor=x", "batches/lectures/explore/curve.csv?alpha=7",
    "review/nope", "review?batch=nope", "review/d_0000000000000000", "review/d_0000000000000000?target=200",
    "review/d_0000000000000000/calibrations/x", "datasets/nope", "datasets/talks?seed=x", "datasets/talks/rows/0/999",
    "datasets/talks/rows/x/0", "datasets/talks/export/exe", "runs/nope", "runs/nope?start=-1",
    "runs/nope/evaluations/x/clips/0", "audit-log?day=x", "batches/damaged", "fails",
)  # fmt: skip
FORMS = (  # what an admin may send, and the status
    ("batches/lectures/explore/freeze", {}, 400),
    ("batches/lectures/explore/freeze", {"name": "talks"}, 409),
    ("batches/lectures/explore/freeze", {"name": "../x"}, 400),
    ("review", {"batch": "lectures", "count": "5"}, 400),
    ("review", {"batch": "lectures", "count": "x"}, 422),
    ("review", {}, 422),
    ("keys", {"name": "<b>"}, 400),
    ("keys", {"name": "ada"}, 409),
    ("keys", {"name": "x", "role": "emperor"}, 422),
)
SENTENCE = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,}){2,}")  # three English words
LANGUAGES = ("en", "zh-TW")


class Site:
    """A console with something wrong in its store, and an admin at it."""

    def __init__(self, root: str, redis_url: str) -> None:
        self.lake = lake = Lake(root)
        freeze(lake, name="talks", batches=[finished_batch(lake).id], policy=PAPER)
        for name in ("waiting", "damaged"):
            source = Source(f"{name}.wav", f"lake://uploads/{name}", f"key-{name}")
            lake.batches.put(make_batch([source], BatchOptions(name=name), Settings(_env_file=None)))
        lake.files.write(f"batches/{lake.batches.get('damaged').id}/batch.json", b"{")
        secret = lake.access.create("ada", AccessRole.ADMIN, created_by="test")[1]
        self.viewer_key = lake.access.create("eve", AccessRole.VIEWER, created_by="test")[1]
        app = create_app(Settings(store=root, redis_url=redis_url, _env_file=None))
        app.state.queue.redis.flushall()
        app.add_api_route("/fails", lambda: 1 / 0)
        self.client = LocalClient(app, raise_server_exceptions=False)
        self.client.post("/sign-in", data={"key": secret})
        page = self.client.get("/").text
        self.client.headers["X-CSRF-Token"] = re.search(r'data-csrf="([0-9a-f]+)"', page)[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Site]:
    site = Site(str(tmp_path_factory.mktemp("errors") / "lake"), redis_url)
    with site.client:
        yield site


def main_text(page: str) -> str:
    """What a page says beside the server's own text, which is marked as English."""
    main = re.search(r"<main.*</main>", page, re.DOTALL)
    text = re.sub(r'<p lang="en">.*?</p>', "", main[0] if main else page, flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))).strip()


def check(site: Site, answer: Any, language: str, where: Any) -> str:
    assert answer.headers["content-type"].startswith("text/html"), where
    assert site.lake.files.root not in answer.text, where
    text = main_text(answer.text)
    assert "k2d" not in text, (where, text)
    assert not re.search(r"[{}]|--\w", text), (where, text)
    if language != "en":
        assert not SENTENCE.search(text), (where, text)
    return text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_bad_address_is_said_on_a_page(site: Site, language: str) -> None:
    headers = {"Accept": "text/html", "Accept-Language": language}
    for path in BAD:
        answer = site.client.get(f"/{path}", headers=headers)
        assert answer.status_code >= 400, path
        check(site, answer, language, path)
        (way_out,) = re.findall(r'<a class="button primary" href="([^"]+)"', answer.text)
        led_to = site.client.get(urljoin("/", unescape(way_out)), headers=headers).status_code
        assert led_to < 400 or path.startswith((way_out, "runs/nope?", "review/d_")), (path, way_out, led_to)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_form_cannot_do_is_said_beside_it(site: Site, language: str) -> None:
    headers = {"Accept-Language": language, "HX-Request": "true"}
    for path, form, status in FORMS:
        answer = site.client.post(f"/{path}", data=form, headers=headers)
        assert answer.status_code == status, (path, form, answer.text)
        assert "<main" not in answer.text
        check(site, answer, language, (path, form))


def test_what_is_wrong_and_what_to_do_is_said(site: Site) -> None:
    def text(path: str) -> str:
        return main_text(site.client.get(f"/{path}").text)

    assert "“α” cannot be “7”. It is a number from 0 to 1." in text("batches/lectures/explore?alpha=7")
    page = site.client.get("/batches/lectures/explore?alpha=7&show=yield").text
    assert 'href="batches/lectures/explore?show=yield"' in page
    assert "There is no batch “nope”." in text("batches/nope")
    page = site.client.get("/batches/waiting/delete").text
    batch = site.lake.batches.get("waiting").id
    assert f'href="batches/{batch}#cancel"' in page
    assert 'id="cancel"' in site.client.get(f"/batches/{batch}").text


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_may_not_is_told_which_role_it_needs(site: Site, language: str) -> None:
    with LocalClient(site.client.app, headers={"Authorization": f"Bearer {site.viewer_key}"}) as viewer:
        answer = viewer.get("/batches/new", headers={"Accept-Language": language})
        assert answer.status_code == 403
        assert ("operator" in check(site, answer, language, "role")) == (language == "en")
    answer = site.client.post("/sign-out", headers={"X-CSRF-Token": "x"})
    answer = site.client.post(
        "/batches/lectures/cancel", headers={"X-CSRF-Token": "x", "Accept-Language": language, "HX-Request": "true"}
    )
    assert answer.status_code in (401, 403)


def test_every_text_is_translated() -> None:
    words = table("zh-Hant")
    wordings = [wording for _, _, wording in BY_MEMBER] + list(BY_CODE.values())
    wordings += [own for own in vars(errors).values() if isinstance(own, Wording)]
    links = [wording.link for wording in wordings if wording.link] + list(LISTS.values())
    links += [own for own in vars(errors).values() if isinstance(own, Link)]
    texts = {text for wording in wordings for text in (wording.text, wording.advice)} | {own.label for own in links}
    texts |= {errors.IMPOSSIBLE, *(text for _, text in ALLOWED), *FIELDS.values()}
    assert sorted(texts - words.keys() - {"α"}) == []


def test_every_code_that_pages_word_is_an_errors_code() -> None:
    def codes(kind: type[K2DError]) -> set[str]:
        return {kind.code}.union(*(codes(own) for own in kind.__subclasses__()))

    others = {"no_keys", "internal", "method_not_allowed"}  # of services.web
    assert {code for code, _, _ in BY_MEMBER} | BY_CODE.keys() <= codes(K2DError) | others

"""The explorer and a chunk's page in a real Chromium: moving α, listening, downloads, keyboard, hostile texts, axe."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console import serve
from factories import finished_batch
from hostile import HOSTILE, HOSTILE_TEXTS

from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app

WAIT_S = 60.0  # for what takes well below a second

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[str]:
    root = str(tmp_path_factory.mktemp("browser") / "lake")
    lake = Lake(root)
    finished_batch(lake, recordings=6)
    finished_batch(lake, name="hostile", recordings=2, names=[HOSTILE + ".wav", "b.wav"], texts=HOSTILE_TEXTS)
    with serve(create_app(Settings(store=root, redis_url=redis_url, _env_file=None))) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page on which neither an error nor a dialog nor a request to another host may occur."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address)
    context.set_default_timeout(1000 * WAIT_S)
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.on(
        "request", lambda request: None if request.url.startswith((address, "blob:")) else wrong.append(request.url)
    )
    yield opened
    context.close()
    assert not wrong


def chunk_ids(page: Any, batch: str) -> list[str]:
    return [chunk["id"] for chunk in page.request.get(f"/v1/chunks?batch={batch}").json()["chunks"]]


def until(page: Any, function: str, arg: Any = None) -> None:
    """Wait until a function of the page returns true. Playwright's own wait needs eval, which the page forbids."""
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(function, arg):
        assert time.monotonic() < deadline, function
        page.wait_for_timeout(50)


def explore(page: Any, query: str = "", batch: str = "lectures") -> None:
    page.goto(f"/batches/{batch}/explore{query}")
    until(page, "() => measures.length && !document.querySelector('#curve').hasAttribute('aria-busy')")
    page.wait_for_selector("#panel h2")


def test_moving_alpha_redraws_without_a_request(page: Any) -> None:
    explore(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = page.text_content("[data-number=kept]")
    assert page.locator("#curve .u-value:visible").count() == 0  # no pointer, no values
    page.hover("#curve .u-over")
    assert page.locator("#curve .u-value:visible").count() > 2
    page.hover("h1")
    assert page.locator("#curve .u-value:visible").count() == 0
    page.locator("#alpha").evaluate("slider => { slider.value = 0.05; slider.dispatchEvent(new Event('input')); }")
    until(page, "text => document.querySelector('[data-number=kept]').textContent !== text", arg=before)
    assert page.text_content("[data-number=kept]").startswith("0 min")
    assert page.text_content("#chunks-kept") == "chunks kept"
    assert page.evaluate("fill(words.chunks_kept, { count: 1 })") == "chunk kept"
    assert page.input_value("#alpha-number") == "0.05"
    assert not asked
    page.locator("#alpha").evaluate("slider => slider.dispatchEvent(new Event('change', {bubbles: true}))")
    until(page, "() => document.querySelector('#panel h2')?.textContent.includes('0.05')")
    assert "alpha=0.05" in page.url
    assert "α 0.05" in page.text_content("#said")


def test_an_address_shows_the_same_to_a_colleague(page: Any) -> None:
    explore(page)
    page.uncheck('input[name="on"][value="unconfirmed"]')
    page.check('input[name="show"][value="flips"]')
    page.wait_for_selector("#panel .figure-row")
    page.select_option('select[name="other"]', "paper")
    until(page, "() => document.querySelector('#panel')?.textContent.includes('paper, α = 0.4')")
    until(page, "() => !document.querySelector('#curve').hasAttribute('aria-busy')")
    numbers, panel = page.text_content("#numbers"), page.text_content("#panel")
    explore(page, page.url.partition("explore")[2])
    assert not page.is_checked('input[name="on"][value="unconfirmed"]')
    assert (page.text_content("#numbers"), page.text_content("#panel")) == (numbers, panel)


def test_the_curve_is_saved_as_csv_and_png(page: Any) -> None:
    explore(page)
    with page.expect_download() as download:
        page.click("#csv")
    assert Path(download.value.path()).read_text("utf-8-sig").startswith("kind,name,alpha")
    with page.expect_download() as download:
        page.click("#png")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_a_chunk_of_a_list_is_heard(page: Any) -> None:
    explore(page)
    page.locator("#panel button.play").first.click()
    until(page, "() => player.currentTime > 0.1")
    assert page.locator('#panel button.play[aria-pressed="true"]').count() == 1
    page.locator("#panel button.play").first.click()
    assert page.evaluate("() => player.paused")


def test_a_chunk_plays_from_a_token_and_a_segment(page: Any) -> None:
    page.goto(f"/chunks/{chunk_ids(page, 'lectures')[0]}")
    until(page, "() => document.querySelector('#audio').readyState >= 2")
    until(page, "() => regions.getRegions().length === 1")  # the waveform is there, with its segment
    page.locator("#tokens button.token").first.focus()
    page.keyboard.press("End")
    last = page.evaluate("() => [document.activeElement.textContent, Number(document.activeElement.dataset.at)]")
    assert last[0] == "下"
    page.keyboard.press("Enter")
    until(page, "at => document.querySelector('#audio').currentTime > at", arg=last[1])
    page.evaluate("() => document.querySelector('#audio').pause()")
    played = (
        "() => { document.querySelector('button.segment').click(); return [audio.currentTime, stopAt, audio.paused]; }"
    )
    assert page.evaluate(played) == [0, 5, False]


def test_a_dataset_is_frozen_from_the_page(page: Any) -> None:
    explore(page, "?alpha=0.2")
    page.fill("#dataset", "from-the-page")
    page.click("#freeze button")
    page.wait_for_selector("#frozen a")
    assert page.get_attribute("#frozen a", "href") == "datasets/from-the-page"


def test_hostile_names_are_shown_and_never_run(page: Any) -> None:
    own = json.dumps({"name": HOSTILE, "metric": "per", "alpha": 0.2})
    explore(
        page, f"?{page.evaluate('text => new URLSearchParams({own: text, show: `flips`}).toString()', own)}", "hostile"
    )
    page.click("#png")
    page.goto("/batches/hostile/chunks")
    assert HOSTILE in page.text_content("table")
    page.goto(f"/chunks/{chunk_ids(page, 'hostile')[0]}?batch=hostile")
    assert HOSTILE in page.text_content("h1")
    assert page.locator("main script, main img, main b").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh-Hant"])
def test_axe_finds_nothing_serious(browser: Any, address: str, theme: str, language: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": 800, "height": 900}, color_scheme=theme, base_url=address)
    context.set_default_timeout(1000 * WAIT_S)
    context.add_cookies([{"name": "k2d_language", "value": language, "url": address}])
    page = context.new_page()
    chunk = chunk_ids(page, "lectures")[1]
    serious = []
    for path in ("/batches/lectures/explore?show=yield", "/batches/lectures/explore?show=flips&other=paper"):
        explore(page, path.partition("explore")[2])
        serious += axe.run(page).response["violations"]
    wrong = ("/batches/none", "/batches/lectures/explore?own=%7B%22alpha%22:3%7D")
    for path in ("/batches/lectures/chunks", f"/chunks/{chunk}?batch=lectures", *wrong):
        page.goto(path)
        assert page.get_attribute("html", "lang") == language
        serious += axe.run(page).response["violations"]
    context.close()
    assert not [
        (found["id"], found["nodes"][0]["html"]) for found in serious if found["impact"] in ("serious", "critical")
    ]

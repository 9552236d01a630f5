"""Batches, datasets, runs, the fleet and keys in a real Chromium: what a person does, sees and hears."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from console import serve
from factories import finished_batch, tone
from test_pages import EVIL, published

from k2d.datasets.freeze import freeze
from k2d.filtering.policy import PAPER
from k2d.schema import Outcome, QuarantineReason, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app

pytestmark = pytest.mark.integration

LIMIT = 1_000_000
AXE = pytest.importorskip("axe_playwright_python.sync_playwright")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("console") / "lake"))
    batch = finished_batch(lake, names=[f"{EVIL}.wav", "talk-1.wav"])
    freeze(lake, name="talks", batches=[batch.id], policy=PAPER)
    published(lake)
    lake.audit_log.record("post", by="local:ada", target="lectures", status=202)
    return lake


@pytest.fixture(scope="module")
def address(lake: Lake, redis_url: str) -> Iterator[str]:
    settings = Settings(store=lake.files.root, redis_url=redis_url, max_upload_bytes=LIMIT, _env_file=None)
    app = create_app(settings)
    app.state.queue.redis.flushall()
    with serve(app) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(base_url=address, locale="en-US", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: problems.append(request.url) if not _is_own(request.url, address) else None)
    yield page
    context.close()
    assert not problems


def _is_own(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def wav(folder: Path, name: str, hz: float = 440.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(2.0, hz), 16_000)
    return path


def test_files_are_estimated_sent_and_watched(page: Any, lake: Lake, tmp_path: Path) -> None:
    page.goto("/batches/new")
    page.set_input_files("#files", [wav(tmp_path, "a.wav"), wav(tmp_path, "b.wav", 550.0)])
    page.get_by_text("Files: 2, 128.1 kB").wait_for()
    page.fill("#name", "from-the-page")
    page.click("#estimate")
    page.get_by_text("4 s of audio, recordings: 2.").wait_for()
    page.get_by_text("Basis:").wait_for()
    page.eval_on_selector(
        "#channels", "select => { select.closest('details') && (select.closest('details').open = true) }"
    )
    page.select_option("#channels", "2")
    page.click("#estimate")
    page.get_by_text("Without the channel asked for: a.wav, b.wav").wait_for()
    page.select_option("#channels", "")
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.dblclick("#start")
    page.wait_for_url("**/batches/b_*")
    assert len(posts) == 1
    batch = lake.batches.get("from-the-page")
    assert [source.name for source in batch.sources] == ["a.wav", "b.wav"]
    page.get_by_text("Waiting for a worker.").wait_for()
    for position, source in enumerate(batch.sources):  # as a worker would
        reason = QuarantineReason.SILENT
        lake.batches.put_result(
            batch.id, RecordingResult(position, source.name, Outcome.QUARANTINED, 2.0, reason=reason, detail="0.0003")
        )
    page.locator("#progress .badge.done").wait_for()  # seen without loading the page again
    assert page.locator("#quarantine").is_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#retry")
    page.locator("#progress .badge.queued").wait_for()
    assert not lake.batches.result_positions(batch.id)
    page.click("#cancel")
    page.locator("#progress .badge.cancelled").wait_for()
    assert lake.batches.is_cancelled(batch.id)


def test_folders_keep_their_paths(page: Any, lake: Lake, tmp_path: Path) -> None:
    wav(tmp_path, "talks/monday/a.wav", 660.0)
    (tmp_path / "talks" / ".DS_Store").write_bytes(b"x")
    page.goto("/batches/new")
    page.set_input_files("#folder", tmp_path / "talks")
    page.get_by_text("Files: 1").wait_for()
    page.fill("#name", "a-folder")
    page.click("#start")
    page.wait_for_url("**/batches/b_*")
    assert [source.name for source in lake.batches.get("a-folder").sources] == ["talks/monday/a.wav"]


def test_a_batch_is_added_to_and_deleted(page: Any, lake: Lake, tmp_path: Path) -> None:
    page.goto("/batches/new")
    page.set_input_files("#files", wav(tmp_path, "first.wav", 880.0))
    page.fill("#name", "growing")
    page.click("#start")
    page.wait_for_url("**/batches/b_*")
    page.get_by_role("link", name="Add recordings").click()
    page.get_by_role("heading", name="Add recordings to growing").wait_for()
    page.set_input_files("#files", [wav(tmp_path, "again.wav", 880.0), wav(tmp_path, "second.wav", 990.0)])
    page.click("#start")
    page.wait_for_url("**/batches/b_*")
    batch = lake.batches.get("growing")
    assert page.url.endswith(batch.id)
    assert [source.name for source in batch.sources] == ["first.wav", "second.wav"]  # again.wav is first.wav
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#cancel")
    page.locator("#progress .badge.cancelled").wait_for()
    page.reload()
    page.get_by_role("link", name="See what deleting this batch would free").click()
    page.get_by_role("row", name="uploads 1", exact=True).wait_for()  # the first batch of the name has the other file
    page.click("#delete")
    page.get_by_role("heading", name="Batches").wait_for()
    assert batch.id not in lake.batches.ids()


def test_too_much_is_refused_before_it_is_sent(page: Any, tmp_path: Path) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(LIMIT + 1))
    page.goto("/batches/new")
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.set_input_files("#files", tmp_path / "large.wav")
    page.get_by_text("large.wav alone has 1.0 MB").wait_for()
    page.click("#start")
    page.locator("#problem").get_by_text("this server takes 1.0 MB").wait_for()
    assert not posts


def test_a_lost_connection_and_a_lost_session_are_said(page: Any, lake: Lake, tmp_path: Path) -> None:
    page.goto("/batches/new")
    page.set_input_files("#files", wav(tmp_path, "c.wav", 770.0))
    page.fill("#name", "lost")
    page.route("**/v1/batches", lambda route: route.abort("connectionreset"))
    page.click("#start")
    page.get_by_text("The connection was lost before everything was sent").wait_for()
    page.unroute("**/v1/batches")
    page.route(
        "**/v1/batches",
        lambda route: route.fulfill(status=401, json={"code": "unauthorized", "detail": "a valid key is required"}),
    )
    page.click("#start")
    page.get_by_text("Your session has ended").wait_for()
    page.unroute("**/v1/batches")
    page.click("#start")  # what was chosen is still there
    page.wait_for_url("**/batches/b_*")
    assert len(lake.batches.get("lost").sources) == 1


def test_what_the_server_refuses_is_said_in_its_words(page: Any) -> None:
    page.goto("/batches/new")
    page.click("#start")
    page.get_by_text("Choose files, or give URIs.").wait_for()
    page.fill("#uris", '{"audio_filepath": "file:///etc/passwd"}\n')
    page.click("#start")
    page.locator("#problem").get_by_text("/etc/passwd").wait_for()
    page.fill("#uris", '{"text": "no address"}')
    page.click("#start")
    page.get_by_text("Line 1 has no address of audio").wait_for()


def test_rows_of_a_dataset_are_heard(page: Any) -> None:
    page.goto("/datasets/talks?seed=1")
    heard = """audio => new Promise((resolve) => {
        audio.addEventListener("timeupdate", () => audio.currentTime > 0.2 && resolve(audio.currentTime));
        audio.play();
    })"""
    assert page.locator("audio").first.evaluate(heard) > 0.2
    page.click("#draw")
    page.wait_for_url("**seed=2")


def test_the_curves_of_a_run_are_drawn(page: Any) -> None:
    page.goto("/runs/first")
    page.locator("#curves canvas").first.wait_for()
    assert page.locator("#curves .u-value:visible").count() == 0
    page.locator("#curves .u-over").first.hover()
    assert page.locator("#curves .u-value:visible").count() > 1
    assert page.locator("#curves figcaption").all_inner_texts() == [
        "loss",
        "gradient norm",
        "learning rate",
        "tokens/s",
    ]


PAGES = [
    "/", "/batches/new", "/batches/new?add=lectures", "/batches/lectures", "/batches/lectures/delete", "/datasets",
    "/datasets/talks?seed=1", "/runs", "/runs/first", "/fleet", "/keys", "/audit-log",
]  # fmt: skip


@pytest.mark.parametrize(("language", "theme"), [("en", "light"), ("zh-Hant", "dark")])
def test_no_page_has_a_serious_obstacle(page: Any, language: str, theme: str) -> None:
    page.goto(f"/preferences?language={language}&theme={theme}&next=/")
    for path in PAGES:
        page.goto(path)
        page.locator("h1").wait_for()
        found = AXE.Axe().run(page).response["violations"]
        grave = [(path, each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in found
                 if each["impact"] in ("serious", "critical")]  # fmt: skip
        assert not grave


def test_pages_fit_into_800_pixels(page: Any) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 800, path


def test_a_key_is_made_on_its_page(browser: Any, tmp_path: Path, redis_url: str) -> None:
    lake = Lake(str(tmp_path / "lake"))
    with serve(create_app(Settings(store=lake.files.root, redis_url=redis_url, _env_file=None))) as url:
        page = browser.new_page(base_url=url, locale="en-US")
        page.goto("/keys")
        page.fill("#name", "ada")
        page.select_option("#role", "admin")
        page.get_by_role("button", name="Make a key").click()
        secret = page.locator("#secret").inner_text()
        assert re.fullmatch(r"k2d_[0-9a-f]{12}_[\w-]{43}", secret)
        page.get_by_role("link", name="Sign in").click()
        page.fill("#key", secret)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Batches").wait_for()
        assert "ada" in page.locator(".who").inner_text()
        page.close()

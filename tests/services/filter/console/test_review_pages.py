"""The pages of reviews: what they show and refuse; in a real Chromium, reviewing by keyboard with sound."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from console import serve
from local_client import LocalClient
from reviewing import reviewable

from k2d.cli import calibrate, housekeeping
from k2d.corpus.calibration.desk import calibrate_draw, next_segments, progress_of, store_review
from k2d.corpus.calibration.draws import DrawnBatchDeleted, LabelsDeleted, open_draw
from k2d.corpus.deletion import delete_batch, plan_deletion
from k2d.documents import ReviewRequest
from k2d.errors import NotFound
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from k2d.store.reviews import ReviewVerdict, current
from services.filter.app import create_app
from services.filter.console.curve import curve_picture

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Path, str, str]:
    root = tmp_path_factory.mktemp("reviewable") / "lake"
    _, batch, draw = reviewable(str(root))
    return root, batch.id, draw.id


@pytest.fixture
def lake(template, tmp_path) -> Lake:
    shutil.copytree(template[0], tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def app_of(lake: Lake, **more: Any) -> Any:
    return create_app(Settings(store=str(lake.files.root), _env_file=None, **more))


@pytest.fixture
def console(lake) -> Iterator[LocalClient]:
    with LocalClient(app_of(lake)) as client:
        yield client


def counted(lake: Lake, draw_id: str) -> list[tuple[ReviewVerdict, str | None]]:
    """What counts, in the order in which it was said."""
    reviews = current(lake.reviews.of_labels(open_draw(lake, draw_id).label_keys))
    return [(own.verdict, own.reference) for own in sorted(reviews, key=lambda own: own.at)]


# ---- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh-Hant"])
def test_every_page_of_reviews_is_shown(console, template, language):
    _, batch, draw = template
    console.cookies.set("k2d_language", language)
    listed = console.get("/review").text
    assert draw in listed
    assert console.get(f"/review/{batch}").url.path == "/review"
    page = console.get(f"/review/{draw}").text
    assert ("Random order" in page) == (language == "en")
    assert "<h1>" not in console.get(f"/review/{draw}/progress").text  # a part, not a page
    assert console.get("/review/d_0000000000000000").status_code == 404
    assert console.get("/review/nothing").status_code == 404


def test_a_draw_is_made_from_the_form_once(console, lake, template):
    _, batch, draw = template
    token = {"X-CSRF-Token": re.search(r'data-csrf="([0-9a-f]+)"', console.get("/review").text)[1]}
    form = {"batch": [batch], "count": "60", "seed": "1", "order": "random", "policy": "evidence"}
    for _ in range(2):
        answer = console.post("/review", data=form, headers={"HX-Request": "true", **token})
        assert answer.headers["hx-redirect"] == f"/review/{draw}"
    assert {(own["action"], own["target"]) for own in lake.audit_log.entries()} == {("draw", f"/review/{draw}")}
    refused = console.post("/review", data=form | {"policy": "/etc/passwd"}, headers={"HX-Request": "true", **token})
    assert refused.status_code == 400
    assert console.post("/review", data=form).status_code == 403  # without the session's token


def test_a_viewer_sees_but_does_not_review(lake, template):
    secret = lake.access.create("eve", AccessRole.VIEWER, created_by="test")[1]
    client = LocalClient(app_of(lake), headers={"Authorization": f"Bearer {secret}"})
    page = client.get(f"/review/{template[2]}").text
    assert "needs a key with the role reviewer" in page
    assert 'data-may="false"' in page
    assert client.post(f"/review/{template[2]}/calibrations", data={}).status_code == 403


def test_a_draw_whose_labels_were_deleted_says_so_and_keeps_its_answers(lake, template, monkeypatch):
    monkeypatch.setenv("K2D_STORE", str(lake.files.root))
    _, batch_id, draw = template
    segments = next_segments(lake, draw, reviewer="ada", limit=40).segments
    for number, segment in enumerate(segments[:25]):
        store_review(lake, ReviewRequest(id=f"answer-{number:03}", segment=segment.id, verdict="right"), reviewer="ada")
    calibration = calibrate_draw(lake, open_draw(lake, draw), target=0.3, confidence=0.9, name="mine", by="ada")
    batch = lake.batches.get(batch_id)
    delete_batch(lake, plan_deletion(lake, batch))
    check_deleted_draw(lake, draw, calibration.id)
    lake.batches.put(batch)  # posted again, and not labeled yet
    check_deleted_draw(lake, draw, calibration.id)


def test_a_review_goes_on_while_another_batch_has_its_labels(lake, template, monkeypatch, capsys):
    monkeypatch.setenv("K2D_STORE", str(lake.files.root))
    _, batch_id, draw = template
    batch = lake.batches.get(batch_id)
    lake.batches.put(replace(batch, id="b_more", name="more"))  # as `k2d label --add` makes it
    for position, result in enumerate(lake.batches.results(batch_id)):
        lake.batches.put_result("b_more", replace(result, position=position))
    housekeeping.delete(batch_id)
    assert "1 draw for review can be calibrated over it no more" in " ".join(capsys.readouterr().out.split())
    delete_batch(lake, plan_deletion(lake, batch))
    with LocalClient(app_of(lake)) as console:
        page = console.get(f"/review/{draw}").text
        assert "A batch of this review was deleted" in page
        assert f"<code>k2d calibrate {draw} BATCH</code>" in page
        assert "review.js" in page
        assert f'hx-post="review/{draw}/calibrations"' not in page
        segments = console.get(f"/v1/draws/{draw}/segments?limit=50").json()["segments"]
        assert console.get("/" + segments[0]["audio"]).status_code == 200
        said = [{"id": f"answer-{at:03}", "segment": own["id"], "verdict": "right"} for at, own in enumerate(segments)]
        assert console.post("/v1/reviews", json={"reviews": said}).status_code == 201
        assert "can probably be claimed now" not in console.get(f"/review/{draw}/progress?target=30").text
        refused = console.post(f"/v1/draws/{draw}/calibrations", json={}).json()
        assert (refused["code"], refused["batch"]) == ("drawn_batch_deleted", batch_id)
        assert f"k2d calibrate {draw} BATCH" in refused["hint"]
    with pytest.raises(DrawnBatchDeleted):
        calibrate.calibrate(draw)
    calibrate.calibrate(draw, ["more"], target=0.3, confidence=0.9)
    with pytest.raises(NotFound, match="no batch is called 'nothing'"):
        calibrate.calibrate(draw, ["nothing"])


def check_deleted_draw(lake: Lake, draw: str, calibration: str) -> None:
    with LocalClient(app_of(lake)) as console:
        page = console.get(f"/review/{draw}").text
        assert "The labels of this review were deleted" in page
        assert "Draw segments anew" in page
        assert "calibrate." not in page  # as what could be claimed
        assert "review.js" not in page  # nothing is loaded, and nothing fails
        assert f"calibrations/{calibration}" in page
        assert "review/" + draw in console.get("/review").text
        if not lake.batches.ids():
            assert "batch deleted" in console.get("/review").text
            assert "/explore?policy" not in console.get(f"/review/{draw}/calibrations/{calibration}").text
        head, *rows = map(json.loads, console.get(f"/review/{draw}/answers.jsonl").text.splitlines())
        assert head["segments"] == len(rows)
        assert sum(row["correct"] is True for row in rows) == 25
        token = {"X-CSRF-Token": re.search(r'data-csrf="([0-9a-f]+)"', page)[1], "HX-Request": "true"}
        refused = console.post(f"/review/{draw}/calibrations", data={}, headers=token)
        assert (refused.status_code, "labels of this review were deleted" in refused.text) == (404, True)
        answers = [console.get(f"/v1/draws/{draw}/segments"), console.get(f"/v1/segments/{rows[0]['id']}/audio")]
        answers.append(console.get(f"/v1/draws/{draw}/calibrations/nothing"))
        assert [answer.status_code for answer in answers] == [404] * 3
        for answer in (refused, *answers):
            assert str(lake.files.root) not in answer.text
            assert ".parquet" not in answer.text
            assert ".json" not in answer.text
    with pytest.raises(LabelsDeleted, match="labels of draw"):
        calibrate.calibrate(draw)


def test_a_curve_is_laid_out_within_its_picture():
    points = [
        {"alpha": 0.1, "share": share, "label_mer": mer, "lower": 0.0, "upper": 1.0, "proved": share < 0.5}
        for share, mer in ((0.1, None), (0.4, 0.05), (1.0, 0.3))
    ]
    picture = curve_picture(points, 0.08)
    xy = [tuple(map(float, pair.split(","))) for pair in f"{picture.band} {picture.line}".split()]
    assert all(0 <= x <= 640 and 0 <= y <= 280 for x, y in xy)
    assert picture.proved_x is not None
    assert curve_picture(points[:1], 0.08) is None


# ---- in a browser -------------------------------------------------------------------------------------------------


class Reviewer:
    """Somebody at the page of a draw."""

    def __init__(self, page: Any, address: str, *, number: int = 0) -> None:
        self.page, self.errors = page, []
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        self.hears(number)

    def number(self) -> int:
        return int(re.search(r"\d+", self.page.inner_text("#place"))[0]) - 1

    def hears(self, number: int) -> None:
        """Wait until the segment is shown and its sound moves."""
        self.page.wait_for_function(
            "n => { const clip = document.querySelector('#player audio');"
            " return clip && document.getElementById('place').textContent.match(/\\d+/)?.[0] == n + 1"
            " && clip.currentTime > 0; }",
            arg=number,
        )
        self.page.wait_for_timeout(350)  # an answer sooner than that is the end of a double click

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def is_stored(self) -> None:
        self.page.wait_for_function("() => document.getElementById('state').textContent.includes('stored')")


@pytest.mark.integration
def test_twenty_segments_are_reviewed_by_keyboard_and_calibrated(browser, lake, template):
    draw = template[2]
    items = next_segments(lake, draw, reviewer="x", limit=50).segments
    with serve(app_of(lake)) as url:
        reviewer = Reviewer(browser.new_page(), f"{url}/review/{draw}")
        reviewer.page.evaluate(  # a double press: both within a moment
            "for (const key of ['Enter', 'Enter'])"
            " document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
        )
        reviewer.hears(1)
        reviewer.press("u")
        reviewer.hears(0)
        for number, item in enumerate(items[:20]):
            assert reviewer.number() == number
            reviewer.press("1" if item.candidates else "Enter")
            reviewer.hears(number + 1)
        reviewer.is_stored()
        said = counted(lake, draw)
        wanted = [
            (ReviewVerdict.TEXT, own.candidates[0].text) if own.candidates else (ReviewVerdict.RIGHT, None)
            for own in items[:20]
        ]
        assert said == wanted
        for item in items[20:]:
            store_review(
                lake, ReviewRequest(id=f"rest-{item.number:05d}", segment=item.id, verdict="right"), reviewer="x"
            )
        page = reviewer.page
        page.fill("#target", "30")
        page.fill("#confidence", "90")
        page.click("#calibrate button")
        page.wait_for_url("**/calibrations/*")
        assert "label MER ≤ 30.0%" in page.inner_text("main")
        assert page.locator("polygon.band").count() == 1
        assert reviewer.errors == []


@pytest.mark.integration
def test_progress_follows_every_answer_and_every_undo(browser, lake, template):
    with serve(app_of(lake)) as url:
        page = browser.new_page()
        reviewer = Reviewer(page, f"{url}/review/{template[2]}")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/progress" in request.url else None)

        def counts(number: int) -> None:
            page.wait_for_function(
                "n => document.getElementById('progress').textContent.includes(` ${n} of `) ||"
                " document.getElementById('progress').textContent.trim().startsWith(`${n} of `)",
                arg=number,
            )

        for number in range(1, 4):
            reviewer.press("Enter")
            counts(number)
            reviewer.hears(number)
        reviewer.press("u")
        counts(2)
        reviewer.hears(2)
        reviewer.press("n")
        counts(3)
        page.wait_for_load_state("networkidle")
        assert len(asked) == 5  # one a change
        held: list[Any] = []  # a server that is slow the first time, and somebody who is fast
        page.route("**/progress*", lambda route: route.continue_() if held else held.append(route))
        for number in range(4, 9):
            reviewer.hears(number - 1)
            reviewer.press("Enter")
        reviewer.is_stored()
        page.wait_for_function("() => !Object.keys(localStorage).some(key => key.startsWith('k2d-review'))")
        assert len(asked) == 6  # none beside the one that is on its way
        with page.expect_request("**/progress*"):
            held[0].continue_()
        counts(8)
        page.wait_for_load_state("networkidle")
        assert len(asked) == 7  # and one for the answers that came meanwhile
        assert reviewer.errors == []


@pytest.mark.integration
def test_a_label_is_edited_with_stops_for_tab(browser, lake, template):
    draw = template[2]
    items = next_segments(lake, draw, reviewer="x", limit=50).segments
    number, item = next((own.number, own) for own in items if len(own.stops) == 2)
    for own in items[:number]:
        store_review(lake, ReviewRequest(id=f"before-{own.number:05d}", segment=own.id, verdict="right"), reviewer="x")
    with serve(app_of(lake)) as url:
        reviewer = Reviewer(browser.new_page(), f"{url}/review/{draw}", number=number)
        selected = "(() => { const t = document.getElementById('text'); return [t.selectionStart, t.selectionEnd]; })()"
        reviewer.press("e")
        assert reviewer.page.input_value("#text") == item.label
        assert reviewer.page.evaluate(selected) == list(item.stops[0])
        reviewer.page.keyboard.type("gradients")  # one letter more than the selected word
        reviewer.press("Tab")
        shifted = [at + 1 for at in item.stops[1]]
        assert reviewer.page.evaluate(selected) == shifted
        reviewer.page.keyboard.insert_text("了")
        reviewer.press("Enter")
        reviewer.hears(number + 1)
        reviewer.is_stored()
        assert counted(lake, draw)[-1] == (ReviewVerdict.TEXT, "把 gradients 算出來了")


@pytest.mark.integration
def test_answers_outlast_a_lost_connection_and_a_reload(browser, lake, template):
    draw = template[2]
    with serve(app_of(lake)) as url:
        page = browser.new_page()
        reviewer = Reviewer(page, f"{url}/review/{draw}")
        lost: list[str] = []
        page.route("**/v1/reviews", lambda route: (lost.append(route.request.post_data), route.abort()))
        reviewer.press("n")
        reviewer.hears(1)
        page.wait_for_function("() => document.getElementById('state').className === 'error'")
        assert counted(lake, draw) == []
        assert json.loads(lost[0])["reviews"][0]["verdict"] == "nothing"
        page.unroute("**/v1/reviews")
        page.reload()
        page.wait_for_function("() => Object.keys(localStorage).filter(k => k.startsWith('k2d-review')).length === 0")
        assert counted(lake, draw) == [(ReviewVerdict.NOTHING, None)]
        reviewer.hears(1)


@pytest.mark.integration
def test_an_ended_session_keeps_the_answers_until_someone_signs_in(browser, lake, template):
    secret = lake.access.create("ada", AccessRole.REVIEWER, created_by="test")[1]
    draw = template[2]
    with serve(app_of(lake)) as url:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)

        def sign_in() -> None:
            page.fill("#key", secret)
            page.click("main button[type=submit]")
            page.wait_for_url(f"{url}/review/{draw}")

        page.goto(f"{url}/review/{draw}")
        sign_in()
        reviewer = Reviewer(page, f"{url}/review/{draw}")
        context.clear_cookies()
        reviewer.press("Enter")
        page.wait_for_selector("#state a")
        assert counted(lake, draw) == []
        page.click("#state a")
        sign_in()
        page.wait_for_function("() => Object.keys(localStorage).filter(k => k.startsWith('k2d-review')).length === 0")
        assert counted(lake, draw) == [(ReviewVerdict.RIGHT, None)]
        context.close()


def of_a_deleted_batch(lake: Lake, draw: str) -> bytes:
    """The document of a draw, with another batch in place of its own."""
    return lake.files.read(f"draws/{draw}.json").replace(open_draw(lake, draw).head.batches[0].encode(), b"b_gone")


@pytest.mark.integration
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_reviews_have_no_serious_fault_for_screen_readers(browser, lake, template, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    draw = template[2]
    progress = progress_of(lake, open_draw(lake, draw), reviewer="x")
    assert progress.reviewed == 0
    for item in next_segments(lake, draw, reviewer="x", limit=50).segments[:-3]:
        store_review(lake, ReviewRequest(id=f"axe-{item.number:05d}", segment=item.id, verdict="right"), reviewer="x")
    with serve(app_of(lake)) as url:
        for language in ("en", "zh-Hant"):
            context = browser.new_context(color_scheme=scheme)
            context.add_cookies([{"name": "k2d_language", "value": language, "url": url}])
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto(f"{url}/review/{draw}")
            page.click("#calibrate button")
            page.wait_for_url("**/calibrations/*")
            lake.files.write("draws/d_0000000000000000.json", of_a_deleted_batch(lake, draw))
            for address in (page.url, *(f"{url}/review{own}" for own in ("", f"/{draw}", "/d_0000000000000000"))):
                page.goto(address)
                found = axe.run(page).response["violations"]
                bad = [
                    (own["id"], own["nodes"][0]["html"]) for own in found if own["impact"] in ("serious", "critical")
                ]
                assert bad == [], (address, language)
            context.close()

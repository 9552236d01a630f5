"""The explorer's handlers over a real lake: the API's numbers, wrong addresses refused, hostile texts shown."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from factories import finished_batch
from hostile import HOSTILE, HOSTILE_TEXTS
from local_client import LocalClient

from k2d.filtering.policy import DEFAULT, PAPER, RULES
from k2d.filtering.policy.risk import FEATURES
from k2d.schema import Reason, Script
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app
from services.filter.console.verdicts import EVIDENCE, REASONS
from services.filter.console.words import table

EXPLORE = "/batches/lectures/explore"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("console") / "lake"
    lake = Lake(str(root))
    finished_batch(lake, recordings=10)
    finished_batch(lake, name="hostile", recordings=2, names=[HOSTILE + ".wav", "a/../b\n.wav"], texts=HOSTILE_TEXTS)
    return root


@pytest.fixture(scope="module")
def console(store: Path) -> Iterator[LocalClient]:
    with LocalClient(create_app(Settings(store=str(store), _env_file=None))) as client:
        yield client


def test_the_curve_has_the_numbers_of_a_preview(console: LocalClient) -> None:
    curve = console.get(f"{EXPLORE}/curve.json").json()
    assert (curve["chunks"], len(curve["kept"]), curve["sample"]) == (40, 1001, 1.0)
    for alpha in (0.05, 0.3, 0.9):
        body = {"batches": ["lectures"], "policy": DEFAULT.varied(alpha=alpha).model_dump(mode="json")}
        preview = console.post("/v1/policies/preview", json=body).json()
        step = round(1000 * alpha)
        assert curve["kept"][step] == preview["chunks"]["accepted"]
        assert curve["kept_ms"][step] == round(1000 * preview["seconds"]["accepted"])
        assert curve["salvaged_ms"][step] == round(1000 * preview["seconds"]["salvaged"])


def test_a_rule_that_is_off_rejects_nothing(console: LocalClient) -> None:
    own = console.get("/batches/hostile/explore/curve.json").json()
    off = console.get("/batches/hostile/explore/curve.json?rules=1&on=empty").json()
    assert set(own["rules"]) > set(off["rules"]) == {"empty", "teacher_repetition"}
    assert off["kept"][-1] > own["kept"][-1]
    assert not any(off["salvaged_ms"])


def test_there_is_a_curve_for_each_preset_and_measure(console: LocalClient) -> None:
    series = console.get(f"{EXPLORE}/measures.json").json()["series"]
    assert {one["label"] for one in series if one["kind"] == "preset"} == {"evidence", "paper"}
    assert {one["label"] for one in series if one["kind"] == "measure"} >= {"MER", "PER", "composite"}
    assert all(len(one["ms"]) == 201 for one in series)
    chinese = console.get(f"{EXPLORE}/measures.json", headers={"Accept-Language": "zh-TW"}).json()["series"]
    labels = {one["label"] for one in chinese if one["kind"] == "measure"}
    assert labels >= {"MER", "綜合距離"}
    assert not labels & {"composite", "bounded MER"}
    rows = list(csv.DictReader(io.StringIO(console.get(f"{EXPLORE}/curve.csv").content.decode("utf-8-sig"))))
    assert {row["kind"] for row in rows} == {"policy", "preset", "measure"}
    at = next(row for row in rows if row["kind"] == "policy" and row["alpha"] == "0.300")
    curve = console.get(f"{EXPLORE}/curve.json").json()
    assert int(at["chunks_kept"]) == curve["kept"][300]
    assert float(at["hours_kept"]) == pytest.approx(curve["kept_ms"][300] / 3.6e6, abs=1e-6)


def test_a_spreadsheet_takes_no_name_for_a_formula(console: LocalClient) -> None:
    policy = quote('{"name": "=cmd|1", "metric": "per"}')
    answer = console.get(f"{EXPLORE}/curve.csv?policy={policy}")
    assert "attachment" in answer.headers["content-disposition"]
    assert "policy,'=cmd|1,0.000" in answer.text


def test_the_page_says_what_its_address_says(console: LocalClient) -> None:
    query = {"policy": "paper", "alpha": "0.25", "metric": "per", "rules": "1", "show": "flips", "other": "evidence"}
    page = console.get(f"{EXPLORE}?{urlencode(query)}&on=unconfirmed&batch=hostile").text
    assert '<option value="paper" selected>' in page
    assert '<option value="per" selected>' in page
    assert 'name="alpha" type="number" min="0" max="1" step="any" value="0.25"' in page
    assert re.findall(r'name="on" value="(\w+)" checked', page) == ["unconfirmed"]
    assert re.search(r'value="flips" checked', page)
    assert '<a href="batches/' in page
    assert ">hostile</a>" in page


@pytest.mark.parametrize("query", ["", "show=yield", "show=flips&other=paper", "policy=paper&show=boundary"])
@pytest.mark.parametrize("batch", ["lectures", "hostile"])
def test_parts_below_the_curve(console: LocalClient, batch: str, query: str) -> None:
    part = console.get(f"/batches/{batch}/explore/panel?{query}", headers={"HX-Request": "true"})
    assert part.status_code == 200
    assert "<img" not in part.text
    assert "<script" not in part.text
    assert "<b>" not in part.text


def test_flips_are_paged_and_chosen_by_side(console: LocalClient) -> None:
    address = f"{EXPLORE}/panel?show=flips&alpha=1&other=evidence&other_alpha=0&rules=1"
    first = console.get(address).text
    cursor = re.search(r'data-cursor="([\w=-]+)"', first)
    assert cursor is not None
    second = console.get(f"{address}&cursor={cursor[1]}").text
    rows = [re.findall(r'href="chunks/([\w-]+)', text) for text in (first, second)]
    assert [len(one) for one in rows] == [20, 10]
    assert not set(rows[0]) & set(rows[1])
    assert "No chunk on this side" in console.get(f"{address}&side=second").text


NONSENSE = [
    "alpha=2",
    "alpha=x",
    "alpha=nan",
    "alpha=-0.1",
    "metric=none",
    "policy=none",
    "policy=../../etc/passwd",
    "policy=%7B",
    "policy=%7B%22alpha%22%3A%22x%22%7D",
    "policy=paper&metric=evidence",
    "own=a%0Ab",
    "own=" + "x" * 4001,
    "rules=1&on=none",
    "show=none",
    "side=none",
    "other=none",
    "other_alpha=7",
]


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_in_an_address_is_an_error_page(console: LocalClient, query: str) -> None:
    page = console.get(f"{EXPLORE}?{query}")
    assert page.status_code == 400
    assert 'class="notice error"' in page.text
    part = console.get(f"{EXPLORE}/panel?{query}&show=flips", headers={"HX-Request": "true"})
    assert part.status_code in (200, 400)  # `show` and `side` are given twice here, and the last one counts


@pytest.mark.parametrize("address", ["/batches/none/explore", "/batches/lectures/explore?batch=none"])
def test_a_batch_that_is_not_there(console: LocalClient, address: str) -> None:
    assert console.get(address).status_code == 404


def test_more_batches_than_can_be_explored_are_refused(console: LocalClient) -> None:
    many = "&".join(f"batch=b{number}" for number in range(200))
    assert console.get(f"{EXPLORE}?{many}").status_code == 400


@pytest.mark.parametrize("path", ["", "/panel", "/panel?show=flips&other=paper"])
def test_a_policy_with_a_hostile_name_is_shown(console: LocalClient, path: str) -> None:
    own = {"own": '{"name": "<script>alert(1)</script>", "metric": "per", "alpha": 0.2}'}
    text = console.get(f"{EXPLORE}{path}{'&' if '?' in path else '?'}{urlencode(own)}").text
    assert "<script>alert" not in text


def test_every_value_on_these_pages_has_a_translation() -> None:
    words = table("zh-Hant")
    values = {str(reason).replace("_", " ") for reason in Reason} | set(REASONS.values()) | set(EVIDENCE.values())
    values |= {str(script) for script in Script}
    assert not values - words.keys()
    assert set(REASONS) == set(Reason)
    assert set(EVIDENCE) == {"bias", *FEATURES}
    assert set(RULES) <= set(REASONS)


# ---- freezing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(store: Path, redis_url: str) -> Iterator[LocalClient]:
    app = create_app(Settings(store=str(store), redis_url=redis_url, _env_file=None))
    app.state.queue.redis.flushall()
    with LocalClient(app) as client:
        token = re.search(r'data-csrf="([0-9a-f]+)"', client.get(EXPLORE).text)
        assert token is not None
        client.headers.update({"X-CSRF-Token": token[1], "HX-Request": "true"})
        yield client


@pytest.mark.integration
def test_what_the_page_shows_is_frozen(operator: LocalClient) -> None:
    fields = {"name": "first", "alpha": "0.25", "policy": "paper", "rules": "1", "on": ["empty"], "batch": "hostile"}
    answer = operator.post(f"{EXPLORE}/freeze", data=fields)
    assert answer.status_code == 200
    assert 'href="datasets/first"' in answer.text
    job = operator.app.state.queue.latest("freeze:first")
    name, batches, policy = job.args[:3]
    assert (name, len(batches)) == ("first", 2)
    assert (policy["metric"], policy["alpha"], policy["reject_empty"]) == (PAPER.metric, 0.25, True)
    again = operator.post(f"{EXPLORE}/freeze", data=fields)  # a double click
    assert again.status_code == 200
    taken = operator.post(f"{EXPLORE}/freeze", data=fields | {"alpha": "0.3"})
    assert taken.status_code == 409
    assert "another dataset “first”, made of something else" in taken.text
    assert "take another name" in taken.text


@pytest.mark.integration
@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "<b>", "x" * 101])
def test_a_name_that_is_none_is_refused(operator: LocalClient, name: str) -> None:
    answer = operator.post(f"{EXPLORE}/freeze", data={"name": name})
    assert answer.status_code == 400
    assert "<b>" not in answer.text


@pytest.mark.integration
def test_without_the_sessions_token_nothing_is_frozen(operator: LocalClient) -> None:
    del operator.headers["X-CSRF-Token"]
    assert operator.post(f"{EXPLORE}/freeze", data={"name": "forged"}).status_code == 403

"""The API's reviews: draws, the next segments, answers stored once, second reviews, calibration."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import soundfile
from local_client import LocalClient
from reviewing import reviewable

from k2d.cli import audit, calibrate, validators
from k2d.client import Client
from k2d.client.http import ApiError
from k2d.corpus import agreement
from k2d.documents import MOST_COMPARED
from k2d.errors import BadRequest
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from services.filter.app import create_app


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Path, str, str]:
    """A store, the id of its batch, and of a draw."""
    root = tmp_path_factory.mktemp("reviewable") / "lake"
    _, batch, draw = reviewable(str(root))
    return root, batch.id, draw.id


@pytest.fixture
def lake(template, tmp_path) -> Lake:
    shutil.copytree(template[0], tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def api(lake) -> Iterator[LocalClient]:
    with LocalClient(create_app(Settings(store=str(lake.files.root), _env_file=None))) as client:
        yield client


@pytest.fixture
def draw(template) -> str:
    return template[2]


def answer(number: int, segment: str, verdict: str = "right", **more) -> dict:
    return {"id": f"answer-{number:04d}", "segment": segment, "verdict": verdict, **more}


def post(api, *reviews, **more):
    return api.post("/v1/reviews", json={"reviews": list(reviews)}, **more)


def segments(api, draw, **query) -> dict:
    answer = api.get(f"/v1/draws/{draw}/segments", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_draw_is_made_once(api, template):
    body = {"batches": [template[1], "lectures"], "count": 60, "seed": 1}
    first = api.post("/v1/draws", json=body)
    assert first.status_code == 201, first.text
    assert first.json()["id"] == api.post("/v1/draws", json=body).json()["id"] == template[2]
    assert first.headers["location"] == f"/v1/draws/{template[2]}"
    other = api.post("/v1/draws", json=body | {"seed": 2}).json()["id"]
    listed = [own["id"] for own in api.get("/v1/draws", params={"batch": "lectures"}).json()["draws"]]
    assert sorted(listed) == sorted([template[2], other])


def test_draws_that_make_no_sense_are_refused(api):
    assert api.post("/v1/draws", json={"batches": ["lectures"], "count": 3}).status_code == 400
    assert api.post("/v1/draws", json={"batches": ["nothing"]}).status_code == 404
    assert api.post("/v1/draws", json={"batches": []}).status_code == 422
    assert api.get("/v1/draws/d_0000000000000000").status_code == 404
    assert api.get("/v1/draws/..%2f..%2faccess/segments").status_code in (404, 403)


def test_segments_come_in_the_order_of_the_draw_with_what_a_reviewer_needs(api, draw):
    first = segments(api, draw, limit=4)
    rest = segments(api, draw, after=first["segments"][-1]["number"], limit=50)
    assert [own["number"] for own in first["segments"] + rest["segments"]] == list(range(first["left"]))
    item = next(own for own in rest["segments"] if own["candidates"])
    assert item["label"] == "把 gradient 算出來"
    assert [own["text"] for own in item["candidates"]] == ["把 gradients 算出來了"]
    assert [item["label"][start:end] for start, end in item["stops"]] == ["gradient", ""]


def test_a_segment_s_audio_is_cut_to_it(api, draw):
    item = segments(api, draw)["segments"][0]
    clip = api.get("/" + item["audio"])
    assert clip.headers["content-type"] == "audio/flac"
    samples, rate = soundfile.read(io.BytesIO(clip.content))
    assert len(samples) / rate == pytest.approx(item["end_s"] - item["start_s"])
    assert api.get("/" + item["audio"], params={"around": 99}).status_code == 422
    assert api.get("/v1/segments/nothing/audio").status_code == 404
    assert api.get(f"/v1/segments/{item['id'][:-3]}999/audio").status_code == 404


def test_an_answer_is_stored_once_and_the_segment_does_not_come_again(api, draw):
    item = segments(api, draw)["segments"][0]
    for _ in range(2):
        stored = post(api, answer(1, item["id"], draw=draw, seconds=3.21))
        assert stored.status_code == 201, stored.text
    listed = api.get("/v1/reviews", params={"draw": draw}).json()["reviews"]
    assert [(own["verdict"], own["label"], own["seconds"], own["counts"]) for own in listed] == [
        ("right", item["label"], 3.21, True)
    ]
    assert segments(api, draw)["segments"][0]["number"] == 1
    assert api.get("/v1/reviews", params={"batch": "lectures"}).json()["reviews"] == listed


def test_an_answer_is_replaced_and_taken_back(api, draw):
    item = segments(api, draw)["segments"][0]
    post(api, answer(1, item["id"]), answer(2, item["id"], "text", reference="  改了\n 一下 "))
    reviews = api.get("/v1/reviews", params={"draw": draw}).json()["reviews"]
    assert [(own["reference"], own["counts"]) for own in reviews] == [(None, False), ("改了 一下", True)]
    post(api, answer(3, item["id"], "undone"))
    assert segments(api, draw)["segments"][0]["id"] == item["id"]


def test_impossible_answers_are_refused_and_those_before_them_stay(api, draw):
    first, second = segments(api, draw)["segments"][:2]
    refused = post(api, answer(1, first["id"]), answer(2, "f" * 32 + "-00001.000"))
    assert refused.status_code == 404
    assert segments(api, draw)["segments"][0]["id"] == second["id"]
    for bad in (
        answer(3, second["id"], "text"),
        answer(3, second["id"], "right", reference="x"),
        answer(3, second["id"].rpartition(".")[0]),
        answer(3, second["id"], "perhaps"),
        answer(3, second["id"]) | {"id": "../../x"},
        answer(3, second["id"], "text", reference="x" * 10_001),
        answer(3, second["id"], seconds=-1),
        answer(3, second["id"], draw="lectures"),
    ):
        assert post(api, bad).status_code in (400, 404, 422), bad
    assert api.post("/v1/reviews", json={"reviews": []}).status_code == 422
    assert len(api.get("/v1/reviews", params={"draw": draw}).json()["reviews"]) == 1
    assert api.get("/v1/reviews").status_code == 400


@pytest.fixture
def people(lake) -> dict[str, LocalClient]:
    """Clients of two reviewers and a viewer."""
    keys = {
        name: lake.access.create(name, role, created_by="test")[1]
        for name, role in (("ada", AccessRole.REVIEWER), ("bob", AccessRole.REVIEWER), ("eve", AccessRole.VIEWER))
    }
    app = create_app(Settings(store=str(lake.files.root), _env_file=None))
    return {name: LocalClient(app, headers={"Authorization": f"Bearer {key}"}) for name, key in keys.items()}


def test_reviewing_needs_the_role(people, draw):
    item = segments(people["eve"], draw)["segments"][0]
    assert post(people["eve"], answer(1, item["id"])).status_code == 403
    assert people["eve"].post("/v1/draws", json={"batches": ["lectures"]}).status_code == 403
    assert people["eve"].post(f"/v1/draws/{draw}/calibrations", json={}).status_code == 403
    assert post(people["ada"], answer(1, item["id"])).status_code == 201


def test_two_people_on_one_segment_are_two_reviews(people, draw):
    ada, bob = people["ada"], people["bob"]
    item = segments(ada, draw)["segments"][0]
    post(ada, answer(1, item["id"]))
    post(bob, answer(2, item["id"], "text", reference=item["label"] + "了"))
    progress = ada.get(f"/v1/draws/{draw}").json()
    assert (progress["reviewed"], progress["mine"], progress["right"]) == (1, 1, 0)  # the worse answer counts
    assert progress["agreement"]["pairs"] == 1
    assert progress["agreement"]["same"] == progress["agreement"]["verdicts"] == 0
    assert post(bob, answer(1, item["id"])).status_code == 409  # ada's id


def test_a_second_review_is_of_what_others_reviewed_without_their_answers(people, draw):
    ada, bob = people["ada"], people["bob"]
    items = segments(ada, draw)["segments"][:2]
    post(ada, *(answer(at, item["id"], "text", reference="secret") for at, item in enumerate(items)))
    assert segments(ada, draw, second=True)["segments"] == []
    offered = segments(bob, draw, second=True)
    assert [own["id"] for own in offered["segments"]] == [own["id"] for own in items]
    assert "secret" not in str(offered)
    post(bob, *(answer(10 + at, item["id"], "text", reference="secret") for at, item in enumerate(items)))
    assert bob.get(f"/v1/draws/{draw}").json()["agreement"]["same"] == 2


def test_a_deleted_batch_is_said_and_its_reviews_stay(api, lake, template, draw):
    item = segments(api, draw)["segments"][0]
    post(api, answer(1, item["id"]))
    lake.files.remove_folder(f"batches/{template[1]}")
    with LocalClient(create_app(Settings(store=str(lake.files.root), _env_file=None))) as other:
        assert segments(other, draw)["segments"]  # labels and facts are there
        gone = other.post(f"/v1/draws/{draw}/calibrations", json={})
        assert (gone.status_code, gone.json()["code"], gone.json()["draw"]) == (404, "drawn_batch_deleted", draw)
        assert other.get(f"/v1/draws/{draw}").json()["draw"]["deleted"] == [template[1]]
        assert other.get(f"/v1/draws/{draw}").json()["reviewed"] == 1
        lake.files.remove_folder("facts")
        assert post(other, answer(2, item["id"])).status_code == 404
        for gone in (other.get(f"/v1/draws/{draw}/segments"), other.post(f"/v1/draws/{draw}/calibrations", json={})):
            assert (gone.status_code, gone.json()["code"], gone.json()["draw"]) == (404, "labels_deleted", draw)


def test_calibration_by_the_reviews_of_a_draw(api, draw):
    items = segments(api, draw, limit=50)["segments"]
    post(
        api,
        *(
            answer(at, own["id"], "text", reference=own["candidates"][0]["text"])
            if own["candidates"]
            else answer(at, own["id"])
            for at, own in enumerate(items)
        ),
    )
    progress = api.get(f"/v1/draws/{draw}", params={"target": 0.3}).json()
    assert (progress["reviewed"], progress["draws"], progress["holes"]) == (len(items), 60, 0)
    assert progress["best"]["share"] > 0
    asked = {"target": 0.3, "confidence": 0.9, "name": "mine"}
    made = api.post(f"/v1/draws/{draw}/calibrations", json=asked)
    assert made.status_code == 201, made.text
    found = made.json()
    assert found["draws"] == 60
    assert found["alpha"] is not None
    assert "label MER ≤ 30.0% with 90% confidence" in found["policy"]["claim"]
    assert api.get(made.headers["location"]).json() == found
    assert api.post(f"/v1/draws/{draw}/calibrations", json=asked).json() == found  # the same, with its time
    post(api, answer(900, items[0]["id"], "nothing"))
    assert api.post(f"/v1/draws/{draw}/calibrations", json=asked).json()["id"] != found["id"]


def test_the_commands_draw_and_calibrate_by_an_api(api, draw, template, monkeypatch, capsys, tmp_path):
    client = Client("http://127.0.0.1")
    client.http = api
    for command in (audit, calibrate, validators):
        monkeypatch.setattr(command, "client_of", lambda _: client)
    monkeypatch.setenv("K2D_STORE", str(tmp_path / "no store"))
    calibrate.review([template[1]], count=30, api="http://127.0.0.1")
    shown = capsys.readouterr().out
    assert "/review/d_" in shown
    assert "--api http://127.0.0.1" in shown
    with pytest.raises(BadRequest, match="from the store itself"):
        calibrate.review([template[1]], out=tmp_path / "x.jsonl", api="http://127.0.0.1")
    items = segments(api, draw, limit=50)["segments"]
    post(api, *(answer(at, own["id"]) for at, own in enumerate(items)))
    calibrate.calibrate(draw, target=0.3, confidence=0.9, out=tmp_path / "mine.yaml", api="http://127.0.0.1")
    assert "label MER ≤ 30.0% with 90% confidence" in capsys.readouterr().out.replace("\n", " ")
    assert "claim: label MER" in (tmp_path / "mine.yaml").read_text("utf-8")
    audit.audit([template[1]], api="http://127.0.0.1")
    assert "seconds kept" in " ".join(capsys.readouterr().out.split())
    validators.validators([template[1]], as_json=True, api="http://127.0.0.1")
    compared = json.loads(capsys.readouterr().out)
    assert compared == asdict(agreement.compare(Lake(str(template[0])), [template[1]], most=MOST_COMPARED))
    assert compared["validators"][0]["validated"] == compared["chunks"] > 0
    with pytest.raises(ApiError, match='no batch is called "nobody\'s"'):
        validators.validators(["nobody's"], api="http://127.0.0.1")
    assert not (tmp_path / "no store").exists()


def test_segments_by_value_are_near_the_boundary_and_prove_nothing(api):
    made = api.post("/v1/draws", json={"batches": ["lectures"], "count": 6, "order": "value"}).json()
    assert (made["order"], made["segments"]) == ("value", 6)
    items = segments(api, made["id"])["segments"]
    assert len({own["recording"] for own in items[:4]}) == 4  # unlike one another
    post(api, answer(1, items[0]["id"]))
    assert api.get(f"/v1/draws/{made['id']}").json()["claims"] == []
    refused = api.post(f"/v1/draws/{made['id']}/calibrations", json={})
    assert refused.status_code == 400
    assert "not drawn at random" in refused.json()["detail"]

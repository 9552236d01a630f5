"""Reviews in Label Studio's JSON, and reviews of files put into the store."""

import json

import pyarrow.parquet as pq
import pytest
from reviewing import reviewable

from k2d.corpus.calibration.draws import answered_rows, open_draw
from k2d.corpus.calibration.imports import import_reviews, load_reviews
from k2d.corpus.calibration.label_studio import reviews_in, tasks_of
from k2d.corpus.calibration.reviews import write
from k2d.corpus.calibration.second import agreement
from k2d.datasets.gold import write_gold
from k2d.errors import BadRequest, NotFound
from k2d.store.reviews import ReviewVerdict, current


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return reviewable(str(tmp_path_factory.mktemp("lake")), recordings=2, count=30)


@pytest.fixture
def world(stored):
    """The lake without reviews, its batch, its draw and the draw's rows."""
    lake, batch, draw = stored
    lake.files.remove_folder("reviews")
    return lake, batch, draw, answered_rows(lake, draw)


def says(lake, draw) -> dict:
    reviews = current(lake.reviews.of_labels(draw.label_keys))
    return {(own.label_key, own.chunk, own.reviewer): (own.verdict, own.reference) for own in reviews}


def choice(value):
    return {"from_name": "verdict", "to_name": "audio", "type": "choices", "value": {"choices": [value]}}


def text(*values):
    return {"from_name": "transcription", "to_name": "audio", "type": "textarea", "value": {"text": list(values)}}


def annotated(task, *results, **more):
    return task | {"annotations": [{"result": list(results), "completed_by": 7, **more}]}


def test_what_annotators_choose_and_write_is_read(world):
    tasks = tasks_of(world[3][:6], lambda row: f"https://audio.example/{row.id}.flac")
    assert tasks[0]["data"]["audio"].startswith("https://audio.example/")
    assert tasks[0]["predictions"][0]["result"][0]["value"]["text"] == [world[3][0].label]
    done = [
        annotated(tasks[0], choice("right"), text("the prediction, left as it was")),
        annotated(tasks[1], text("改了"), created_at="2026-11-29T10:00:00.5Z", lead_time=4.25),
        annotated(tasks[2], choice("nothing is said")),
        annotated(tasks[3], choice("wrong"), text("改了")),
        annotated(tasks[4], choice("cannot tell"), completed_by={"id": 3, "email": "ada@example.org"}),
        annotated(tasks[5], text(" ")) | {"id": 9},
        tasks[5] | {"annotations": [{"result": [], "was_cancelled": True}]},
    ]
    found = list(reviews_in(json.dumps(done)))
    assert [(own.verdict, own.reference) for own in found] == [
        (ReviewVerdict.RIGHT, None),
        (ReviewVerdict.TEXT, "改了"),
        (ReviewVerdict.NOTHING, None),
        (ReviewVerdict.TEXT, "改了"),
        (ReviewVerdict.UNKNOWN, None),
        (ReviewVerdict.NOTHING, None),
    ]
    assert (found[1].at, found[1].seconds) == ("2026-11-29T10:00:00.500000+00:00", 4.25)
    assert [found[0].reviewer, found[4].reviewer] == ["label-studio:7", "label-studio:ada@example.org"]


@pytest.mark.parametrize(
    "document",
    ["", "{}", "[1]", '[{"data": {}}]', '[{"data": {"segment": "x"}, "annotations": [{"result": [{"value": 1}]}]}]',
     '[{"data": {"segment": "x"}, "annotations": [{"result": []}]}]',
     '[{"data": {"segment": "x"}, "annotations": [{"result": [], "created_at": "soon"}]}]'],
)  # fmt: skip
def test_what_is_no_export_is_refused(document):
    with pytest.raises(BadRequest):
        list(reviews_in(document))


def test_reviews_go_round_through_label_studio_and_through_lines(world, tmp_path):
    lake, _, draw, rows = world
    rows[0].correct, rows[1].reference, rows[2].reference, rows[3].correct = True, "改了 一下", "", False
    (tmp_path / "tasks.json").write_text(json.dumps(tasks_of(rows, lambda _: "x")), "utf-8")
    write(tmp_path / "review.jsonl", draw.head, rows)
    for name in ("tasks.json", "review.jsonl"):
        lake.files.remove_folder("reviews")
        assert import_reviews(lake, load_reviews(tmp_path / name), reviewer="ada") == (4, 0), name
        assert import_reviews(lake, load_reviews(tmp_path / name), reviewer="ada") == (0, 4), name
        assert answered_rows(lake, open_draw(lake, draw.id)) == rows, name
    rows[1].reference = "又改了"
    write(tmp_path / "later.jsonl", draw.head, rows)
    assert import_reviews(lake, load_reviews(tmp_path / "later.jsonl"), reviewer="ada") == (1, 3)
    assert import_reviews(lake, load_reviews(tmp_path / "review.jsonl"), reviewer="ada") == (1, 3)  # and back again
    assert import_reviews(lake, load_reviews(tmp_path / "review.jsonl"), reviewer="bob") == (4, 0)
    with pytest.raises(NotFound):
        load_reviews(tmp_path / "none.jsonl")
    (tmp_path / "broken.json").write_bytes(b"[\xff]")
    with pytest.raises(BadRequest, match="cannot be read: it is not a text in UTF-8"):
        load_reviews(tmp_path / "broken.json")


def test_gold_rows_have_what_people_agree_on(world, tmp_path):
    lake, batch, draw, rows = world
    rows[0].correct, rows[1].reference, rows[2].reference, rows[3].reference = True, "改了 一下", "", "甲"
    write(tmp_path / "ada.jsonl", draw.head, rows)
    import_reviews(lake, load_reviews(tmp_path / "ada.jsonl"), reviewer="ada")
    rows[3].reference = "乙"
    write(tmp_path / "bob.jsonl", draw.head, rows)
    import_reviews(lake, load_reviews(tmp_path / "bob.jsonl"), reviewer="bob")
    counts = write_gold(lake, [batch], tmp_path / "gold.parquet")
    assert (counts.rows, counts.corrected, counts.disputed, counts.without_text) == (2, 1, 1, 1)
    table = pq.read_table(tmp_path / "gold.parquet").to_pylist()
    assert {own["text"] for own in table} == {rows[0].label, "改了 一下"}
    assert {tuple(own["segment_ids"]) for own in table} == {(rows[0].id,), (rows[1].id,)}
    assert all(own["audio"]["bytes"].startswith(b"fLaC") for own in table)
    with pytest.raises(BadRequest, match="exists"):
        write_gold(lake, [batch], tmp_path / "gold.parquet")
    found = agreement(current(lake.reviews.of_labels(draw.label_keys)))
    assert (found.segments, found.pairs, found.same, found.verdicts) == (4, 4, 3, 4)
    lake.files.remove_folder("reviews")
    with pytest.raises(BadRequest, match="no segment"):
        write_gold(lake, [batch], tmp_path / "none.parquet")


def test_the_commands_write_and_read_reviews(world, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from k2d.cli import commands  # noqa: F401 — registers them
    from k2d.cli.base import app

    lake, batch, draw, _ = world
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_STORE", str(lake.files.root))
    k2d = CliRunner()

    def run(*words: str) -> str:
        answer = k2d.invoke(app, list(words))
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert draw.id in run("review", batch.name, batch.id, "--count", "30", "--seed", "1")  # no file; drawn once
    assert json.loads(run("reviews", "draws", "--json"))[0]["id"] == draw.id
    run("reviews", "export", draw.id, "tasks.json", "--format", "label-studio", "--audio-url", "https://k2d.example/")
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert tasks[0]["data"]["audio"] == f"https://k2d.example/v1/segments/{tasks[0]['data']['segment']}/audio"
    (tmp_path / "done.json").write_text(json.dumps([annotated(task, choice("right")) for task in tasks]), "utf-8")
    assert f"{len(tasks)} reviews stored, 0 were there already" in run("reviews", "import", "done.json")
    assert json.loads(run("reviews", "show", draw.id))["reviewed"] == len(tasks)
    run("reviews", "export", draw.id, "out.jsonl", "--audio", "clips")
    assert len(list((tmp_path / "clips").iterdir())) == len(tasks)
    assert f"{len(tasks)} rows" in run("reviews", "gold", batch.name, "--out", "gold.parquet")
    for reviewed in (draw.id, "out.jsonl"):
        run("calibrate", reviewed, "--target", "0.5", "--confidence", "0.6", "--out", f"{reviewed[:2]}.yaml")
    assert (tmp_path / "d_.yaml").exists()
    assert k2d.invoke(app, ["calibrate", "d_0000000000000000"]).exit_code != 0

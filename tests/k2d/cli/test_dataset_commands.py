"""`k2d freeze`, `export` and `datasets`: from what is kept to a dataset that is listed, shown and deleted."""

import io
import json

import pyarrow.parquet as pq
import pytest

FREEZE = ("freeze", "v1", "--batch", "lectures", "--metric", "composite", "--alpha", "0.4", "--json")


@pytest.fixture
def frozen(k2d, batch):
    code, out, err = k2d(*FREEZE)
    assert code == 0, err
    return json.loads(out)


def test_freeze_and_export(k2d, frozen, tmp_path):
    assert frozen["counts"]["accepted"] == 4
    code, out, err = k2d("export", "v1", "--format", "nemo", tmp_path / "out")
    assert code == 0, err
    assert "4 rows" in out
    assert any((tmp_path / "out").iterdir())
    assert k2d("export", "v1", "--format", "nemo", tmp_path / "out")[0] == 2  # never overwrites
    code, _, err = k2d("export", "v1", "--format", "kaldi", "/dev/null/x")
    assert (code, "the export cannot be written to /dev/null/x: Not a directory" in err) == (1, True)
    assert "K2D_STORE" not in err


def test_freeze_and_export_in_one_script(k2d, frozen, tmp_path):
    code, out, err = k2d(*FREEZE[:-1], "--script", "as-heard")
    assert code == 0, err  # the same dataset
    assert "labels as heard; the teacher wrote" in out
    code, out, err = k2d("freeze", "v2", *FREEZE[2:-1], "--script", "simplified")
    assert code == 0, err
    assert "labels in simplified characters; the teacher wrote" in out
    assert k2d("export", "v1", "--format", "nemo", tmp_path / "a", "--script", "traditional")[0] == 0
    line = json.loads((tmp_path / "a" / "manifest.jsonl").read_text("utf-8").splitlines()[0])
    assert {"text", "raw_text"} <= set(line)
    code, _, err = k2d("export", "v2", "--format", "nemo", tmp_path / "b", "--script", "traditional")
    assert code == 2
    assert "simplified characters" in err
    assert k2d("freeze", "v3", *FREEZE[2:-1], "--script", "latin")[0] == 2


def test_chunks_are_printed_in_one_script(k2d, batch):
    heard = [json.loads(line) for line in k2d("chunks", "lectures", "--jsonl")[1].splitlines()]
    simplified = k2d("chunks", "lectures", "--jsonl", "--script", "simplified")[1].splitlines()
    rows = [json.loads(line) for line in simplified]
    assert [row.pop("raw_text") for row in rows] == [row["teacher_text"] for row in heard]
    assert [row | {"teacher_text": ""} for row in rows] == [row | {"teacher_text": ""} for row in heard]
    assert "raw_text" not in heard[0]


def test_a_dataset_is_listed_and_shown(k2d, frozen):
    (row,) = json.loads(k2d("datasets", "list", "--json")[1])
    assert (row["name"], row["digest"], row["rows"]) == ("v1", frozen["digest"], frozen["counts"]["rows"])
    assert row["bytes"] == sum(shard["bytes"] for shard in frozen["shards"])
    assert row["hours"] == pytest.approx(
        (frozen["seconds"]["accepted"] + frozen["seconds"]["salvaged"]) / 3600, abs=1e-4
    )
    assert json.loads(k2d("datasets", "show", "v1", "--json")[1]) == frozen
    assert "v1" in k2d("datasets", "list")[1]
    text = k2d("datasets", "show", "v1")[1]
    assert frozen["digest"] in text
    assert "composite" in text or "custom" in text


def test_a_store_without_datasets_says_how_to_make_one(k2d):
    assert json.loads(k2d("datasets", "list", "--json")[1]) == []
    assert "k2d freeze" in k2d("datasets", "list")[1]
    code, out, err = k2d("datasets", "show", "v1")
    assert (code, out) == (2, "")
    assert "no dataset is called 'v1'" in err


def test_a_deleted_dataset_is_gone_and_can_be_frozen_again(k2d, frozen, lake):
    code, out, _ = k2d("datasets", "delete", "v1", "--yes")
    assert code == 0
    assert "v1" in out
    assert lake.files.listing("datasets") == []
    assert k2d("datasets", "delete", "v1", "--yes")[0] == 2
    again = json.loads(k2d(*FREEZE)[1])
    assert again["digest"] == frozen["digest"]
    assert json.loads(k2d("datasets", "delete", "v1", "--yes", "--json")[1])["digest"] == frozen["digest"]


def test_deleting_asks_first(k2d, frozen, lake, monkeypatch):
    for answer, code, left in (("n", 1, ["v1"]), ("y", 0, [])):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
        ended, _, err = k2d("datasets", "delete", "v1")
        assert ended == code
        assert "delete dataset v1 (4 rows)" in err
        assert lake.datasets.names() == left


def test_what_a_review_names_can_be_left_out(k2d, batch, lake, tmp_path):
    """The ids of a review file, of `k2d chunks` and of a dataset's rows are the same ids."""
    code, _, err = k2d("review", "lectures", "--out", "review.jsonl", "--count", "40")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "review.jsonl").read_text("utf-8").splitlines()[1:]]
    listed = k2d("chunks", "lectures", "--jsonl", "--verdict", "accepted")[1]
    chunks = [json.loads(line)["id"] for line in listed.splitlines()]
    segment = next(row["id"] for row in rows if row["id"].partition(".")[0] in chunks)
    chunk = next(chunk for chunk in chunks if chunk != segment.partition(".")[0])
    (tmp_path / "revoked.txt").write_text(f"{segment}\n\n{chunk}\nffff-00009\n", "utf-8")
    assert k2d("freeze", "whole", "--batch", "lectures")[0] == 0
    code, out, err = k2d("freeze", "fewer", "--batch", "lectures", "--without", "revoked.txt", "--json")
    assert code == 1
    assert "1 unknown id" in err
    fewer = json.loads(out)
    assert (fewer["without"]["ids"], fewer["without"]["found"]) == (3, 2)
    assert fewer["seconds"]["by_reason"]["revoked"] == 10.0  # a chunk, and the only segment of another
    kept = {name: pq.read_table(lake.datasets.shard_path(name, 0)).to_pylist() for name in ("whole", "fewer")}
    segments, left = ({one for row in rows for one in row["segment_ids"]} for rows in kept.values())
    assert segments - left == {segment, f"{chunk}.000"}
    (tmp_path / "revoked.txt").write_text("talk-0.wav\n", "utf-8")
    code, _, err = k2d("freeze", "none", "--batch", "lectures", "--without", "revoked.txt")
    assert code == 2
    assert "not the id of a chunk or a segment" in err
    assert "hint" in err


def test_a_recording_is_forgotten_and_resumed(k2d, batch):
    rows = [json.loads(line) for line in k2d("chunks", "lectures", "--jsonl")[1].splitlines()]
    code, out, err = k2d("forget", rows[0]["id"])
    assert code == 0, err
    assert "would forget rec_" in out
    assert ": 1 label, 1 file of hypotheses, 1 file of facts, 1 result" in out
    assert "--yes" in out
    assert json.loads(k2d("forget", rows[0]["id"], "--json")[1])["deleted"] is False
    code, out, err = k2d("forget", rows[0]["id"], "--yes")
    assert code == 0, err
    assert out.startswith("forgot rec_")
    assert "k2d resume" in out
    assert k2d("forget", rows[0]["id"])[0] != 0
    err = k2d("forget", "lectures")[2]
    assert "not the id" in err
    assert "rec_" in err

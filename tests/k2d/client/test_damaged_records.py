"""One damaged or missing file of the store: it is named, what is beside it goes on, and the hint is true."""

import shutil
from pathlib import Path

import pytest
from factories import finished_batch

from k2d.client import Embedded
from k2d.client.backend import ResumeIncomplete
from k2d.errors import DamagedFile, NotFound
from k2d.schema import Batch, BatchState
from k2d.settings import Settings
from k2d.store import Lake

RECORDS = {
    "no members": b"{}",
    "empty": b"",
    "cut off": b'{"id": "b_1", "na',
    "another document": b"[1, 2]",
    "not text": b"\xff\xfe\x00",
}


@pytest.fixture
def embedded(tmp_path: Path) -> Embedded:
    lake = Lake(str(tmp_path / "lake"))
    for name in ("monday", "tuesday"):
        finished_batch(lake, name=name)
    return Embedded(Settings(store=lake.files.root, _env_file=None))


def record(embedded: Embedded, name: str) -> Path:
    return Path(embedded.lake.files.root, "batches", Lake(embedded.lake.files.root).batches.get(name).id, "batch.json")


@pytest.fixture(params=[*RECORDS, "a folder"])
def damaged(request: pytest.FixtureRequest, embedded: Embedded) -> Path:
    """The damaged record of batch `monday`."""
    path = record(embedded, "monday")
    if request.param == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(RECORDS[request.param])
    return path


def test_a_damaged_record_is_listed_as_damaged_beside_the_others(embedded: Embedded, damaged: Path) -> None:
    rows = {row.id: row for row in embedded.batches()}
    assert len(rows) == 2
    row = rows.pop(damaged.parent.name)
    assert row.state is BatchState.DAMAGED
    assert str(damaged) in (row.error or "")
    assert "k2d label" in (row.error or "")
    assert [other.name for other in rows.values()] == ["tuesday"]
    for name in ("monday", damaged.parent.name):
        with pytest.raises(DamagedFile, match=str(damaged)) as caught:
            embedded.status(name)
        assert "k2d label" in (caught.value.hint or "")


@pytest.mark.parametrize("content", RECORDS)
def test_labeling_the_same_files_makes_the_record_again(embedded: Embedded, content: str) -> None:
    path = record(embedded, "monday")
    batch: Batch = Lake(embedded.lake.files.root).batches.get("monday")
    whole = embedded.status("monday")
    path.write_bytes(RECORDS[content])
    lake = Lake(embedded.lake.files.root)
    lake.batches.put(batch)
    assert Embedded(embedded.settings).status("monday") == whole


def test_a_batch_whose_folder_is_gone_is_left_out_and_can_be_labeled_again(embedded: Embedded) -> None:
    batch = Lake(embedded.lake.files.root).batches.get("monday")
    shutil.rmtree(record(embedded, "monday").parent)
    assert [row.name for row in embedded.batches()] == ["tuesday"]
    assert embedded.resume() == {}
    with pytest.raises(NotFound, match="record of batch 'monday'") as caught:
        embedded.status("monday")
    assert "k2d label" in (caught.value.hint or "")
    embedded.lake.batches.put(batch)
    assert embedded.status("monday").state is BatchState.STALLED


@pytest.mark.parametrize("stray", ["recent/README", "recent/2026~..", "batches/{}/results/000000/.DS_Store"])
def test_strange_files_do_not_count(embedded: Embedded, stray: str) -> None:
    path = Path(embedded.lake.files.root, stray.format(record(embedded, "monday").parent.name))
    path.write_bytes(b"x")
    assert {row.name: row.state for row in embedded.batches()} == {"monday": "done", "tuesday": "done"}
    assert embedded.status("monday").state is BatchState.DONE


def test_resume_names_a_damaged_batch_and_goes_on_with_the_others(embedded: Embedded, damaged: Path) -> None:
    resumed = []
    embedded._resume = lambda batch: resumed.append(batch.name) or 3  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(ResumeIncomplete, match=damaged.parent.name) as caught:
        embedded.resume()
    assert resumed == ["tuesday"]
    assert list(caught.value.resumed.values()) == [3]
    assert list(caught.value.failed) == [damaged.parent.name]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif how == "garbage":
        path.write_bytes(b"garbage")
    elif how == "empty":
        path.write_bytes(b"")
    else:  # the pages, not the footer
        path.write_bytes(
            content[:4] + bytes(byte ^ 0xFF for byte in content[4 : len(content) // 2]) + content[len(content) // 2 :]
        )


@pytest.mark.parametrize("how", ["cut off", "garbage", "empty", "its middle"])
def test_facts_that_cannot_be_read_count_as_missing(embedded: Embedded, how: str) -> None:
    lake = embedded.lake
    lake.mark_current()
    batch = lake.batches.get("monday")
    key = str(lake.batches.result(batch.id, 0).facts_key)  # type: ignore[union-attr]
    damage(Path(lake.files.root, "facts", key[:2], f"{key}.parquet"), how)
    assert not lake.facts.is_current(key)
    missing = {}

    def run(batch: Batch, _: object) -> None:
        done = lake.batches.result_positions(batch.id)
        missing[batch.name] = [position for position in range(len(batch.sources)) if position not in done]

    embedded._run = run  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}
    assert missing == {"monday": [0]}


@pytest.mark.parametrize("content", RECORDS)
def test_a_result_that_cannot_be_read_is_computed_again(embedded: Embedded, content: str) -> None:
    batch = embedded.lake.batches.get("monday")
    path = Path(embedded.lake.files.root, "batches", batch.id, "results", "000000", "000000001.json")
    path.write_bytes(RECORDS[content])
    with pytest.raises(DamagedFile) as caught:
        embedded.status("monday")
    assert "k2d resume" in (caught.value.hint or "")
    embedded._run = lambda *_: None  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}


def test_labels_that_are_gone_are_made_again(embedded: Embedded) -> None:
    lake, batch = embedded.lake, embedded.lake.batches.get("monday")
    result = lake.batches.result(batch.id, 0)
    assert result is not None
    Path(lake.files.root, "labels", str(result.label_key)[:2], f"{result.label_key}.parquet").unlink()
    embedded._run = lambda *_: None  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}
    assert not lake.facts.has(str(result.facts_key))


def test_a_damaged_manifest_is_listed_as_damaged_beside_the_others(embedded: Embedded) -> None:
    for name in ("first", "second"):
        embedded.freeze(name, ["monday"])
    path = Path(embedded.lake.files.root, "datasets", "first", "manifest.json")
    path.write_bytes(b"{}")
    first, second = embedded.datasets()
    assert (first.name, second.name, second.error) == ("first", "second", None)
    assert str(path) in (first.error or "")
    assert "k2d freeze" in (first.error or "")

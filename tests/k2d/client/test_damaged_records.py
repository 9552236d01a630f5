"""One damaged or missing file of the store: it is named, what is beside it goes on, and the hint is true."""

import shutil
from pathlib import Path

import pytest
from factories import finished_batch
from places import EXAMPLES
from weights import BASE, base, cache

from k2d.client import Embedded
from k2d.client.backend import ResumeIncomplete
from k2d.corpus import index
from k2d.documents import BatchOptions
from k2d.errors import Conflict, DamagedFile, NotFound
from k2d.schema import Batch, BatchState
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.check import check

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


def in_store(embedded: Embedded, path: Path) -> str:
    """The path of a file in the store, as messages name it."""
    return path.relative_to(embedded.lake.files.root).as_posix()


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
    assert in_store(embedded, damaged) in (row.error or "")
    assert "k2d label" in (row.error or "")
    assert [other.name for other in rows.values()] == ["tuesday"]
    for name in ("monday", damaged.parent.name):
        with pytest.raises(DamagedFile, match=in_store(embedded, damaged)) as caught:
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
    embedded._resume = lambda batch, _: resumed.append(batch.name) or 3  # type: ignore[method-assign,func-returns-value]
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
    status = embedded.status("monday")
    assert (status.state, status.ledger.recordings.pending) == (BatchState.STALLED, 1)
    [damage] = status.damaged
    assert in_store(embedded, path) in damage
    assert "k2d resume" in damage
    assert {row.recording for row in embedded.chunks("monday")} == {"talk-0.wav"}
    with pytest.raises(Conflict, match="1 unfinished recording"):
        embedded.freeze("talks", ["monday"])
    embedded._run = lambda *_: None  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}


def test_a_result_that_is_damaged_after_the_index_was_written_is_still_in_the_index(embedded: Embedded) -> None:
    batch = embedded.lake.batches.get("monday")
    whole = embedded.status("monday")
    path = Path(embedded.lake.files.root, "batches", batch.id, "results", "000000", "000000001.json")
    path.write_bytes(b"{}")
    seconds = embedded.status("monday").ledger.seconds
    parts = (seconds.accepted, seconds.salvaged, seconds.rejected, seconds.quarantined, seconds.silence)
    assert seconds.input == sum(parts) == whole.ledger.seconds.input  # `k2d store check` and `k2d resume` find it
    embedded._run = lambda *_: None  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}


def test_retry_makes_results_again_that_cannot_be_read(embedded: Embedded) -> None:
    batch = embedded.lake.batches.get("monday")
    Path(embedded.lake.files.root, "batches", batch.id, "results", "000000", "000000001.json").write_bytes(b"{")
    index.retry(embedded.lake, batch)
    assert embedded.lake.batches.result_positions(batch.id) == {0}


def test_labels_that_are_gone_are_made_again(embedded: Embedded) -> None:
    lake, batch = embedded.lake, embedded.lake.batches.get("monday")
    result = lake.batches.result(batch.id, 0)
    assert result is not None
    Path(lake.files.root, "labels", str(result.label_key)[:2], f"{result.label_key}.parquet").unlink()
    embedded._run = lambda *_: None  # type: ignore[method-assign]
    assert embedded.resume() == {batch.id: 1}
    assert not lake.facts.has(str(result.facts_key))


@pytest.mark.integration
@pytest.mark.slow
def test_a_damaged_label_shard_is_made_again_by_what_the_documentation_says(tmp_path: Path) -> None:
    base()
    settings = Settings(store=str(tmp_path / "lake"), teacher=BASE, cache=cache(), _env_file=None)
    embedded = Embedded(settings)
    batch = embedded.label([str(EXAMPLES / "cs-clean-1.flac")], BatchOptions(name="talks")).id
    before, chunks = embedded.lake.batches.result(batch, 0), list(embedded.chunks("talks"))
    assert before is not None
    shard = Path(settings.store, "labels", str(before.label_key)[:2], f"{before.label_key}.parquet")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2] + b"\0\xff" + data[len(data) // 2 + 2 :])
    assert not check(Lake(settings.store)).is_clean
    check(Lake(settings.store), repair=True)
    again = Embedded(settings)
    assert again.resume() == {batch: 1}
    assert check(Lake(settings.store)).is_clean
    assert shard.read_bytes() == data
    after = again.lake.batches.result(batch, 0)
    assert after is not None
    assert after.versions == before.versions
    assert list(again.chunks("talks")) == chunks
    assert again.freeze("set", ["talks"]).counts.rows


@pytest.mark.parametrize("content", ["gone", *RECORDS])
def test_a_batch_whose_record_alone_is_gone_is_listed_as_damaged(embedded: Embedded, content: str) -> None:
    path = record(embedded, "monday")
    path.unlink() if content == "gone" else path.write_bytes(RECORDS[content])
    rows = {row.id: row for row in Embedded(embedded.settings).batches()}
    assert rows[path.parent.name].state is BatchState.DAMAGED
    assert "k2d label" in (rows[path.parent.name].error or "")


@pytest.mark.parametrize("content", RECORDS)
def test_a_damaged_name_costs_that_name(embedded: Embedded, content: str) -> None:
    lake = embedded.lake
    batch = lake.batches.get("monday")
    [path] = [path for path in lake.files.listing("names") if lake.files.read(path).count(batch.id.encode())]
    lake.files.write(path, RECORDS[content])
    assert {row.name for row in embedded.batches()} == {"monday", "tuesday"}
    assert embedded.status(batch.id).state is BatchState.DONE
    assert embedded.status("tuesday").state is BatchState.DONE
    with pytest.raises(DamagedFile, match=path):
        embedded.status("monday")


@pytest.mark.parametrize("content", [*RECORDS, "a list", "null"])
def test_a_damaged_mark_of_the_store_counts_as_none(embedded: Embedded, content: str) -> None:
    data = RECORDS.get(content, {"a list": b"[1]", "null": b"null"}.get(content, b""))
    Path(embedded.lake.files.root, "store.json").write_bytes(data)
    lake = Lake(embedded.lake.files.root)
    assert not lake.is_current()
    lake.check()
    lake.mark_current()
    assert Lake(lake.files.root).is_current()


def test_a_folder_in_place_of_the_mark_of_the_store_stops_nothing(embedded: Embedded) -> None:
    Path(embedded.lake.files.root, "store.json").mkdir()
    lake = Lake(embedded.lake.files.root)
    lake.check()
    lake.mark_current()
    assert not lake.is_current()


def test_a_damaged_dataset_can_be_deleted(embedded: Embedded) -> None:
    embedded.freeze("first", ["monday"])
    Path(embedded.lake.files.root, "datasets", "first", "manifest.json").write_bytes(b"\xff")
    assert embedded.delete_dataset("first").error
    assert embedded.datasets() == []


INDEX_DAMAGE = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "garbage": lambda _: b"ARROW1\0\0garbage" * 20,
    "its end": lambda data: data[:-30] + b"\xff" * 30,
    "its middle": lambda data: data[:200] + b"\xff" * (len(data) - 400) + data[-200:],
}


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        (suffix, how)
        for suffix in (".chunks.arrow", ".segments.arrow", ".parquet", ".recordings.arrow")
        for how in INDEX_DAMAGE
        if how != "its middle" or suffix == ".parquet"  # Arrow files have no checksums (docs/store.md)
    ],
)
def test_a_damaged_part_of_the_index_is_made_again(embedded: Embedded, suffix: str, how: str) -> None:
    whole, chunks = embedded.status("monday"), list(embedded.chunks("monday"))
    batch = embedded.lake.batches.get("monday")
    [path] = Path(embedded.lake.files.root, "batches", batch.id, "index").glob(f"*{suffix}")
    path.write_bytes(INDEX_DAMAGE[how](path.read_bytes()))
    assert embedded.status("monday") == whole
    assert list(embedded.chunks("monday")) == chunks


def test_a_damaged_manifest_is_listed_as_damaged_beside_the_others(embedded: Embedded) -> None:
    for name in ("first", "second"):
        embedded.freeze(name, ["monday"])
    path = Path(embedded.lake.files.root, "datasets", "first", "manifest.json")
    path.write_bytes(b"{}")
    first, second = embedded.datasets()
    assert (first.name, second.name, second.error) == ("first", "second", None)
    assert (first.error or "").startswith("datasets/first/manifest.json is damaged")
    assert "k2d freeze" in (first.error or "")

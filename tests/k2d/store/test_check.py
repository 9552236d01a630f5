"""A check of the store finds every kind of damage, mends what it can, and destroys nothing that is not made again."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import finished_batch
from lakes import copy

from k2d.client import Embedded
from k2d.filtering.policy import DEFAULT
from k2d.schema import Batch, BatchState, Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from k2d.store.check import check
from k2d.store.drafts import DraftKind

DAY_S = 48 * 3600.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two finished batches, one of them frozen, and a key."""
    lake = Lake(str(tmp_path_factory.mktemp("whole") / "lake"))
    for name in ("monday", "tuesday"):
        finished_batch(lake, name=name)
    embedded = Embedded(Settings(store=lake.files.root, _env_file=None))
    embedded.freeze("first", ["monday"], DEFAULT)
    embedded.status("tuesday")  # writes the index
    lake.access.create("ci", AccessRole.VIEWER, created_by="local:ada")
    lake.mark_current()
    return lake


@pytest.fixture
def lake(whole: Lake, tmp_path: Path) -> Lake:
    return copy(whole, tmp_path / "lake")


def at(lake: Lake, path: str) -> Path:
    return Path(lake.files.root, path)


def the_batch(lake: Lake, name: str = "monday") -> Batch:
    return Lake(lake.files.root).batches.get(name)


def result_of(lake: Lake) -> tuple[str, str]:
    """Keys of labels and facts of the first recording of monday."""
    result = lake.batches.result(the_batch(lake).id, 0)
    assert result is not None
    return str(result.label_key), str(result.facts_key)


def age(path: Path) -> None:
    past = time.time() - DAY_S
    os.utime(path, (past, past))


def a_shard(folder: str, damage: Callable[[bytes], bytes]) -> Callable[[Lake], str]:
    def do(lake: Lake) -> str:
        key = result_of(lake)[folder == "facts"]
        path = f"{folder}/{key[:2]}/{key}.parquet"
        at(lake, path).write_bytes(damage(at(lake, path).read_bytes()))
        return path

    return do


def a_document(path_of: Callable[[Lake], str], data: bytes) -> Callable[[Lake], str]:
    def do(lake: Lake) -> str:
        at(lake, path := path_of(lake)).write_bytes(data)
        return path

    return do


def a_new(path: str, data: bytes) -> Callable[[Lake], str]:
    def do(lake: Lake) -> str:
        lake.files.write(path, data)
        return path

    return do


def name_of(lake: Lake) -> str:
    return lake.batches.name_path("monday")


def a_dangling_name(lake: Lake) -> str:
    lake.files.write(path := lake.batches.name_path("gone"), b'{"name": "gone", "id": "b_0000000000000000"}')
    return path


def a_temporary_file(lake: Lake) -> str:
    at(lake, path := "labels/.abc.tmp").write_bytes(b"half")
    age(at(lake, path))
    return path


def a_leftover_upload(lake: Lake) -> str:
    uri, _, _ = lake.uploads.put(io.BytesIO(b"refused"))
    path = lake.uploads.path_of(uri)
    assert path is not None
    age(at(lake, path))
    return path


def a_changed_upload(lake: Lake) -> str:
    path = a_leftover_upload(lake)
    at(lake, path).write_bytes(b"changed")
    return path


def a_mark_without_a_batch(lake: Lake) -> str:
    lake.files.write(path := "recent/20260101000000~b_0000000000000000", b"")
    return path


def a_batch_without_a_mark(lake: Lake) -> str:
    batch = the_batch(lake)
    [mark] = [path for path in lake.files.listing("recent") if path.endswith(batch.id)]
    lake.files.remove(mark)
    return f"batches/{batch.id}"


def a_part_of_the_index(lake: Lake) -> str:
    path = next(path for path in lake.files.listing(f"batches/{the_batch(lake, 'tuesday').id}/index"))
    at(lake, path).write_bytes(b"garbage")
    return path


def labels_that_are_gone(lake: Lake) -> str:
    key = result_of(lake)[0]
    lake.files.remove(f"labels/{key[:2]}/{key}.parquet")
    return f"batches/{the_batch(lake).id}/results/000000/000000000.json"


def a_folder_for_a_result(lake: Lake) -> str:
    path = f"batches/{the_batch(lake).id}/results/000000/000000001.json"
    at(lake, path).unlink()
    at(lake, path).mkdir()
    return path


def an_interrupted_freeze(lake: Lake) -> str:
    lake.files.write("datasets/half/0123/00000.parquet", b"x")
    age(at(lake, "datasets/half/0123/00000.parquet"))
    return "datasets/half"


MIDDLE = lambda data: data[:100] + bytes(byte ^ 0xFF for byte in data[100:300]) + data[300:]  # noqa: E731
MENDED = {
    "a name": a_document(name_of, b"{}"),
    "a name, not UTF-8": a_document(name_of, b"\xff"),
    "a dangling name": a_dangling_name,
    "a temporary file": a_temporary_file,
    "a leftover upload": a_leftover_upload,
    "a changed upload": a_changed_upload,
    "a mark without a batch": a_mark_without_a_batch,
    "a batch without a mark": a_batch_without_a_mark,
    "labels, cut off": a_shard("labels", lambda data: data[: len(data) // 2]),
    "labels, empty": a_shard("labels", lambda _: b""),
    "facts, garbage": a_shard("facts", lambda _: b"garbage"),
    "facts, their middle": a_shard("facts", MIDDLE),
    "a result": a_document(lambda lake: f"batches/{the_batch(lake).id}/results/000000/000000000.json", b"[1]"),
    "a folder for a result": a_folder_for_a_result,
    "labels that are gone": labels_that_are_gone,
    "the index": a_part_of_the_index,
    "an examination": a_new("examinations/ab/abcd.json", b"{"),
    "a probe": a_new("probes/0123.safetensors", b"x"),
    "the mark of the store": a_document(lambda _: "store.json", b"null"),
    "an interrupted freeze": an_interrupted_freeze,
}  # fmt: skip


def test_a_whole_store_is_clean(lake: Lake) -> None:
    report = check(lake)
    assert report.findings == []
    assert report.checked["labels"] == report.checked["facts"] == 4


@pytest.mark.parametrize("what", MENDED)
def test_damage_is_found_and_mended(lake: Lake, what: str) -> None:
    path = MENDED[what](lake)
    before = {path: at(lake, path).read_bytes() for path in lake.files.listing("")}
    found = check(Lake(lake.files.root))
    assert path in [finding.path for finding in found.findings]
    assert not found.is_clean
    assert not any(finding.mended for finding in found.findings)
    assert {path: at(lake, path).read_bytes() for path in lake.files.listing("")} == before  # nothing was changed

    assert check(Lake(lake.files.root), repair=True).is_clean
    again = check(Lake(lake.files.root))
    assert again.findings == []
    lost = {data for path, data in before.items() if not path.startswith(("recent/", "store.json", "datasets/half"))}
    kept = {at(lake, path).read_bytes() for path in lake.files.listing("")}
    assert {data for data in lost - kept if data} <= {before.get(path) for path in before if "/index/" in path}
    assert {row.name for row in Embedded(Settings(store=lake.files.root, _env_file=None)).batches()} == {
        "monday",
        "tuesday",
    }


def test_shards_that_were_moved_away_leave_their_recordings_missing(lake: Lake) -> None:
    MENDED["labels, cut off"](lake)
    report = check(lake, repair=True)
    assert report.counts() == {"result": 1, "shard": 1}
    status = Embedded(Settings(store=lake.files.root, _env_file=None)).status("monday")
    assert (status.state, status.ledger.recordings.pending) == (BatchState.STALLED, 1)


@pytest.mark.parametrize("damage", [b"{}", b"", b"\xff", None])
def test_what_cannot_be_mended_is_left_and_said(lake: Lake, damage: bytes | None) -> None:
    batch = the_batch(lake)
    key = lake.files.listing("access/keys")[0]
    shard = next(path for path in lake.files.listing("datasets") if path.endswith(".parquet"))
    paths = [f"batches/{batch.id}/batch.json", key, shard]
    for path in paths:
        at(lake, path).write_bytes(damage) if damage is not None else at(lake, path).unlink()
    if damage is None:
        paths.remove(key)  # a key that is gone is a key that is gone
    report = check(Lake(lake.files.root), repair=True)
    assert sorted(finding.path for finding in report.findings) == sorted(paths)
    assert not report.is_clean
    assert all(finding.to_do for finding in report.findings)
    assert [at(lake, path).exists() for path in paths] == [damage is not None] * len(paths)


def test_uploads_are_no_leftovers_while_a_record_cannot_be_read_or_their_batch_may_still_come(lake: Lake) -> None:
    uri, _, _ = lake.uploads.put(io.BytesIO(b"young"))
    assert check(lake).is_clean
    a_leftover_upload(lake)
    assert not check(lake).is_clean
    at(lake, f"batches/{the_batch(lake).id}/batch.json").write_bytes(b"{")
    assert set(check(Lake(lake.files.root)).counts()) == {"batch"}
    assert lake.open(uri).read() == b"young"


def a_draft(lake: Lake) -> str:
    uri, sha256, _ = lake.uploads.put(io.BytesIO(b"sent, and its batch is not closed yet"))
    age(at(lake, str(lake.uploads.path_of(uri))))
    draft = lake.drafts.open(DraftKind.FILES, {"name": "filling"})
    lake.drafts.add(draft.id, [Source("a.wav", uri, "key", sha256=sha256)])
    return draft.id


def test_uploads_of_a_batch_that_is_being_filled_are_no_leftovers(lake: Lake) -> None:
    a_draft(lake)
    assert check(lake).is_clean


def test_a_damaged_draft_costs_that_draft(lake: Lake) -> None:
    damaged = a_draft(lake)
    other = lake.drafts.open(DraftKind.URIS, {}, uris=[])
    lake.files.write(f"drafts/{damaged}/draft.json", b"{")
    assert [draft.id for draft in lake.drafts.unfinished()] == [other.id]
    assert lake.drafts.sweep(-1.0) == 0
    assert check(lake).counts() == {"draft": 1}
    assert check(lake, repair=True).is_clean
    assert lake.files.listing(f"drafts/{damaged}") == []
    assert lake.files.read(f"damaged/drafts/{damaged}/draft.json") == b"{"


def test_a_fast_check_reads_no_contents(lake: Lake) -> None:
    MENDED["facts, their middle"](lake)
    assert check(lake, read_contents=False).is_clean
    MENDED["facts, garbage"](lake)
    assert check(lake, read_contents=False).counts() == {"shard": 1}


def test_what_was_set_aside_twice_is_kept_twice(lake: Lake) -> None:
    for _ in range(2):
        lake.files.write("examinations/ab/abcd.json", b"{")
        check(lake, repair=True)
    assert len(lake.files.listing("damaged/examinations")) == 2

"""The index of a batch: the facts of all its recordings, current after every change, fast at ten million rows."""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lakes import audio_path, batch, put_recording

from k2d.errors import NotFound, StoreError
from k2d.keys import digest
from k2d.schema import Outcome, RecordingResult
from k2d.shards.facts import INDEX_SCHEMA, POLICY_COLUMNS
from k2d.shards.parquet import writer
from k2d.store import Lake
from k2d.store.index import ROWS_PER_GROUP

ID = "b_0123456789abcdef"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A batch of four: two labeled, one quarantined, the last one without a result."""
    lake = Lake(str(tmp_path / "lake"))
    lake.put_batch(batch(4))
    lake.put_result(ID, put_recording(lake, 0, [(0.0, 0.2), (0.2, 0.5)]))
    lake.put_result(ID, RecordingResult(1, "talk-1.flac", Outcome.QUARANTINED, 0.0, reason="not_audio"))
    lake.put_result(ID, put_recording(lake, 2, [(0.1, 0.4)]))
    return lake


def stored(lake: Lake) -> list[str]:
    return [path for path in lake.files.listing(f"batches/{ID}/index") if path.endswith(".parquet")]


def places(lake: Lake) -> list[tuple[int, int]]:
    table = lake.index(ID, ["position", "index"])
    return list(zip(table["position"].to_pylist(), table["index"].to_pylist(), strict=True))


def test_rows_come_in_order_with_what_they_belong_to(lake: Lake) -> None:
    table = lake.index(ID)
    assert table.schema.names == INDEX_SCHEMA.names
    assert table["recording"].to_pylist() == ["talk-0.flac", "talk-0.flac", "talk-2.flac"]
    assert table["recording_id"].to_pylist()[2] == "rec_" + f"{2:024x}"
    assert table["teacher_fingerprint"].to_pylist()[0] == "d01c3014881c9c6f:ctranslate2:int8"
    assert places(lake) == [(0, 0), (0, 1), (2, 0)]


def test_it_is_stored_once_everything_has_a_result(lake: Lake) -> None:
    places(lake)
    assert stored(lake) == []
    assert lake.compact(ID) == 1
    lake.put_result(ID, put_recording(lake, 3, [(0.0, 0.3)]))
    assert places(lake) == [(0, 0), (0, 1), (2, 0), (3, 0)]
    assert len(stored(lake)) == 1
    assert lake.compact(ID) == 0
    # the stored part answers: the facts shards are no longer read
    for path in lake.files.listing("facts"):
        lake.files.remove(path)
    assert places(lake) == [(0, 0), (0, 1), (2, 0), (3, 0)]


def test_it_follows_every_change_of_the_ledger(lake: Lake) -> None:
    last = put_recording(lake, 3, [(0.0, 0.3)])
    lake.put_result(ID, last)
    assert len(places(lake)) == 4
    lake.delete_result(ID, 0)
    assert places(lake) == [(2, 0), (3, 0)]
    lake.put_result(ID, put_recording(lake, 0, [(0.0, 0.2)]))
    assert places(lake) == [(0, 0), (2, 0), (3, 0)]
    lake.put_result(ID, dataclasses.replace(last, outcome=Outcome.QUARANTINED, facts_key=None, reason="failed"))
    assert places(lake) == [(0, 0), (2, 0)]
    assert len(lake.files.listing(f"batches/{ID}/index")) == 2  # the part and one mark: neither piles up


@pytest.mark.parametrize("damage", ["gone", "cut", "garbled pages"])
def test_a_broken_part_is_made_again(lake: Lake, damage: str) -> None:
    lake.put_result(ID, put_recording(lake, 3, [(0.0, 0.3)]))
    before = lake.index(ID)
    (path,) = (audio_path(lake, name) for name in stored(lake))
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-100])
    else:
        path.write_bytes(whole[:4] + b"\xff" * 3000 + whole[3004:])
    assert lake.index(ID).equals(before)
    assert path.read_bytes() == whole


def test_some_rows_are_read_by_number(lake: Lake) -> None:
    for _ in range(2):  # first from facts shards, then from the stored part
        table = lake.index_rows(ID, [2, 0, 2], ["id", "teacher_text"])
        assert [text[:8] for text in table["teacher_text"].to_pylist()] == ["第0段 of t"] * 3
        assert table["id"].to_pylist()[1].startswith("00facts")
        assert table["id"].to_pylist()[0] == table["id"].to_pylist()[2]
        lake.put_result(ID, RecordingResult(3, "talk-3.flac", Outcome.QUARANTINED, 0.0, reason="silent"))
        assert lake.compact(ID) == 0
    assert lake.index_rows(ID, [], ["id"]).num_rows == 0
    with pytest.raises(NotFound):
        lake.index_rows(ID, [3], ["id"])


def test_facts_that_are_gone_are_the_stores_fault(lake: Lake) -> None:
    for path in lake.files.listing("facts"):
        lake.files.remove(path)
    with pytest.raises(StoreError, match=r"talk-0\.flac") as caught:
        lake.index(ID)
    assert "resume" in (caught.value.hint or "")


@pytest.mark.slow
def test_ten_million_rows_are_swept_in_seconds(tmp_path: Path) -> None:
    """120 parts of 85,000 chunks: what 120,000 recordings of half an hour give."""
    lake = Lake(str(tmp_path / "lake"))
    recordings, rows = 120 * 1024, 85_000
    lake.put_batch(batch(recordings))
    table = _random_part(np.random.default_rng(0), rows)
    first = audio_path(lake, _name(0))
    first.parent.mkdir()
    with open(first, "wb") as file, writer(file, INDEX_SCHEMA) as out:
        out.write_table(table, row_group_size=ROWS_PER_GROUP)
    for number in range(1, 120):  # the same numbers in each part; nothing is shared when they are read
        os.link(first, audio_path(lake, _name(number)))
    started = time.perf_counter()
    found = lake.index(ID, ["duration_s", *POLICY_COLUMNS])
    sweep_s = time.perf_counter() - started
    assert found.num_rows == 120 * rows
    started = time.perf_counter()
    page = lake.index_rows(ID, range(5_000_000, 5_000_100), ["teacher_text"])
    page_s = time.perf_counter() - started
    assert page.num_rows == 100
    print(f"\n10.2 million rows: numeric columns {sweep_s:.2f} s, a page of 100 texts {page_s:.3f} s")
    assert sweep_s < 10
    assert page_s < 2


def _name(number: int) -> str:
    return f"batches/{ID}/index/{number:06d}-{digest('index', [])[:16]}.parquet"


def _random_part(rng: np.random.Generator, rows: int) -> pa.Table:
    columns = {}
    for field in INDEX_SCHEMA:
        if pa.types.is_integer(field.type):
            columns[field.name] = pa.array(rng.integers(0, 60, rows), field.type)
        elif pa.types.is_floating(field.type):
            columns[field.name] = pa.array(np.round(rng.random(rows) * 30, 3))
        elif pa.types.is_boolean(field.type):
            columns[field.name] = pa.array(rng.random(rows) < 0.01)
        elif pa.types.is_list(field.type):
            columns[field.name] = pa.array([["as is"]] * rows, field.type)
        else:
            columns[field.name] = pa.array([f"{field.name} {i}" for i in range(rows)], field.type)
    return pa.table(columns, schema=INDEX_SCHEMA)

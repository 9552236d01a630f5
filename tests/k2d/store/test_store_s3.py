"""The lake in an object store, against moto's S3 server: the same behaviour as on a local folder."""

import io
import os
import socket

import numpy as np
import pytest
from buckets import OPTIONS, new_bucket
from lakes import batch, put_recording, recording

from k2d.corpus.index import parts, read_index
from k2d.errors import Conflict, NotFound, StoreError
from k2d.schema import Outcome, RecordingResult
from k2d.store import Examination, Lake
from k2d.store.check import check

ID = "b_0123456789abcdef"


@pytest.fixture
def lake(s3: str) -> Lake:
    return Lake(f"s3://{new_bucket(s3)}/some/prefix", endpoint_url=s3, **OPTIONS)


def test_everything_comes_back(lake: Lake) -> None:
    lake.check()
    uri, _, _ = lake.uploads.put(io.BytesIO(b"RIFF" * 1000))
    assert lake.open(uri).read() == b"RIFF" * 1000
    examination = Examination(recording(1, 2.0), None, None, 2.0)
    lake.examinations.put("ab12", examination)
    assert lake.examinations.get("ab12") == examination
    lake.batches.put(batch(2))
    lake.batches.put(batch(2))
    assert lake.batches.get("lectures") == batch(2)
    assert [one.id for one in lake.batches.all()] == [ID]
    result = put_recording(lake, 0, [(i * 0.1, i * 0.1 + 0.1) for i in range(40)])
    assert lake.labels.has(str(result.label_key))
    assert lake.facts.has(str(result.facts_key))
    assert len(list(lake.labels.read(str(result.label_key), audio=True))) == 40
    assert lake.chunk_audio(f"{result.facts_key}-00039")[:4] == b"fLaC"
    lake.batches.put_result(ID, result)
    lake.batches.put_result(ID, RecordingResult(1, "talk-1.flac", Outcome.QUARANTINED, 0.0, reason="silent"))
    assert lake.batches.result_positions(ID) == {0, 1}
    assert read_index(lake, ID).num_rows == 40
    (part,) = parts(lake, ID)
    assert part.complete
    assert part.chunks["ms"].tolist() == [100] * 40  # from the stored columns, read whole
    assert part.take(np.array([39]), ["index"])["index"].to_pylist() == [39]
    assert lake.files.url("datasets").startswith("s3://bucket-")


def test_another_process_is_seen_at_once(lake: Lake, s3: str) -> None:
    other = Lake(lake.files.url("").rstrip("/"), endpoint_url=s3, skip_instance_cache=True, **OPTIONS)
    lake.batches.put(batch(3))
    assert lake.batches.result_positions(ID) == set()
    other.batches.put_result(ID, RecordingResult(1, "x", Outcome.QUARANTINED, 0.0))
    assert lake.batches.result_positions(ID) == {1}
    other.batches.cancel(ID)
    assert lake.batches.is_cancelled(ID)
    other.batches.uncancel(ID)
    assert not lake.batches.is_cancelled(ID)


def test_a_result_that_is_replaced_changes_the_index(lake: Lake) -> None:
    lake.batches.put(batch(1))
    lake.batches.put_result(ID, put_recording(lake, 0, [(0.0, 0.1)]))
    assert read_index(lake, ID).num_rows == 1
    lake.batches.put_result(ID, RecordingResult(0, "talk-0.flac", Outcome.QUARANTINED, 0.0, reason="failed"))
    assert read_index(lake, ID).num_rows == 0
    lake.batches.delete_result(ID, 0)
    assert lake.batches.result_positions(ID) == set()


def test_a_name_belongs_to_one_batch(lake: Lake) -> None:
    lake.batches.put(batch(1))
    with pytest.raises(Conflict):
        lake.batches.put(batch(1, batch_id="b_other"))


def test_what_is_not_there(lake: Lake) -> None:
    with pytest.raises(NotFound):
        lake.batches.get("nothing")
    with pytest.raises(NotFound):
        lake.facts.read("ab12")
    with pytest.raises(NotFound):
        list(lake.labels.read("ab12"))
    assert lake.datasets.names() == []
    assert lake.batches.ids() == []


def test_a_damaged_object_is_named(lake: Lake) -> None:
    result = put_recording(lake, 0, [(0.0, 0.1)])
    path = f"facts/{str(result.facts_key)[:2]}/{result.facts_key}.parquet"
    lake.files.write(path, lake.files.read(path)[:-20])
    with pytest.raises(StoreError, match="damaged") as caught:
        lake.facts.read(str(result.facts_key))
    assert path in caught.value.message


def test_a_bucket_that_is_not_there(s3: str) -> None:
    with pytest.raises(StoreError) as caught:
        Lake("s3://no-such-bucket-at-all/lake", endpoint_url=s3, **OPTIONS).check()
    assert caught.value.hint


def test_a_store_that_does_not_answer() -> None:
    with socket.socket() as free:  # bound, never listening: connections are refused
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        config = {"retries": {"max_attempts": 0}, "connect_timeout": 2}
        lake = Lake("s3://bucket/lake", endpoint_url=url, config_kwargs=config, **OPTIONS)
        with pytest.raises(StoreError) as caught:
            lake.check()
        assert "K2D_STORE" in (caught.value.hint or "")
        with pytest.raises(StoreError):
            lake.batches.get("lectures")


def test_a_lake_works_in_a_forked_child(lake: Lake) -> None:
    """RQ forks a work horse for each job; the client's event loop does not survive that, the lake does."""
    lake.batches.put(batch(1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            lake.batches.put_result(ID, RecordingResult(0, "x", Outcome.QUARANTINED, 0.0))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lake.batches.result_positions(ID) == {0}


def test_a_check_finds_and_mends(lake: Lake) -> None:
    lake.batches.put(batch(1))
    result = put_recording(lake, 0, [(0.0, 1.0)])
    lake.batches.put_result(ID, result)
    assert check(lake).findings == []
    facts = f"facts/{str(result.facts_key)[:2]}/{result.facts_key}.parquet"
    lake.files.write(facts, b"garbage")
    lake.files.write("examinations/ab/abcd.json", b"\xff")
    _, sha256, _ = lake.uploads.put(io.BytesIO(b"refused"))
    report = check(lake, repair=True, leftover_age_s=0.0)
    assert report.counts() == {"examination": 1, "leftover upload": 1, "result": 1, "shard": 1}
    assert report.is_clean
    assert check(lake, leftover_age_s=0.0).findings == []
    assert lake.batches.result_positions(ID) == set()
    assert lake.files.read(f"damaged/{facts}") == b"garbage"
    assert lake.files.read(f"damaged/uploads/{sha256[:2]}/{sha256}") == b"refused"

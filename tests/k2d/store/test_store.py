"""The lake on a local folder: what is put comes back, whole or not at all, whoever writes first."""

import dataclasses
import io
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from lakes import REJECTED, audio_path, batch, chunk, flac, put_recording, recording, samples, unflac

from k2d.errors import Conflict, NotFound, StoreError
from k2d.keys import chunk_id
from k2d.schema import Outcome, QuarantineReason, RecordingResult
from k2d.store import Examination, Lake, batches
from k2d.store.batches import DamagedResult
from k2d.store.parquet import dumps


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def files(lake: Lake) -> list[str]:
    """Everything under the root, unfinished writes too."""
    root = Path(lake.files.full(""))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_check_leaves_nothing_behind(lake: Lake) -> None:
    lake.check()
    assert files(lake) == ["store.json"]  # a new lake has no facts of an earlier version, and says so
    lake.check()
    assert files(lake) == ["store.json"]


# ---- uploads ------------------------------------------------------------------------------------------------------


def test_equal_bytes_are_stored_once(lake: Lake, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a.wav").write_bytes(data)
    uri, sha256, size = lake.uploads.put(tmp_path / "a.wav")
    assert (uri, sha256, size) == lake.uploads.put(io.BytesIO(data))
    assert size == len(data)
    assert files(lake) == [f"uploads/{sha256[:2]}/{sha256}"]
    with lake.open(uri) as file:
        assert file.seekable()
        assert file.read() == data


def test_an_upload_that_breaks_off_leaves_nothing(lake: Lake) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise ConnectionResetError("the client went away")
            return super().read(10)

    with pytest.raises(ConnectionResetError):  # the client's fault is not the store's
        lake.uploads.put(Broken(b"x" * 100))
    assert files(lake) == []


@pytest.mark.parametrize(
    "uri", ["lake://uploads/../../etc/passwd", "lake://batches/x", "/etc/passwd", "lake://uploads/" + "0" * 64, ""]
)
def test_only_uploads_are_opened(lake: Lake, uri: str) -> None:
    with pytest.raises(NotFound):
        lake.open(uri)


# ---- examinations -------------------------------------------------------------------------------------------------


def test_examinations_remember_a_recording_or_why_there_is_none(lake: Lake) -> None:
    good = Examination(recording(1, 12.5), None, None, 12.5)
    bad = Examination(None, QuarantineReason.TRUNCATED, "it ends after 3.2 of 9 s", 3.2)
    lake.examinations.put("a1", good)
    lake.examinations.put("b2", bad)
    assert lake.examinations.get("a1") == good
    assert lake.examinations.get("b2") == bad
    assert lake.examinations.get("c3") is None


# ---- labels and facts ---------------------------------------------------------------------------------------------


def test_labels_stream_back_with_their_audio(lake: Lake) -> None:
    result = put_recording(lake, 1, [(i * 0.2, i * 0.2 + 0.2) for i in range(40)])
    assert result.label_key is not None
    audio = samples(result.duration_s, 1)
    read = list(lake.labels.read(result.label_key, audio=True))
    assert [one.index for one, _ in read] == list(range(40))
    for one, data in read:
        assert data is not None
        expected = audio[round(one.start_s * 16_000) : round(one.end_s * 16_000)]
        assert np.array_equal(unflac(data), expected)
    assert lake.labels.audio(result.label_key, 35) == read[35][1]
    assert lake.chunk_audio(chunk_id(result.facts_key, 35)) == read[35][1]
    assert [one for one, _ in lake.labels.read(result.label_key)] == [one for one, _ in read]
    with pytest.raises(NotFound):
        lake.labels.audio(result.label_key, 40)


def test_a_label_shard_appears_only_when_it_is_whole(lake: Lake) -> None:
    def break_off() -> None:
        with lake.labels.writer("ab12", {}) as writer:
            writer.write(chunk(0, 0.0, 1.0), flac(samples(1.0)))
            assert not lake.labels.has("ab12")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        break_off()
    assert not lake.labels.has("ab12")
    assert files(lake) == []


def test_the_same_labels_are_the_same_bytes(lake: Lake) -> None:
    result = put_recording(lake, 1, [(0.0, 1.0), (1.0, 2.0)])
    path = audio_path(lake, f"labels/{result.label_key[:2]}/{result.label_key}.parquet")
    before = path.read_bytes()
    put_recording(lake, 1, [(0.0, 1.0), (1.0, 2.0)])
    assert path.read_bytes() == before


def test_a_long_recording_is_written_in_bounded_memory(lake: Lake) -> None:
    import tracemalloc

    noise = os.urandom(500_000)  # what 30 s of FLAC weigh
    tracemalloc.start()
    with lake.labels.writer("ab12", {}) as writer:
        for index in range(320):  # 160 MB
            writer.write(chunk(index, index * 30.0, index * 30.0 + 30.0), noise)
    for _, data in lake.labels.read("ab12", audio=True):
        assert data == noise
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_facts_are_read_by_their_key(lake: Lake) -> None:
    result = put_recording(lake, 1, [(0.0, 1.0), (1.0, 2.0)])
    table, meta = lake.facts.shard(result.facts_key, ["index", "duration_s"])
    assert table.schema.names == ["index", "duration_s"]
    assert table["duration_s"].to_pylist() == [1.0, 1.0]
    assert [fact.id for fact in lake.facts.read(result.facts_key)] == [chunk_id(result.facts_key, i) for i in range(2)]
    assert lake.facts.meta(result.facts_key) == meta
    assert meta["label_key"] == result.label_key


@pytest.mark.parametrize("key", ["nothing", "../../etc", "", "a/b", ".hidden"])
def test_keys_that_are_not_there_are_not_found(lake: Lake, key: str) -> None:
    with pytest.raises(NotFound):
        list(lake.labels.read(key))
    with pytest.raises(NotFound):
        lake.facts.read(key)
    with pytest.raises(NotFound):
        lake.chunk_audio(f"{key}-00000")
    with pytest.raises(NotFound):
        lake.batches.get(key)
    with pytest.raises(NotFound):
        lake.datasets.manifest(key)


# ---- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_is_found_by_id_and_by_name(lake: Lake) -> None:
    one = batch(3)
    lake.batches.put(one)
    lake.batches.put(dataclasses.replace(one, created_at="2030-01-01T00:00:00+00:00"))  # again: nothing changes
    assert (
        lake.batches.get(one.id) == lake.batches.get("lectures") == Lake(lake.files.root).batches.get("lectures") == one
    )
    lake.batches.put(dataclasses.replace(one, name="talks"))  # a second name for the same content
    assert lake.batches.get("talks") == one


def test_a_name_belongs_to_one_batch(lake: Lake) -> None:
    lake.batches.put(batch(3))
    with pytest.raises(Conflict, match="lectures"):
        lake.batches.put(batch(4, batch_id="b_ffffffffffffffff"))
    assert lake.batches.ids() == ["b_0123456789abcdef"]


def test_a_batch_that_lost_its_name_takes_another(lake: Lake) -> None:
    winner, loser = batch(3), batch(4, batch_id="b_ffffffffffffffff")
    lake.batches.put(winner)
    # what is left of a request that found the name free, wrote its document, and then came second
    lake.files.write("batches/b_ffffffffffffffff/batch.json", dumps(loser))
    with pytest.raises(Conflict):
        lake.batches.put(loser)
    renamed = dataclasses.replace(loser, name="others")
    lake.batches.put(renamed)
    assert lake.batches.get("others") == Lake(lake.files.root).batches.get("others") == renamed
    assert lake.batches.get("lectures") == winner


def test_batches_come_newest_first(lake: Lake) -> None:
    for day in (3, 1, 2):
        lake.batches.put(batch(1, batch_id=f"b_{day}", name=f"day-{day}", at=f"2026-11-0{day}T00:00:00+00:00"))
    assert [one.name for one in lake.batches.all()] == ["day-3", "day-2", "day-1"]


def test_cancel_is_a_mark(lake: Lake) -> None:
    lake.batches.put(batch(1))
    assert not lake.batches.is_cancelled("b_0123456789abcdef")
    lake.batches.cancel("b_0123456789abcdef")
    assert lake.batches.is_cancelled("b_0123456789abcdef")
    lake.batches.uncancel("b_0123456789abcdef")
    assert not lake.batches.is_cancelled("b_0123456789abcdef")
    with pytest.raises(NotFound):
        lake.batches.cancel("b_nothing")


def test_results_are_a_ledger_in_order(lake: Lake) -> None:
    one = batch(3000)
    lake.batches.put(one)
    for position in (2047, 5, 0, 2999):
        lake.batches.put_result(one.id, quarantined(position))
    assert [result.position for result in lake.batches.results(one.id)] == [0, 5, 2047, 2999]
    assert [result.position for result in lake.batches.results(one.id, part=1)] == [2047]
    assert lake.batches.result_positions(one.id) == {0, 5, 2047, 2999}
    assert lake.batches.result(one.id, 5) == dataclasses.replace(quarantined(5), name="talk-\\udcff\n🎙.wav")
    lake.batches.delete_result(one.id, 5)
    assert lake.batches.result(one.id, 5) is None
    assert lake.batches.result_positions(one.id) == {0, 2047, 2999}


def quarantined(position: int) -> RecordingResult:
    name = b"talk-\xff\n\xf0\x9f\x8e\x99.wav".decode("utf-8", "surrogateescape")
    return RecordingResult(position, name, Outcome.QUARANTINED, 3.2, reason="truncated", detail="it ends early")


def test_a_name_is_claimed_by_one_of_many_processes(lake: Lake) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        won = pool.starmap(_claim, [(lake.files.root, number) for number in range(16)])
    assert sum(won) == 1
    assert len(lake.batches.ids()) == 1


def _claim(root: str, number: int) -> bool:
    try:
        Lake(root).batches.put(batch(1, batch_id=f"b_{number:016x}", name="wanted"))
    except Conflict:
        return False
    return True


def test_a_writer_that_is_killed_leaves_no_shard(lake: Lake) -> None:
    child = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(lake,))
    child.start()
    deadline = time.monotonic() + 20
    while not any(name.endswith(".tmp") for name in files(lake)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    left = files(lake)
    assert left
    assert all(name.endswith(".tmp") for name in left)
    assert not lake.labels.has("ab12")
    assert lake.files.listing("") == []  # unfinished writes are never listed
    assert lake.sweep() == 0  # too young: someone may be writing
    assert lake.sweep(older_than_s=-1.0) == len(left)
    assert files(lake) == []


def _write_for_ever(lake: Lake) -> None:
    with lake.labels.writer("ab12", {}) as writer:
        for index in range(100_000):
            writer.write(chunk(index, index * 1.0, index + 1.0), b"x" * 100_000)


# ---- the lake and its parts ---------------------------------------------------------------------------------------


def test_a_lake_is_composed_of_parts_over_one_root(lake: Lake) -> None:
    """Each part writes into a folder of its own, and two lakes over one root are the same lake."""
    lake.uploads.put(io.BytesIO(b"x"))
    lake.examinations.put("ab", Examination(recording(1, 1.0), None, None, 1.0))
    result = put_recording(lake, 0, [(0.0, 1.0)])
    lake.hypotheses.write("ab", [(0, ())], {})
    digest = lake.probes.put(b"weights")
    lake.batches.put(batch(1))
    lake.batches.put_result("b_0123456789abcdef", result)
    lake.datasets.put_shard("talks", "ab", "00000.parquet", lambda file: file.write(b"rows") and None)
    folders = {path.partition("/")[0] for path in files(lake)}
    assert folders == {
        "uploads", "examinations", "labels", "hypotheses", "probes", "facts", "batches", "names", "recent", "datasets"
    }  # fmt: skip
    other = Lake(lake.files.root)
    assert other.examinations.get("ab") == lake.examinations.get("ab")
    assert other.probes.get(digest) == b"weights"
    assert other.hypotheses.read("ab") == {0: ()}
    assert other.batches.result("b_0123456789abcdef", 0) == result
    assert other.facts.read(result.facts_key) == lake.facts.read(result.facts_key)


def test_what_lies_in_a_folder_of_version_0_1_is_found_and_new_things_go_elsewhere(lake: Lake) -> None:
    """probes/ held examinations, listeners/ probes, opinions/ hypotheses."""
    examination = Examination(recording(1, 12.5), None, None, 12.5)
    lake.examinations.put("ab12", examination)
    digest = lake.probes.put(b"weights")
    lake.hypotheses.write("ab12", [(0, ())], {})
    for now, earlier in (("probes", "listeners"), ("examinations", "probes"), ("hypotheses", "opinions")):
        audio_path(lake, now).rename(audio_path(lake, earlier))
    old = Lake(lake.files.root)
    assert old.examinations.get("ab12") == examination
    assert old.examinations.get("cd34") is None
    assert old.probes.get(digest) == b"weights"
    assert old.hypotheses.has("ab12")
    assert not old.hypotheses.has("cd34")
    second = Examination(None, QuarantineReason.SILENT, "it is silent", 3.0)
    old.examinations.put("ab12", second)  # done anew
    assert old.examinations.get("ab12") == second
    other = old.probes.put(b"others")
    assert old.probes.digests() == sorted([digest, other])
    assert old.probes.get(other) == b"others"
    assert old.probes.put(b"weights") == digest
    assert {path.partition("/")[0] for path in files(lake)} == {"examinations", "probes", "listeners", "opinions"}
    with pytest.raises(NotFound, match="no probe") as caught:
        old.probes.get("0" * 16)
    assert digest in (caught.value.hint or "")


def test_a_store_says_when_no_facts_of_an_earlier_version_are_left(lake: Lake) -> None:
    lake.batches.put(batch(1))
    lake.check()
    assert not lake.is_current()  # someone else may have written its batches
    lake.mark_current()
    assert lake.is_current()
    assert Lake(lake.files.root).is_current()
    lake.files.write("store.json", b'{"facts_version": 1}')
    assert not Lake(lake.files.root).is_current()
    lake.files.write("store.json", b"no JSON")
    assert not Lake(lake.files.root).is_current()


# ---- damage -------------------------------------------------------------------------------------------------------


def raised(reading: RecordingResult | DamagedResult) -> None:
    if isinstance(reading, DamagedResult):
        raise reading.error


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_damaged_files_are_named(lake: Lake, damage: str) -> None:
    result = put_recording(lake, 1, [(0.0, 1.0), (1.0, 2.0)])
    lake.batches.put(batch(2))
    lake.batches.put_result("b_0123456789abcdef", result)
    paths = [
        f"labels/{result.label_key[:2]}/{result.label_key}.parquet",
        f"facts/{result.facts_key[:2]}/{result.facts_key}.parquet",
        "batches/b_0123456789abcdef/results/000000/000000001.json",
        "batches/b_0123456789abcdef/batch.json",
    ]
    for path in paths:
        file = audio_path(lake, path)
        data = file.read_bytes()
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbage": b"\x00\xff" * 500}[damage])
    fresh = Lake(lake.files.root)
    reads = [
        lambda: list(fresh.labels.read(result.label_key, audio=True)),
        lambda: fresh.facts.read(result.facts_key),
        lambda: raised(next(fresh.batches.readings("b_0123456789abcdef"))),
        lambda: fresh.batches.get("b_0123456789abcdef"),
    ]
    for path, read in zip(paths, reads, strict=True):
        with pytest.raises(StoreError, match="damaged") as caught:
            read()
        assert path in caught.value.message
        assert caught.value.hint


def test_what_a_reader_does_with_a_row_is_not_the_stores_fault(lake: Lake) -> None:
    result = put_recording(lake, 1, [(0.0, 1.0)])

    def send_away() -> None:
        for _ in lake.labels.read(result.label_key):
            raise ConnectionError("the validator went away")

    with pytest.raises(ConnectionError):
        send_away()


def test_counts_of_a_rejected_chunk_are_kept(lake: Lake) -> None:
    result = put_recording(lake, 1, [(0.0, 1.0), (1.0, 2.0)], rejected=frozenset({1}))
    counts = lake.facts.read(result.facts_key)[1].distances.mixed
    assert (counts.hits, counts.substitutions, counts.deletions, counts.insertions) == REJECTED


def test_a_batch_that_another_process_deleted_is_gone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.batches.put(batch(2))
    other = Lake(lake.files.root)
    assert other.batches.get(batch(2).id) == batch(2)
    lake.batches.delete(batch(2))
    monkeypatch.setattr(batches, "SURE_S", 0.0)  # the seconds are over
    with pytest.raises(NotFound):
        other.batches.get(batch(2).id)

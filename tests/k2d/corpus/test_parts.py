"""Parts of a batch: made once by one of many, read as few documents, and followed while a batch runs."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lakes import batch, copy, put_recording

from k2d.corpus import batch_index, gather, views
from k2d.corpus import index as indices
from k2d.corpus.batch_index import BatchIndex
from k2d.corpus.index import parts, read_index, settle
from k2d.filtering.policy import DEFAULT, PAPER
from k2d.schema import BatchState, Outcome, RecordingResult
from k2d.store import Lake, batches
from k2d.store.files import Files

ID = "b_0123456789abcdef"
RECORDINGS, SIZE = 12, 3


@pytest.fixture(autouse=True)
def parts_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batches, indices):
        monkeypatch.setattr(module, "PART_RECORDINGS", SIZE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Four parts of three recordings; every fourth recording is quarantined. Nothing of the index is stored."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.batches.put(batch(RECORDINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PART_RECORDINGS", SIZE)
        for number in range(RECORDINGS):
            lake.batches.put_result(ID, result(lake, number))
    return lake


def result(lake: Lake, number: int) -> RecordingResult:
    if number % 4 == 3:
        return RecordingResult(number, f"talk-{number}.flac", Outcome.QUARANTINED, 1.5, reason="silent")
    return put_recording(lake, number, [(0.0, 0.2), (0.2, 0.5)], bad=frozenset({(1, number % 2)}))


@pytest.fixture
def lake(written: Lake, tmp_path: Path) -> Lake:
    return copy(written, tmp_path / "lake")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests that an object store would get, by kind."""
    counted: Counter[str] = Counter()
    for name in ("read", "open", "parquet", "listing", "folders", "exists", "write", "create"):

        def call(self: Files, *args: object, _name: str = name, _call: object = getattr(Files, name), **kw: object):
            counted[_name] += 1
            return _call(self, *args, **kw)  # type: ignore[operator]

        monkeypatch.setattr(Files, name, call)
    return counted


def gathered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions whose facts are read from now on."""
    read: list[int] = []
    rows_of = gather._rows_of
    monkeypatch.setattr(gather, "_rows_of", lambda lake, r: read.append(r.position) or rows_of(lake, r))  # type: ignore[func-returns-value]
    return read


# ---- few documents ------------------------------------------------------------------------------------------------


def test_a_status_reads_at_most_three_documents_a_part(lake: Lake, calls: Counter[str]) -> None:
    settle(lake, lake.batches.get(ID))
    fresh = Lake(lake.files.root)
    whole = fresh.batches.get(ID)
    calls.clear()
    first = views.status(fresh, whole)
    assert first.state is BatchState.DONE
    assert sum(calls.values()) <= 3 * 4
    for question in (views.status, views.listed):
        calls.clear()
        question(fresh, whole)
        assert calls == {"listing": 1}, question
    calls.clear()
    again = Lake(lake.files.root)
    assert views.status(again, again.batches.get(ID)) == first
    assert sum(calls.values()) <= 5  # the batch's own ledger is stored now


def test_the_ledger_of_a_batch_is_the_sum_over_its_parts_under_any_policy(lake: Lake) -> None:
    whole = lake.batches.get(ID)
    for policy in (DEFAULT, PAPER, DEFAULT.varied(alpha=0.9)):
        for fresh in (lake, Lake(lake.files.root)):  # computed, and read
            shown = views.ledger(fresh, whole, policy)
            results = list(lake.batches.results(ID))
            assert shown.recordings.labeled + shown.recordings.quarantined == RECORDINGS
            assert shown.seconds.input == pytest.approx(sum(r.duration_s for r in results))
            kept = views.preview(fresh, [whole], policy)
            assert (shown.chunks, shown.seconds.accepted) == (kept.chunks, kept.seconds.accepted)
            assert shown.seconds.salvaged == kept.seconds.salvaged


def test_a_part_that_changed_changes_the_ledger_of_the_batch(lake: Lake) -> None:
    whole = lake.batches.get(ID)
    before = views.status(lake, whole)
    lake.batches.delete_result(ID, 4)
    assert views.status(lake, whole).ledger.recordings.pending == 1
    lake.batches.put_result(ID, result(lake, 4))
    assert views.status(lake, whole) == before
    settle(lake, whole)
    assert len([path for path in lake.files.listing(f"batches/{ID}/index") if "/all-" in path]) == 1


def test_a_recording_twice_in_a_batch_is_a_duplicate(lake: Lake) -> None:
    twice = next(r for r in lake.batches.results(ID) if r.outcome is Outcome.LABELED)
    lake.batches.put_result(ID, RecordingResult(3, "again", Outcome.LABELED, 1.5, twice.recording_id, *keys(twice)))
    assert views.ledger(lake, lake.batches.get(ID)).recordings.duplicates == 1


def keys(result: RecordingResult) -> tuple[str | None, str | None]:
    return result.label_key, result.facts_key


def test_results_come_from_the_index_as_they_were_written(lake: Lake, calls: Counter[str]) -> None:
    documents = list(lake.batches.results(ID))
    settle(lake, lake.batches.get(ID))
    calls.clear()
    assert list(indices.results(lake, lake.batches.get(ID))) == documents
    assert calls["read"] == 0


# ---- made once ----------------------------------------------------------------------------------------------------


def test_of_several_readers_one_makes_each_part(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    read = gathered(monkeypatch)
    readers = [Lake(lake.files.root) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda reader: read_index(reader, ID), readers))
    assert all(table.equals(tables[0]) for table in tables)
    assert sorted(read) == [number for number in range(RECORDINGS) if number % 4 != 3]
    assert not [path for path in lake.files.listing("") if path.endswith(".claim")]


def test_a_part_whose_maker_was_killed_is_made_by_the_next(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_index, "_WAIT_S", (0.01, 0.01))
    claim = batch_index.stem(ID, 0, []) + batch_index.CLAIM
    lake.files.write(claim, json.dumps({"id": "killed", "at": time.time() - batch_index.CLAIM_S + 0.1}).encode())
    assert read_index(lake, ID).num_rows == 18
    assert not lake.files.exists(claim)


def test_a_part_that_is_left_out_counts_as_pending(lake: Lake, calls: Counter[str]) -> None:
    whole = lake.batches.get(ID)
    settle(lake, whole, [1, 3])
    assert BatchIndex(lake, whole).unmade == [0, 2]
    calls.clear()
    shown = views.status(lake, whole, make=False)
    assert (shown.ledger.recordings.pending, shown.state) == (6, BatchState.STALLED)
    assert calls["create"] == calls["write"] == 0
    assert views.status(lake, whole).state is BatchState.DONE


# ---- followed -----------------------------------------------------------------------------------------------------


@pytest.fixture
def running(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Parts 0 and 1 are finished, of part 2 a recording is missing, and nothing of part 3 is there."""
    monkeypatch.setattr(batch_index, "STORE_TAIL", 2)
    for number in (7, 9, 10, 11):
        lake.files.remove(f"batches/{ID}/results/{number // SIZE:06d}/{number:09d}.json")
    settle(lake, lake.batches.get(ID))
    return lake


def test_an_unfinished_part_is_stored_now_and_then_and_its_facts_read_once(
    running: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = gathered(monkeypatch)
    fresh = Lake(running.files.root)
    assert read_index(fresh, ID, ["position"])["position"].to_pylist() == [0, 0, 1, 1, 2, 2, 4, 4, 5, 5, 6, 6, 8, 8]
    views.status(fresh, fresh.batches.get(ID))
    assert read == []  # though it is not complete
    running.batches.put_result(ID, result(running, 9))
    for _ in range(2):
        assert read_index(fresh, ID, ["position"])["position"].to_pylist()[-2:] == [9, 9]
        views.status(fresh, fresh.batches.get(ID))
        assert read == [9]


def test_what_comes_in_before_what_is_stored_is_put_in_its_place(running: Lake) -> None:
    running.batches.put_result(ID, result(running, 7))  # completes part 2, of which 6 and 8 are stored
    settle(running, running.batches.get(ID))
    fresh = Lake(running.files.root)
    part = list(parts(fresh, ID))[2]
    assert part.complete
    assert part.chunks["position"].tolist() == [6, 6, 8, 8]  # 7 is quarantined
    running.batches.delete_result(ID, 7)
    running.batches.put_result(ID, put_recording(running, 7, [(0.0, 0.4)]))
    part = list(parts(fresh, ID))[2]
    assert part.chunks["position"].tolist() == [6, 6, 7, 8, 8]
    assert part.segments["chunk"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [row[:4] for row in part.read(["id"])["id"].to_pylist()] == ["06fa", "06fa", "07fa", "08fa", "08fa"]
    assert part.recordings.sizes.tolist() == [2, 1, 2]


def test_a_tail_is_joined_to_what_is_stored(running: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PART_RECORDINGS", 6)  # positions 6 and 8 are stored, 9 and 7 come in
    monkeypatch.setattr(indices, "PART_RECORDINGS", 6)
    lake = Lake(running.files.root + "-of-six")
    lake.batches.put(batch(6))
    for number in (1, 4):
        lake.batches.put_result(ID, put_recording(lake, number, [(0.0, 0.2), (0.2, 0.5)]))
    settle(lake, lake.batches.get(ID))
    monkeypatch.setattr(batch_index, "STORE_TAIL", 64)
    lake.batches.put_result(ID, put_recording(lake, 2, [(0.0, 0.4)]))
    lake.batches.put_result(ID, put_recording(lake, 0, [(0.0, 0.1)]))
    (part,) = parts(lake, ID)
    assert not part.complete
    assert part.ledger().recordings == 4
    assert part.chunks["position"].tolist() == [0, 1, 1, 2, 4, 4]
    assert part.segments["chunk"].tolist() == [row for row in range(6) for _ in range(2)]
    assert part.recordings.positions.tolist() == [0, 1, 2, 4]
    assert part.read(["position", "index"]).to_pylist() == [
        {"position": position, "index": index} for position, index in ((0, 0), (1, 0), (1, 1), (2, 0), (4, 0), (4, 1))
    ]


def test_a_changed_result_makes_what_is_stored_of_an_unfinished_part_void(running: Lake) -> None:
    running.batches.put_result(ID, RecordingResult(8, "talk-8.flac", Outcome.QUARANTINED, 1.5, reason="silent"))
    assert read_index(Lake(running.files.root), ID, ["position"])["position"].to_pylist()[-2:] == [6, 6]


def test_a_damaged_unfinished_part_is_made_again(running: Lake) -> None:
    before = read_index(Lake(running.files.root), ID)
    stored = [path for path in running.files.listing(f"batches/{ID}/index") if "~" in path]
    assert len(stored) == 5
    for path in stored:
        Path(running.files.full(path)).write_bytes(b"x")
        assert read_index(Lake(running.files.root), ID).equals(before), path
        assert views.status(Lake(running.files.root), running.batches.get(ID)).ledger.recordings.pending == 4

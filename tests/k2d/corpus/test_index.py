"""The index of a batch: the facts of all its recordings in order, current after every change of the ledger."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from lakes import audio_path, batch, copy, put_recording

from k2d.corpus import batch_index, index, views
from k2d.corpus.batch_index import BatchIndex
from k2d.corpus.index import parts, read_index
from k2d.errors import StoreError
from k2d.filtering.policy import columns_of, evidence_columns
from k2d.schema import Outcome, RecordingResult
from k2d.store import Lake

ID = "b_0123456789abcdef"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A batch of four: two labeled, one quarantined, the last one without a result."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.batches.put(batch(4))
    lake.batches.put_result(ID, put_recording(lake, 0, [(0.0, 0.2), (0.2, 0.5)]))
    lake.batches.put_result(ID, RecordingResult(1, "talk-1.flac", Outcome.QUARANTINED, 0.0, reason="not_audio"))
    lake.batches.put_result(ID, put_recording(lake, 2, [(0.1, 0.4)]))
    return lake


@pytest.fixture
def lake(written: Lake, tmp_path: Path) -> Lake:
    return copy(written, tmp_path / "lake")


def stored(lake: Lake) -> list[str]:
    return [path for path in lake.files.listing(f"batches/{ID}/index") if not path.endswith(".stale")]


def places(lake: Lake) -> list[tuple[int, int]]:
    table = read_index(lake, ID, ["position", "index"])
    return list(zip(table["position"].to_pylist(), table["index"].to_pylist(), strict=True))


def test_rows_come_in_order_with_what_they_belong_to(lake: Lake) -> None:
    table = read_index(lake, ID)
    assert table.schema.names == index.SCHEMA.names
    assert table["recording"].to_pylist() == ["talk-0.flac", "talk-0.flac", "talk-2.flac"]
    assert table["recording_id"].to_pylist()[2] == "rec_" + f"{2:024x}"
    assert table["teacher_fingerprint"].to_pylist()[0] == "d01c3014881c9c6f:ctranslate2:int8"
    assert places(lake) == [(0, 0), (0, 1), (2, 0)]


def test_a_result_that_comes_while_the_ledger_is_made_counts_with_its_chunks_or_not_at_all(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = put_recording(lake, 3, [(0.0, 0.3)])

    def then_a_result(batch_index: BatchIndex, **_: object) -> list[index.Part]:
        read = [batch_index.part(number) for number in range(len(batch_index.sizes))]
        lake.batches.put_result(ID, late)
        return read

    before = views.ledger(lake, lake.batches.get(ID))
    monkeypatch.setattr(BatchIndex, "parts", then_a_result)
    meanwhile = views.status(lake, lake.batches.get(ID))
    assert meanwhile.ledger == before
    assert (meanwhile.state, meanwhile.ledger.recordings.pending) == ("stalled", 1)
    monkeypatch.undo()
    done = views.status(lake, lake.batches.get(ID))
    assert done.state == "done"
    assert done.ledger.seconds.accepted > before.seconds.accepted


def test_it_is_stored_once_everything_has_a_result(lake: Lake) -> None:
    places(lake)
    assert stored(lake) == []
    assert not next(parts(lake, ID)).complete
    lake.batches.put_result(ID, put_recording(lake, 3, [(0.0, 0.3)]))
    assert places(lake) == [(0, 0), (0, 1), (2, 0), (3, 0)]
    assert len(stored(lake)) == 5
    assert next(parts(lake, ID)).complete
    # the stored part answers: the facts shards are no longer read
    for path in lake.files.listing("facts"):
        lake.files.remove(path)
    assert places(lake) == [(0, 0), (0, 1), (2, 0), (3, 0)]


def test_it_follows_every_change_of_the_ledger(lake: Lake) -> None:
    last = put_recording(lake, 3, [(0.0, 0.3)])
    lake.batches.put_result(ID, last)
    assert len(places(lake)) == 4
    lake.batches.delete_result(ID, 0)
    assert places(lake) == [(2, 0), (3, 0)]
    lake.batches.put_result(ID, put_recording(lake, 0, [(0.0, 0.2)]))
    assert places(lake) == [(0, 0), (2, 0), (3, 0)]
    lake.batches.put_result(ID, dataclasses.replace(last, outcome=Outcome.QUARANTINED, facts_key=None, reason="failed"))
    assert places(lake) == [(0, 0), (2, 0)]
    assert len(lake.files.listing(f"batches/{ID}/index")) == 6  # the part and one mark: neither piles up


# numbers that are not compressed have no redundancy that would tell of garbled bytes
@pytest.mark.parametrize(
    ("damage", "suffix"),
    [
        *((damage, ".parquet") for damage in ("gone", "cut", "garbled pages")),
        *(
            (damage, suffix)
            for damage in ("gone", "cut")
            for suffix in (".chunks.arrow", ".segments.arrow", ".recordings.arrow", ".ledger.json")
        ),
    ],
)
def test_a_broken_part_is_made_again(lake: Lake, damage: str, suffix: str) -> None:
    lake.batches.put_result(ID, put_recording(lake, 3, [(0.0, 0.3)]))
    before = read_index(lake, ID)
    (path,) = (audio_path(lake, name) for name in stored(lake) if name.endswith(suffix))
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-100])
    else:
        path.write_bytes(whole[:4] + b"\xff" * 3000 + whole[3004:])
    assert read_index(lake, ID).equals(before)
    assert [len(part.chunks["ms"]) for part in parts(lake, ID)] == [before.num_rows]
    assert [len(part.segments["ms"]) for part in parts(lake, ID)] == [2 * before.num_rows]
    assert [len(part.recordings) for part in parts(lake, ID)] == [3]
    assert [part.ledger().recordings for part in parts(Lake(lake.files.root), ID)] == [4]
    assert path.read_bytes() == whole


def test_some_rows_are_read_by_number(lake: Lake) -> None:
    for _ in range(2):  # first from facts shards, then from the stored part
        (part,) = parts(lake, ID)
        assert part.rows() == 3
        table = part.take(np.array([2, 0, 2]), ["id", "teacher_text"])
        assert [text[:8] for text in table["teacher_text"].to_pylist()] == ["第0段 of t"] * 3
        assert table["id"].to_pylist()[1].startswith("00facts")
        assert table["id"].to_pylist()[0] == table["id"].to_pylist()[2]
        assert part.take(np.array([], np.int64), ["id"]).num_rows == 0
        lake.batches.put_result(ID, RecordingResult(3, "talk-3.flac", Outcome.QUARANTINED, 0.0, reason="silent"))
    assert len(stored(lake)) == 5


def test_recordings_of_a_part_know_their_rows(lake: Lake) -> None:
    (part,) = parts(lake, ID)
    recordings = part.recordings
    assert (recordings.starts.tolist(), recordings.stops.tolist(), recordings.sizes.tolist()) == (
        [0, 2],
        [2, 3],
        [2, 1],
    )
    assert recordings.column("recording") == ["talk-0.flac", "talk-2.flac"]
    assert recordings.of_chunk(np.array([0, 1, 2])).tolist() == [0, 0, 1]


def test_facts_that_are_gone_are_the_stores_fault(lake: Lake) -> None:
    for path in lake.files.listing("facts"):
        lake.files.remove(path)
    with pytest.raises(StoreError, match=r"talk-0\.flac") as caught:
        read_index(lake, ID)
    assert "resume" in (caught.value.hint or "")


def test_numbers_are_those_of_the_facts(lake: Lake) -> None:
    facts = [fact for n in (0, 2) for fact in lake.facts.read(f"{n:02x}facts{n:025x}")]
    lake.batches.put_result(ID, RecordingResult(3, "talk-3.flac", Outcome.QUARANTINED, 0.0, reason="silent"))
    for _ in range(2):  # first as gathered, then from mapped files
        (part,) = parts(lake, ID)
        chunks, segments = part.chunks, part.segments
        expected = columns_of([fact.distances for fact in facts], [fact.evidence for fact in facts])
        assert set(expected) <= set(chunks)
        for name, column in expected.items():
            assert np.array_equal(chunks[name], column), name
        assert chunks["ms"].tolist() == [200, 300, 300]
        assert segments["chunk"].tolist() == [0, 0, 1, 1, 2, 2]
        assert segments["number"].tolist() == [0, 1, 0, 1, 0, 1]
        assert segments["ms"].tolist() == [100, 100, 150, 150, 150, 150]
        every = evidence_columns([one for fact in facts for one in fact.segment_evidence])
        for name, column in every.items():
            assert np.array_equal(segments[name], column), name
    assert part.complete


def test_an_index_of_an_older_version_is_made_anew(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.batches.put_result(ID, put_recording(lake, 3, [(0.0, 0.3)]))
    monkeypatch.setattr(batch_index, "INDEX_VERSION", 2)
    places(lake)
    before = stored(lake)
    assert len(before) == 5
    monkeypatch.undo()
    places(lake)
    assert len(stored(lake)) == 5
    assert not set(before) & set(stored(lake))

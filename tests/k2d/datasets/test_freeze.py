"""Freezing: filter, then pack; every second accounted for; the same again to the byte."""

import dataclasses
import hashlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from lakes import batch, put_recording, samples, unflac

from k2d.datasets.freeze import freeze
from k2d.errors import BadRequest, Conflict, NotFound, StoreError
from k2d.filtering.policy import PAPER, Policy, explain
from k2d.schema import Outcome, RecordingResult
from k2d.store import Lake

BATCH = "b_0123456789abcdef"
STRICT = Policy(name="strict", alpha=0.0)


def rows(lake: Lake, name: str = "talks") -> list[dict]:
    every = []
    for shard in lake.datasets.manifest(name).shards:
        every += pq.read_table(lake.datasets.shard_path(name, shard.number)).to_pylist()
    return every


def shard_bytes(lake: Lake, name: str) -> list[bytes]:
    return [
        Path(lake.datasets.shard_path(name, shard.number)).read_bytes() for shard in lake.datasets.manifest(name).shards
    ]


def test_rows_are_accepted_chunks_packed_with_true_silence_between(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    first, second, third = rows(lake)
    audio = samples(10.0, 0)

    # chunks 0, 1 and 2 of talk 0; between 3.5 and 4.5 s the label covers nothing
    assert (first["start_s"], first["end_s"], first["duration_s"]) == (0.5, 6.0, 5.5)
    expected = audio[8000:96000].copy()
    expected[round(3.0 * 16000) : round(4.0 * 16000)] = 0
    assert np.array_equal(unflac(first["audio"]["bytes"]), expected)
    assert (
        first["text"]
        == "第0段 of talk 0 第0段 of talk 0 第1段 of talk 0 第1段 of talk 0 第2段 of talk 0 第2段 of talk 0"
    )
    assert [(s["start_s"], s["end_s"]) for s in first["segments"]] == [
        (0.0, 0.75), (0.75, 1.5), (1.5, 2.25), (2.25, 3.0), (4.0, 4.75), (4.75, 5.5),
    ]  # fmt: skip
    assert first["previous_text"] == ""
    assert first["chunk_ids"] == [f"00facts{0:025x}-0000{i}" for i in range(3)]
    assert first["segment_ids"] == [f"00facts{0:025x}-0000{i}.00{j}" for i in range(3) for j in range(2)]
    assert first["distances"] == [pytest.approx(0.1)] * 3
    assert first["distance"] == pytest.approx(0.1)
    assert first["avg_logprob"] == pytest.approx(-0.25)
    assert (first["language"], first["source"]) == ("zh-en", "talk-0.flac")

    # chunk 4: what was right before it was rejected, so it gets no text to condition on
    assert (second["start_s"], second["end_s"], second["previous_text"]) == (8.0, 9.0, "")
    assert np.array_equal(unflac(second["audio"]["bytes"]), audio[8 * 16000 : 9 * 16000])
    assert third["recording_id"] == f"rec_{4:024x}"


def test_a_pause_longer_than_the_gap_ends_a_row_and_text_goes_on(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER, max_gap_s=0.5)
    first, second = rows(lake)[:2]
    assert (first["end_s"], second["start_s"]) == (3.5, 4.5)
    assert second["previous_text"] == first["text"]


def test_rows_are_at_most_30_s(lake: Lake) -> None:
    spans = [(i * 9.0, i * 9.0 + 9.0) for i in range(7)]
    lake.batches.put(batch(7, batch_id="b_long", name="long"))
    lake.batches.put_result("b_long", put_recording(lake, 6, spans))
    lake.batches.cancel("b_long")
    freeze(lake, name="talks", batches=["long"], policy=PAPER)
    assert [row["duration_s"] for row in rows(lake)] == [27.0, 27.0, 9.0]


def test_every_second_is_accounted_for(lake: Lake) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    seconds = manifest.seconds
    assert seconds.input == 10.0 + 2.0 + 2.5 + 7.0 + 2.25
    assert seconds.accepted == 1.5 + 1.5 + 1.5 + 1.0 + 1.25
    assert seconds.rejected == 2.0 + 1.0
    assert seconds.quarantined == 2.5
    parts = seconds.accepted + seconds.rejected + seconds.quarantined + seconds.silence
    assert round(parts, 3) == seconds.input
    assert seconds.by_reason == {"agreement": 6.75, "disagreement": 3.0, "truncated": 2.5}
    assert manifest.counts.model_dump() == {
        "recordings": 5,
        "labeled": 4,
        "quarantined": 1,
        "pending": 0,
        "duplicates": 0,
        "chunks": 7,
        "accepted": 5,
        "salvaged": 0,
        "rejected": 2,
        "rows": 3,
    }


def test_the_manifest_tells_where_everything_comes_from(lake: Lake) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    assert manifest == lake.datasets.manifest("talks")
    assert lake.datasets.names() == ["talks"]
    assert manifest.batches == [BATCH]
    assert manifest.policy == PAPER.model_dump(mode="json")
    assert manifest.policy_hash == PAPER.key
    assert manifest.policy_explanation == explain(PAPER)
    assert manifest.teachers[0].model["reference"] == "packaged:whisper-base"
    (validator,) = manifest.validators
    assert validator.name == "perturbed:packaged:whisper-base"
    assert validator.fallback is True
    assert manifest.options[0]["decode"]["language"] == "zh-en"
    assert manifest.origins == {"teacher": manifest.seconds.accepted}
    for shard, data in zip(manifest.shards, shard_bytes(lake, "talks"), strict=True):
        assert shard.sha256 == hashlib.sha256(data).hexdigest()
        assert shard.bytes == len(data)
    with lake.open(lake.datasets.shard_path("talks", 0)) as file:  # what the API hands out
        assert file.read() == shard_bytes(lake, "talks")[0]


def test_shards_are_cut_by_size(lake: Lake) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=PAPER, shard_bytes=40_000)
    assert [shard.rows for shard in manifest.shards] == [1, 2]
    assert sum(shard.seconds for shard in manifest.shards) == sum(row["duration_s"] for row in rows(lake))
    with pytest.raises(NotFound):
        lake.datasets.shard_path("talks", 2)


def test_freezing_again_changes_nothing(lake: Lake) -> None:
    first = freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    assert freeze(lake, name="talks", batches=[BATCH, "lectures"], policy=PAPER) == first
    again = freeze(lake, name="again", batches=["lectures"], policy=PAPER)
    assert again.digest == first.digest
    assert shard_bytes(lake, "again") == shard_bytes(lake, "talks")


def test_other_content_needs_another_name(lake: Lake) -> None:
    first = freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    looser = PAPER.varied(alpha=1.0)
    with pytest.raises(Conflict, match="talks"):
        freeze(lake, name="talks", batches=["lectures"], policy=looser)
    assert lake.datasets.manifest("talks") == first
    assert len(lake.files.folders("datasets/talks")) == 1
    lake.datasets.drop_shards("talks", first.digest)  # named by the manifest: they stay
    assert len(rows(lake)) == 3


def test_nothing_accepted_says_why(lake: Lake) -> None:
    with pytest.raises(BadRequest, match="strict") as caught:
        freeze(lake, name="talks", batches=["lectures"], policy=STRICT)
    assert "disagreement 9.8 s" in (caught.value.hint or "")
    assert lake.datasets.names() == []


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "x" * 101])
def test_malformed_names_are_refused(lake: Lake, name: str) -> None:
    with pytest.raises(BadRequest):
        freeze(lake, name=name, batches=["lectures"], policy=PAPER)


def test_an_interrupted_freeze_leaves_no_dataset_and_is_done_again_alike(lake: Lake) -> None:
    whole = freeze(lake, name="whole", batches=["lectures"], policy=PAPER, shard_bytes=40_000)

    def pull_the_plug(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        freeze(lake, name="talks", batches=["lectures"], policy=PAPER, shard_bytes=40_000, progress=pull_the_plug)
    assert lake.datasets.names() == ["whole"]
    with pytest.raises(NotFound):
        lake.datasets.manifest("talks")
    assert freeze(lake, name="talks", batches=["lectures"], policy=PAPER, shard_bytes=40_000).shards == whole.shards
    assert shard_bytes(lake, "talks") == shard_bytes(lake, "whole")


def test_progress_counts_recordings(lake: Lake) -> None:
    seen: list[tuple[int, int]] = []
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


def test_a_recording_in_two_batches_enters_once(lake: Lake) -> None:
    lake.batches.put(batch(5, batch_id="b_more", name="more"))
    for result in lake.batches.results(BATCH):
        # the same files once more; what the first batch could not read, this one labeled
        lake.batches.put_result("b_more", put_recording(lake, 2, [(0.0, 1.5)]) if result.position == 2 else result)
    manifest = freeze(lake, name="talks", batches=["lectures", "more"], policy=PAPER)
    assert [row["source"] for row in rows(lake)] == ["talk-0.flac", "talk-0.flac", "talk-4.flac", "talk-2.flac"]
    assert manifest.seconds.input == 10.0 + 2.0 + 2.5 + 7.0 + 2.25
    assert manifest.seconds.quarantined == 0.0
    counts = manifest.counts
    assert (counts.recordings, counts.labeled, counts.quarantined, counts.duplicates) == (5, 5, 0, 5)


def test_an_unfinished_batch_is_refused_until_it_is_cancelled(lake: Lake) -> None:
    lake.batches.delete_result(BATCH, 0)
    with pytest.raises(Conflict, match="1 unfinished recording"):
        freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    lake.batches.cancel(BATCH)
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    assert manifest.counts.pending == 1
    assert [row["source"] for row in rows(lake)] == ["talk-4.flac"]


def test_a_batch_that_changes_meanwhile_is_noticed(lake: Lake) -> None:
    def take_away(done: int, _: int) -> None:
        lake.batches.put_result(BATCH, RecordingResult(4, "talk-4.flac", Outcome.QUARANTINED, 0.0, reason="failed"))

    lake.batches.put(batch(5, batch_id="b_first", name="first"))
    lake.batches.put_result("b_first", dataclasses.replace(put_recording(lake, 9, [(0.0, 1.0)]), position=0))
    lake.batches.cancel("b_first")
    with pytest.raises(Conflict, match="changed"):
        freeze(lake, name="talks", batches=["first", "lectures"], policy=PAPER, threads=1, progress=take_away)
    assert lake.datasets.names() == []
    assert lake.files.listing("datasets") == []


def test_labels_that_are_gone_are_the_stores_fault(lake: Lake) -> None:
    for path in lake.files.listing("labels"):
        lake.files.remove(path)
    with pytest.raises(StoreError, match=r"talk-0\.flac") as caught:
        freeze(lake, name="talks", batches=["lectures"], policy=PAPER)
    assert "resume" in (caught.value.hint or "")
    assert lake.datasets.names() == []


def test_datasets_reads_shards_as_they_are(lake: Lake, tmp_path: Path) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=PAPER, shard_bytes=40_000)
    paths = [lake.datasets.shard_path("talks", shard.number) for shard in manifest.shards]
    loaded = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    assert loaded.features["audio"].sampling_rate == 16_000
    plain = loaded.cast_column("audio", datasets.Audio(decode=False))
    assert plain.num_rows == 3
    for row, stored in zip(plain, rows(lake), strict=True):
        assert row == stored
        assert len(unflac(row["audio"]["bytes"])) == round(row["duration_s"] * 16000)

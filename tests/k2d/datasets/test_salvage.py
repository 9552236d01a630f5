"""Salvage: bad segments are excised at their timestamps, good ones packed; revoked ids leave; every second counted."""

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lakes import batch, copy, put_recording, samples, unflac

from k2d.corpus import views
from k2d.datasets.freeze import freeze
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest
from k2d.filtering.policy import PAPER, Policy, Weights
from k2d.schema import Metric, Outcome, RecordingResult
from k2d.store import Lake
from k2d.store.manifest import Manifest

BATCH = "b_0123456789abcdef"
# weights of this test: what is right must not depend on those that were fitted
JUDGE = Policy(
    name="judge", metric=Metric.EVIDENCE, weights=Weights(bias=-4.0, disagreement=8.0), reject_empty=True, salvage=True
)
WHOLE = JUDGE.model_copy(update={"salvage": False})
KEY = f"00facts{0:025x}"


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Talk 0: chunks 0–3 of two segments; the second of 1 and the first of 2 are bad. Talk 1: quarantined."""
    lake = Lake(str(tmp_path_factory.mktemp("spoiled") / "lake"))
    lake.batches.put(batch(2))
    spans = [(0.5, 2.0), (2.0, 3.5), (3.5, 6.0), (6.0, 8.0)]
    lake.batches.put_result(BATCH, put_recording(lake, 0, spans, bad=frozenset({(1, 1), (2, 0)})))
    lake.batches.put_result(BATCH, RecordingResult(1, "talk-1.flac", Outcome.QUARANTINED, 2.5, reason="truncated"))
    return lake


@pytest.fixture
def lake(spoiled: Lake, tmp_path: Path) -> Lake:
    return copy(spoiled, tmp_path / "lake")


def rows(lake: Lake, name: str = "talks") -> list[dict]:
    shards = lake.datasets.manifest(name).shards
    return [row for shard in shards for row in pq.read_table(lake.datasets.shard_path(name, shard.number)).to_pylist()]


def kept(lake: Lake, name: str = "talks") -> list[str]:
    return [one.removeprefix(KEY) for row in rows(lake, name) for one in row["segment_ids"]]


def test_good_segments_of_bad_chunks_are_packed_with_their_neighbours(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=JUDGE)
    first, second = rows(lake)
    audio = samples(9.0, 0)
    # chunk 0 and the first half of 1; then the second half of 2 and chunk 3
    assert (first["start_s"], first["end_s"]) == (0.5, 2.75)
    assert (second["start_s"], second["end_s"]) == (4.75, 8.0)
    for row in (first, second):
        start, stop = round(row["start_s"] * 16_000), round(row["end_s"] * 16_000)
        assert np.array_equal(unflac(row["audio"]["bytes"]), audio[start:stop])  # to the sample
    assert first["segment_ids"] == [f"{KEY}-00000.000", f"{KEY}-00000.001", f"{KEY}-00001.000"]
    assert first["chunk_ids"] == [f"{KEY}-00000", f"{KEY}-00001"]
    assert len(first["segments"]) == len(first["segment_ids"])
    assert first["text"] == "第0段 of talk 0 第0段 of talk 0 第1段 of talk 0"
    assert first["distance"] == max(first["distances"]) < 0.1
    # speech was excised between the two rows, so the second has no text to go on from
    assert second["previous_text"] == ""


def test_text_goes_on_where_nothing_was_excised(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=JUDGE, max_gap_s=0.0)
    lake.batches.put(batch(10, batch_id="b_gap", name="gap"))
    lake.batches.put_result("b_gap", put_recording(lake, 9, [(0.0, 1.0), (2.0, 3.0)], bad=frozenset({(0, 0)})))
    lake.batches.cancel("b_gap")
    freeze(lake, name="gap", batches=["gap"], policy=JUDGE, max_gap_s=0.5)
    first, second = rows(lake, "gap")
    assert (first["start_s"], first["end_s"]) == (0.5, 1.0)
    assert second["previous_text"] == first["text"]


def test_the_ledger_counts_what_was_salvaged(lake: Lake) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=JUDGE)
    seconds = manifest.seconds
    assert (seconds.accepted, seconds.salvaged, seconds.rejected) == (3.5, 2.0, 2.0)
    assert seconds.by_reason == {"agreement": 3.5, "substitution": 2.0, "truncated": 2.5}
    counts = manifest.counts
    assert (counts.accepted, counts.salvaged, counts.rejected, counts.chunks) == (2, 2, 0, 4)
    book = views.ledger(lake, lake.batches.get(BATCH), JUDGE)
    assert book.chunks.model_dump() == {"accepted": 2, "salvaged": 2, "rejected": 0}
    ms = {name: round(1000 * value) for name, value in book.seconds}
    assert {name: value for name, value in ms.items() if name != "input"} == {
        name: round(1000 * getattr(seconds, name)) for name in ms if name != "input"
    }
    assert ms.pop("input") == sum(ms.values()) == round(1000 * seconds.input)


def test_without_salvage_the_whole_chunk_goes(lake: Lake) -> None:
    manifest = freeze(lake, name="talks", batches=["lectures"], policy=WHOLE)
    assert manifest.seconds.salvaged == 0
    assert manifest.seconds.rejected == 4.0
    assert kept(lake) == ["-00000.000", "-00000.001", "-00003.000", "-00003.001"]


@pytest.mark.parametrize("seed", range(5))
def test_excision_conserves_seconds(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(3))
    for number in range(3):
        spans, at = [], 0
        for _ in range(rng.randint(1, 12)):
            start = at + rng.choice([0, rng.randint(0, 3000)])
            at = start + rng.randint(2, 9000)
            spans.append((start / 1000, at / 1000))
        every = [(chunk, segment) for chunk in range(len(spans)) for segment in (0, 1)]
        bad = frozenset(one for one in every if rng.random() < 0.4)
        lake.batches.put_result(BATCH, put_recording(lake, number, spans, bad=bad))
    try:
        manifest = freeze(lake, name="talks", batches=["lectures"], policy=JUDGE)
    except BadRequest:
        pytest.skip("nothing was good")
    ms = {name: round(1000 * value) for name, value in manifest.seconds if name != "by_reason"}
    assert ms.pop("input") == sum(ms.values())
    reasons = sum(round(1000 * value) for value in manifest.seconds.by_reason.values())
    assert reasons == ms["accepted"] + ms["rejected"] + ms["quarantined"]
    found = rows(lake)
    assert all(row["duration_s"] <= 30 for row in found)
    spoken = sum(round(1000 * (s["end_s"] - s["start_s"])) for row in found for s in row["segments"])
    assert spoken == ms["accepted"] + ms["salvaged"]  # chunks here have no pauses inside
    ids = [one for row in found for one in row["segment_ids"]]
    assert len(ids) == len(set(ids))
    for row in found:
        assert len(unflac(row["audio"]["bytes"])) == round(row["duration_s"] * 16_000)


# ---- revoked ------------------------------------------------------------------------------------------------------


def test_what_is_revoked_leaves_and_the_rest_of_its_chunk_stays(lake: Lake) -> None:
    first = freeze(lake, name="talks", batches=["lectures"], policy=JUDGE)
    gone = [f"{KEY}-00003", f"{KEY}-00000.001", f"{KEY}-00000.001", "elsewhere-00007"]
    manifest = freeze(lake, name="fewer", batches=["lectures"], policy=JUDGE, without=gone)
    assert kept(lake, "fewer") == ["-00000.000", "-00001.000", "-00002.001"]
    assert len(rows(lake, "fewer")) == 3
    assert manifest.digest != first.digest
    assert (manifest.without.ids, manifest.without.found) == (3, 2)
    assert manifest.seconds.by_reason["revoked"] == 0.75 + 2.0
    ms = {name: round(1000 * value) for name, value in manifest.seconds if name != "by_reason"}
    assert ms.pop("input") == sum(ms.values())
    again = freeze(lake, name="again", batches=["lectures"], policy=JUDGE, without=sorted(gone))
    assert again.digest == manifest.digest
    assert first.without is None


def test_segments_are_revoked_under_a_policy_that_knows_only_chunks(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER, without=[f"{KEY}-00003.000"])
    assert kept(lake) == ["-00000.000", "-00000.001", "-00003.001"]
    assert rows(lake)[-1]["distances"] == [pytest.approx(0.1)]  # the chunk's: no other is known


@pytest.mark.parametrize("bad", ["", "talks", "abc-1.2", "../x-00001", f"{KEY}-00001.000.1"])
def test_what_is_no_id_is_refused(lake: Lake, bad: str) -> None:
    with pytest.raises(BadRequest, match="not the id of a chunk or a segment"):
        freeze(lake, name="talks", batches=["lectures"], policy=JUDGE, without=[bad])


def test_datasets_of_the_first_format_are_still_read(lake: Lake) -> None:
    freeze(lake, name="talks", batches=["lectures"], policy=JUDGE)
    old = lake.datasets.manifest("talks").model_dump(mode="json")
    old["format_version"] = 1
    del old["counts"]["salvaged"], old["seconds"]["salvaged"], old["without"]
    Path(lake.files.full("datasets/talks/manifest.json")).unlink()
    lake.datasets.put(Manifest.model_validate(old))
    frozen = FrozenDataset(lake, "talks")
    assert frozen.manifest.seconds.salvaged == 0.0
    assert sum(len(frozen.read(group, ("id", "audio.bytes", "text"))) for group in frozen.groups()) == 2

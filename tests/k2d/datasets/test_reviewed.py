"""Freezing with reviewed texts: what people wrote replaces labels, what nobody wrote down stays out."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2d.datasets.formats import FORMATS, export
from k2d.datasets.freeze import freeze, plan_freeze
from k2d.datasets.slices import FreezePlan, SliceWriter, finish
from k2d.errors import BadRequest, Conflict
from k2d.filtering.policy import PAPER
from k2d.schema import Script
from k2d.store import Lake
from k2d.store.manifest import Manifest
from k2d.store.reviews import Review, ReviewVerdict

BATCH = "b_0123456789abcdef"
LABEL = "第{} of talk 0"


def say(lake: Lake, chunk: int, segment: int, verdict: str, text: str | None = None, *, by: str = "ada") -> None:
    """Store a review of a segment of talk 0."""
    key = lake.batches.result(BATCH, 0).label_key
    own = next(own for own in lake.labels.read(key) if own[0].index == chunk)[0].segments[segment]
    review_id = f"{by}-{chunk:05d}-{segment}-{verdict}"
    lake.reviews.put(Review(review_id, key, chunk, segment, own.text, ReviewVerdict(verdict), text, by, ""))


@pytest.fixture
def reviewed(lake: Lake) -> Lake:
    """Of talk 0: a confirmed and a corrected segment, a corrected one of the rejected chunk 3, three to leave out."""
    say(lake, 0, 0, "right")
    say(lake, 0, 1, "text", "把 gradient 算出來")
    say(lake, 3, 0, "text", "老师说 deadline")
    say(lake, 1, 0, "nothing")
    say(lake, 2, 1, "unknown")
    say(lake, 4, 0, "right")
    say(lake, 4, 0, "wrong", by="bob")
    return lake


def gold(lake: Lake, **more) -> Manifest:
    return freeze(lake, name="gold", batches=["lectures"], policy=PAPER, gold=True, **more)


def by_segment(lake: Lake, name: str = "gold") -> dict[str, tuple[str, str]]:
    """Text and origin of each segment of talk 0, by the end of its id."""
    found = {}
    for row in rows(lake, name):
        assert row["text"] == "".join(segment["text"] for segment in row["segments"]).strip()
        for own, segment, origin in zip(row["segment_ids"], row["segments"], row["origins"], strict=True):
            if row["source"] == "talk-0.flac":
                found[own[-9:]] = segment["text"].strip(), origin
    return found


def rows(lake: Lake, name: str = "gold") -> list[dict]:
    shards = lake.datasets.manifest(name).shards
    return [row for one in shards for row in pq.read_table(lake.datasets.shard_path(name, one.number)).to_pylist()]


def content(lake: Lake) -> list[bytes]:
    shards = lake.datasets.manifest("gold").shards
    return [Path(lake.datasets.shard_path("gold", shard.number)).read_bytes() for shard in shards]


def test_reviewed_texts_replace_labels_and_the_rest_of_what_was_reviewed_stays_out(reviewed: Lake) -> None:
    manifest = gold(reviewed)
    found = by_segment(reviewed)
    assert {place for place, (_, origin) in found.items() if origin == "review"} == {
        "00000.000",
        "00000.001",
        "00003.000",
    }
    assert found["00000.001"] == ("把 gradient 算出來", "review")
    assert found["00003.000"] == ("老师说 deadline", "review")  # its chunk is rejected
    assert {"00001.000", "00002.001", "00003.001", "00004.000"}.isdisjoint(found)
    assert {"00001.001", "00002.000", "00004.001"} <= {place for place, own in found.items() if own[1] == "teacher"}
    raw = next(row["raw_text"] for row in rows(reviewed) if row["segment_ids"][0].endswith("00000.000"))
    assert "gradient" not in raw
    assert "of talk 0" in raw
    reviews = manifest.reviews
    assert reviews is not None
    assert (reviews.segments, reviews.confirmed, reviews.corrected, reviews.left_out, reviews.disputed) == (
        6,
        1,
        2,
        3,
        1,
    )
    assert manifest.origins is not None
    assert manifest.origins["review"] > 0


def test_every_second_is_accounted_for(reviewed: Lake) -> None:
    seconds = gold(reviewed).seconds
    parts = seconds.accepted + seconds.salvaged + seconds.rejected + seconds.quarantined + seconds.silence
    assert parts == pytest.approx(seconds.input, abs=1e-9)
    assert sum(seconds.by_reason.values()) + seconds.silence + seconds.salvaged == pytest.approx(
        seconds.input, abs=1e-9
    )
    assert seconds.by_reason["reviewed"] > 0
    in_rows = sum(s["end_s"] - s["start_s"] for row in rows(reviewed) for s in row["segments"])
    assert in_rows == pytest.approx(seconds.accepted + seconds.salvaged, abs=0.01)


def test_a_review_that_comes_while_slices_are_written_changes_nothing(reviewed: Lake) -> None:
    manifest = gold(reviewed, shard_bytes=4000, threads=1)
    expected = content(reviewed)
    reviewed.datasets.delete("gold")
    assert gold(reviewed, shard_bytes=4000, threads=4).digest == manifest.digest
    assert content(reviewed) == expected
    reviewed.datasets.delete("gold")
    plan = plan_freeze(reviewed, name="gold", batches=["lectures"], policy=PAPER, gold=True, shard_bytes=4000)
    assert isinstance(plan, FreezePlan)
    plan = FreezePlan.model_validate_json(plan.model_dump_json())  # as a worker reads it
    say(reviewed, 2, 0, "text", "改了")
    for slice_ in reversed(list(plan.slices())):
        SliceWriter(reviewed, plan).write(slice_)
    assert finish(reviewed, "gold", plan.digest) is not None
    assert content(reviewed) == expected
    with pytest.raises(Conflict, match="exists with other content"):  # it would have that review
        gold(reviewed, shard_bytes=4000)


def test_the_digest_is_that_of_the_reviews(reviewed: Lake) -> None:
    manifest = gold(reviewed)
    reviewed.datasets.delete("gold")
    assert gold(reviewed).digest == manifest.digest
    reviewed.datasets.delete("gold")
    say(reviewed, 2, 0, "right")
    assert gold(reviewed).digest != manifest.digest
    without = freeze(reviewed, name="plain", batches=["lectures"], policy=PAPER)
    assert (without.reviews, "raw_text" in rows(reviewed, "plain")[0]) == (None, False)


def test_a_revoked_segment_stays_out_whatever_was_reviewed(reviewed: Lake) -> None:
    gold(reviewed)
    revoked = next(own for row in rows(reviewed) for own in row["segment_ids"] if own.endswith("00003.000"))
    reviewed.datasets.delete("gold")
    gold(reviewed, without=[revoked])
    assert "00003.000" not in by_segment(reviewed)


def test_without_a_review_there_is_no_gold(lake: Lake) -> None:
    with pytest.raises(BadRequest, match="no segment of these batches is reviewed"):
        gold(lake)


def test_reviewed_texts_are_converted_to_one_script(reviewed: Lake) -> None:
    gold(reviewed, script=Script.TRADITIONAL)
    row = next(row for row in rows(reviewed) if row["segment_ids"][0].endswith("00003.000"))
    assert row["text"] == "老師說 deadline"
    assert "of talk 0" in row["raw_text"]


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_export_takes_reviewed_rows(reviewed: Lake, tmp_path: Path, name: str) -> None:
    gold(reviewed)
    export(reviewed, "gold", name, tmp_path / "out")
    if name == "kaldi":
        assert "of talk 0" in (tmp_path / "out" / "raw_text").read_text("utf-8")

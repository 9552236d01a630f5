"""A deleted batch takes what only it refers to."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from factories import finished_batch
from lakes import copy

from k2d.corpus.deletion import delete_batch, plan_deletion
from k2d.corpus.index import settle
from k2d.errors import Conflict, NotFound
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.reviews import Review, ReviewVerdict
from k2d.store.usage import OTHER, usage


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Batch `lectures` of two recordings and an upload; `shared` has its first recording and its upload, too."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.check()
    finished_batch(lake)
    uri, _, _ = lake.uploads.put(io.BytesIO(b"RIFF"))
    own, _, _ = lake.uploads.put(io.BytesIO(b"ID3"))
    lectures = lake.batches.get("lectures")
    _with_uploads(lake, lectures, [uri, own])
    shared = replace(lectures, id="b_shared", name="shared", sources=(replace(lectures.sources[0], uri=uri),))
    lake.batches.put(shared)
    result = lake.batches.result(lectures.id, 0)
    assert result is not None
    lake.batches.put_result(shared.id, result)
    return lake


def _with_uploads(lake: Lake, batch: Batch, uris: list[str]) -> None:
    sources = tuple(replace(s, uri=uri) for s, uri in zip(batch.sources, [*uris, "file:///x"], strict=True))
    lake.batches.write_document(f"batches/{batch.id}/batch.json", replace(batch, sources=sources))


@pytest.fixture
def lake(written: Lake, tmp_path: Path) -> Lake:
    return copy(written, tmp_path / "lake")


def folders(lake: Lake) -> dict[str, int]:
    names = ("labels", "facts", "hypotheses", "uploads", "examinations")
    return {name: len(lake.files.listing(name)) for name in names}


@pytest.mark.parametrize("indexed", [False, True])
def test_what_another_batch_refers_to_stays(lake: Lake, indexed: bool) -> None:
    for batch in list(lake.batches.all()) if indexed else ():
        settle(lake, batch)
    before, size = folders(lake), sum(row.bytes for row in usage(lake.files))
    assert (before["labels"], before["uploads"]) == (2, 2)
    deletion = plan_deletion(lake, lake.batches.get("lectures"))
    assert folders(lake) == before  # nothing is removed by planning
    assert deletion.document()["files"] == {"labels": 1, "facts": 1, "hypotheses": 1, "uploads": 1}
    delete_batch(lake, deletion)
    after = folders(lake)
    assert {name: before[name] - after[name] for name in ("labels", "facts", "hypotheses", "uploads")} == {
        "labels": 1,
        "facts": 1,
        "hypotheses": 1,
        "uploads": 1,
    }
    freed = size - sum(row.bytes for row in usage(lake.files))
    assert 0 <= freed - deletion.bytes < 1000  # and its name
    fresh = Lake(lake.files.root)
    with pytest.raises(NotFound):
        fresh.batches.get("lectures")
    assert [batch.name for batch in fresh.batches.all()] == ["shared"]
    assert len(fresh.facts.read(str(next(fresh.batches.results("b_shared")).facts_key))) == 4
    delete_batch(fresh, plan_deletion(fresh, fresh.batches.get("shared")))
    assert folders(fresh) | {"examinations": 0} == dict.fromkeys(before, 0)
    assert fresh.files.listing("batches") == fresh.files.listing("names") == fresh.files.listing("recent") == []


def test_reviews_stay_unless_they_are_to_go(lake: Lake, tmp_path: Path) -> None:
    batch = lake.batches.get("lectures")
    shared, own = (str(result.label_key) for result in lake.batches.results(batch.id) if result.label_key)
    for number, key in enumerate((shared, own, own)):
        review = Review(f"review-{number}", key, 0, number, "label", ReviewVerdict.RIGHT, None, "ada", "")
        lake.reviews.put(review)
    deletion = plan_deletion(lake, batch)
    assert (deletion.reviews, deletion.document()["reviews_kept"], "reviews" in deletion.paths) == (2, 2, False)
    other = copy(lake, tmp_path / "other")
    delete_batch(lake, deletion)
    assert len(lake.reviews.of_labels([shared, own])) == 3
    everything = plan_deletion(other, batch, reviews=True)
    assert (everything.reviews, len(everything.paths["reviews"])) == (0, 2)
    delete_batch(other, everything)
    assert {review.label_key for review in other.reviews.of_labels([shared, own])} == {shared}


def test_a_batch_that_workers_may_be_at_is_not_deleted(lake: Lake) -> None:
    batch = lake.batches.get("lectures")
    lake.batches.delete_result(batch.id, 1)
    with pytest.raises(Conflict, match="unfinished") as caught:
        plan_deletion(lake, batch)
    assert "k2d cancel" in (caught.value.hint or "")
    lake.batches.cancel(batch.id)
    assert plan_deletion(lake, batch).document()["files"]["labels"] == 0  # of recording 1 nothing is known any more


def test_a_killed_deletion_goes_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = lake.batches.get("lectures")
    with monkeypatch.context() as patch:
        patch.setattr(type(lake.batches), "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            delete_batch(lake, plan_deletion(lake, batch))
    assert lake.batches.is_cancelled(batch.id)  # nobody labels it again meanwhile
    delete_batch(lake, plan_deletion(lake, batch))
    assert [left.name for left in lake.batches.all()] == ["shared"]


def test_every_file_has_a_kind(lake: Lake) -> None:
    settle(lake, lake.batches.get("lectures"))
    rows = {row.kind: row for row in usage(lake.files)}
    assert OTHER not in rows
    assert rows["uploads"].files == 2
    assert rows["labels, with audio"].bytes == sum(size for _, size in lake.files.sizes("labels"))
    assert sum(row.files for row in rows.values()) == len(lake.files.listing(""))
    assert lake.version()["facts_version"] == lake.version()["facts_written"]

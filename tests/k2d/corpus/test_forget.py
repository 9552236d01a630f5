"""What is known of a recording can be removed, and nothing else is."""

from pathlib import Path

import pytest
from lakes import batch, put_recording, recording

from k2d.corpus.forget import forget
from k2d.datasets.freeze import freeze
from k2d.errors import Conflict, NotFound
from k2d.filtering.policy import PAPER
from k2d.store import Examination, Lake
from k2d.store.reviews import Review, ReviewVerdict

BATCH = "b_0123456789abcdef"
FIRST, SECOND = recording(0, 4.0).id, recording(1, 4.0).id


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two recordings; the first one was examined under two keys, and has hypotheses with and without its id."""
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(2))
    for number in range(2):
        result = put_recording(lake, number, [(0.0, 3.0)])
        lake.batches.put_result(BATCH, result)
        named = {"label_key": result.label_key, "recording_id": result.recording_id}
        lake.hypotheses.write(f"{number}a" * 16, [], named)
        lake.hypotheses.write(f"{number}b" * 16, [], {"label_key": result.label_key})
        for letter in "cd":
            lake.examinations.put(f"{number}{letter}" * 16, Examination(recording(number, 4.0), None, None, 4.0))
    lake.examinations.put("ee" * 16, Examination(None, "truncated", "cut", 1.0))
    return lake


def files(lake: Lake) -> set[str]:
    folders = ("facts", "labels", "hypotheses", "examinations", f"batches/{BATCH}/results")
    return {path for folder in folders for path in lake.files.listing(folder)}


def test_all_that_is_known_of_a_recording_is_removed_and_nothing_else(lake: Lake) -> None:
    before = files(lake)
    forgotten = forget(lake, FIRST)
    assert (forgotten.examinations, forgotten.labels, forgotten.hypotheses) == (2, 1, 2)
    assert (forgotten.facts, forgotten.results, forgotten.datasets) == (1, 1, [])
    assert len(before - files(lake)) == 7
    assert lake.batches.result_positions(BATCH) == {1}  # missing: `k2d resume` does it
    with pytest.raises(NotFound):
        forget(lake, FIRST)
    assert forget(lake, SECOND).labels == 1
    assert files(lake) == {f"examinations/ee/{'ee' * 16}.json"}


def test_what_people_said_of_it_is_removed_too(lake: Lake) -> None:
    for number in range(2):
        label_key = next(lake.batches.results(BATCH, part=0)).label_key if not number else "b" * 32
        lake.reviews.put(
            Review(f"review-{number}", str(label_key), 0, 0, "x", ReviewVerdict.TEXT, "private", "ada", "")
        )
    assert forget(lake, FIRST).reviews == 1
    assert lake.reviews.label_keys() == ["b" * 32]


def test_a_recording_in_a_dataset_is_forgotten_only_on_request(lake: Lake) -> None:
    freeze(lake, name="v1", batches=["lectures"], policy=PAPER)
    before = files(lake)
    freeze(lake, name="v2", batches=["lectures"], policy=PAPER)
    lake.files.write("datasets/v2/manifest.json", b"{")
    with pytest.raises(Conflict, match="is in the dataset v1, and may be in the dataset v2, which cannot be read"):
        forget(lake, FIRST)
    planned = forget(lake, FIRST, keep_datasets=True, dry_run=True)
    assert (planned.datasets, planned.datasets_unreadable) == (["v1"], ["v2"])
    assert files(lake) == before
    assert forget(lake, FIRST, keep_datasets=True) == planned
    lake.datasets.open_shard("v1", 0).close()  # as it was


@pytest.mark.parametrize("name", ["", "rec_", "../labels", "rec_" + "0" * 23, "lectures"])
def test_other_names_are_refused(lake: Lake, name: str) -> None:
    with pytest.raises(NotFound):
        forget(lake, name)


def test_a_chunk_stands_for_its_recording(lake: Lake) -> None:
    [fact] = lake.facts.read(str(next(lake.batches.results(BATCH)).facts_key))
    assert forget(lake, fact.id).recording_id == FIRST

"""A dataset says by which versions of k2d its recordings were labeled, and mixes them only on request."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from lakes import batch, put_recording

from k2d.corpus import views
from k2d.datasets.freeze import freeze
from k2d.errors import Conflict
from k2d.filtering.policy import PAPER
from k2d.schema import Versions
from k2d.store import Lake

BATCH = "b_0123456789abcdef"
NOW = Versions(label=2, facts=4, labeled_by="0.3.0", validated_by="0.3.0")
OTHERS = [
    replace(NOW, label=1),
    replace(NOW, facts=3),
    replace(NOW, labeled_by="0.3.1"),
    replace(NOW, validated_by="0.3.1"),
    None,
]


def lake_of(folder: Path, *versions: Versions | None) -> Lake:
    lake = Lake(str(folder))
    lake.batches.put(batch(len(versions)))
    for number, own in enumerate(versions):
        result = put_recording(lake, number, [(0.0, 3.0)])
        lake.batches.put_result(BATCH, replace(result, versions=own))
    return lake


def test_the_manifest_has_the_versions(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, NOW, NOW)
    manifest = freeze(lake, name="v1", batches=["lectures"], policy=PAPER)
    assert [own.model_dump() for own in manifest.versions or ()] == [{**asdict(NOW), "recordings": 2}]
    assert lake.datasets.manifest("v1") == manifest
    assert len(views.status(lake, lake.batches.get(BATCH)).versions) == 1


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_mixture_is_frozen_only_on_request(tmp_path: Path, other: Versions | None) -> None:
    lake = lake_of(tmp_path, NOW, other, NOW)
    with pytest.raises(Conflict, match=r"different versions of k2d: .*0\.3\.0") as caught:
        freeze(lake, name="v1", batches=["lectures"], policy=PAPER)
    assert "--allow-mixed" in str(caught.value.hint)
    assert not lake.datasets.names()
    manifest = freeze(lake, name="v1", batches=["lectures"], policy=PAPER, allow_mixed=True)
    assert sorted(own.recordings for own in manifest.versions or ()) == [1, 2]
    assert freeze(lake, name="v1", batches=["lectures"], policy=PAPER) == manifest  # it is there
    assert sorted(row.recordings for row in views.status(lake, lake.batches.get(BATCH)).versions) == [1, 2]


def test_the_digest_does_not_depend_on_versions(tmp_path: Path) -> None:
    digests = {
        freeze(lake_of(tmp_path / name, own), name="v1", batches=["lectures"], policy=PAPER).digest
        for name, own in (("a", NOW), ("b", OTHERS[0]), ("c", None))
    }
    assert len(digests) == 1


def test_results_of_before_have_the_versions_of_their_shards(tmp_path: Path) -> None:
    manifest = freeze(lake_of(tmp_path, None), name="v1", batches=["lectures"], policy=PAPER)
    assert [(own.label, own.facts, own.labeled_by) for own in manifest.versions or ()] == [(1, 1, "")]

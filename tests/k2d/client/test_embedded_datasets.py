"""Datasets through the embedded client: listed, shown, deleted, and what is not there."""

from pathlib import Path

import pytest
from factories import finished_batch

from k2d.client import Embedded
from k2d.errors import NotFound
from k2d.filtering.policy import PAPER
from k2d.settings import Settings


@pytest.fixture
def embedded(tmp_path: Path) -> Embedded:
    embedded = Embedded(Settings(store=str(tmp_path / "lake"), _env_file=None))
    finished_batch(embedded.lake)
    return embedded


def test_datasets_are_listed_by_name_as_their_manifests_say(embedded: Embedded) -> None:
    assert embedded.datasets() == []
    manifests = {name: embedded.freeze(name, ["lectures"], PAPER.varied(alpha=0.3)) for name in ("talks", "again")}
    rows = embedded.datasets()
    assert [row.name for row in rows] == ["again", "talks"]
    for row in rows:
        manifest = manifests[row.name]
        assert embedded.manifest(row.name) == manifest
        assert (row.digest, row.created_at, row.rows) == (manifest.digest, manifest.created_at, manifest.counts.rows)
        assert row.bytes == sum(shard.bytes for shard in manifest.shards)
        assert row.hours == pytest.approx(manifest.seconds.accepted / 3600, abs=1e-4)


def test_deleting_a_dataset_leaves_the_others_and_the_labels(embedded: Embedded) -> None:
    for name in ("talks", "again"):
        embedded.freeze(name, ["lectures"], PAPER)
    labels = embedded.lake.files.listing("labels")
    deleted = embedded.delete_dataset("talks")
    assert deleted.name == "talks"
    assert [row.name for row in embedded.datasets()] == ["again"]
    assert [path.split("/")[1] for path in embedded.lake.files.listing("datasets")] == ["again"] * 2
    assert embedded.lake.files.listing("labels") == labels
    assert embedded.freeze("talks", ["lectures"], PAPER).digest == deleted.digest


@pytest.mark.parametrize("act", ["manifest", "delete_dataset"])
def test_a_dataset_that_is_not_there_is_not_found(embedded: Embedded, act: str) -> None:
    for name in ("talks", "../x"):
        with pytest.raises(NotFound):
            getattr(embedded, act)(name)

"""Lists and deletes the datasets of a lake, as documents of the API."""

from k2d.documents import DatasetItem
from k2d.errors import DamagedFile, described
from k2d.store import Lake
from k2d.store.manifest import Manifest


def list_datasets(lake: Lake) -> list[DatasetItem]:
    """List all datasets, sorted by name. One whose manifest is damaged has an `error`.

    Raises:
        StoreError
    """
    return [_entry(lake, name) for name in lake.datasets.names()]


def delete_dataset(lake: Lake, name: str) -> DatasetItem:
    """Delete a dataset, also a damaged one, and return its entry. The labels and batches it was made from stay.

    Raises:
        NotFound: no such dataset.
        StoreError
    """
    entry = _entry(lake, name)
    lake.datasets.delete(name)
    return entry


def _entry(lake: Lake, name: str) -> DatasetItem:
    try:
        return listed(lake.datasets.manifest(name))
    except DamagedFile as error:
        return DatasetItem(name=name, created_at="", digest="", rows=0, hours=0.0, bytes=0, error=described(error))


def listed(manifest: Manifest) -> DatasetItem:
    """A dataset as an entry of a list."""
    kept_s = manifest.seconds.accepted + manifest.seconds.salvaged
    return DatasetItem(
        name=manifest.name,
        created_at=manifest.created_at,
        digest=manifest.digest,
        rows=manifest.counts.rows,
        hours=round(kept_s / 3600, 6),
        bytes=sum(shard.bytes for shard in manifest.shards),
    )

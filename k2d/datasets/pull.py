"""Copies a frozen dataset from an API into a lake of one's own: manifest and shards, verified."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from k2d.datasets.formats import export
from k2d.errors import Conflict, StoreError
from k2d.store import Lake
from k2d.store.manifest import Manifest


class Remote(Protocol):
    """What a pull needs of a client (k2d.client.Client)."""

    def manifest(self, name: str) -> Manifest: ...

    def shard(self, name: str, number: int) -> Iterator[bytes]: ...


def pull(remote: Remote, name: str, lake: Lake) -> Manifest:
    """Copy dataset `name` into `lake`, checking every shard's hash; returns its manifest.

    Raises:
        StoreError: a shard arrived damaged, or the lake cannot be written.
        Conflict: the lake holds another dataset of that name.
    """
    manifest = remote.manifest(name)
    for shard in manifest.shards:

        def fill(file: BinaryIO, number: int = shard.number) -> None:
            for block in remote.shard(name, number):
                file.write(block)

        _, sha256 = lake.datasets.put_shard(name, manifest.digest, shard.number, fill)
        if sha256 != shard.sha256:
            lake.datasets.drop_shards(name, manifest.digest)
            raise StoreError(f"shard {shard.number} of {name!r} arrived damaged", hint="try again")
    if not lake.datasets.put(manifest) and lake.datasets.manifest(name).digest != manifest.digest:
        lake.datasets.drop_shards(name, manifest.digest)
        raise Conflict(f"this lake has another dataset called {name!r}", hint="pull it into another lake", name=name)
    return manifest


def export_pulled(remote: Remote, name: str, format_: str, folder: Path) -> Manifest:
    """Export a remote dataset to a local folder, by way of a temporary copy; returns its manifest."""
    with tempfile.TemporaryDirectory(prefix="k2d-pull-") as temporary:
        lake = Lake(temporary)
        manifest = pull(remote, name, lake)
        export(lake, name, format_, folder)
    return manifest

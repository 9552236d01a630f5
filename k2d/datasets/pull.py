"""Copies a frozen dataset from a remote API into a lake, and verifies its shards."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from k2d.datasets.formats import export
from k2d.errors import Conflict, StoreError
from k2d.schema import Script
from k2d.store import Lake
from k2d.store.datasets import shard_file
from k2d.store.manifest import Manifest


class RemoteDatasets(Protocol):
    """The methods of a client (k2d.client.Client) that a pull needs."""

    def manifest(self, name: str) -> Manifest: ...

    def shard(self, name: str, number: int) -> Iterator[bytes]: ...


def pull(remote: RemoteDatasets, name: str, lake: Lake) -> Manifest:
    """Copy dataset `name` into `lake`, verify the hash of every shard, and return the manifest.

        pull(Client("http://127.0.0.1:8080"), "lectures-v1", Lake("data"))

    Raises:
        StoreError: a shard arrived damaged, or the lake cannot be written.
        Conflict: the lake holds another dataset of that name.
    """
    manifest = remote.manifest(name)
    for shard in manifest.shards:

        def fill(file: BinaryIO, number: int = shard.number) -> None:
            for block in remote.shard(name, number):
                file.write(block)

        _, sha256 = lake.datasets.put_shard(name, manifest.digest, shard_file(shard), fill)
        if sha256 != shard.sha256:
            lake.datasets.drop_shards(name, manifest.digest)
            raise StoreError(f"shard {shard.number} of {name!r} arrived damaged", hint="try again")
    if not lake.datasets.put(manifest) and lake.datasets.manifest(name).digest != manifest.digest:
        lake.datasets.drop_shards(name, manifest.digest)
        raise Conflict(f"the lake has another dataset called {name!r}", hint="pull it into another lake", name=name)
    return manifest


def export_pulled(
    remote: RemoteDatasets, name: str, format_: str, folder: Path, *, script: Script | None = None
) -> Manifest:
    """Export a remote dataset to a local folder through a temporary copy; return its manifest.

    Raises:
        BadRequest, NotFound, Conflict, StoreError: as `pull` and `k2d.datasets.formats.export`.
    """
    with tempfile.TemporaryDirectory(prefix="k2d-pull-") as temporary:
        lake = Lake(temporary)
        manifest = pull(remote, name, lake)
        export(lake, name, format_, folder, script=script)
    return manifest

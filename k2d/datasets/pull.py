"""Reads frozen datasets of a remote API: copies one into a lake, or exports it shard by shard. Shards are verified."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyarrow.parquet as pq

from k2d.datasets.formats import export
from k2d.errors import Conflict, StoreError
from k2d.schema import Script
from k2d.steps import OnSteps, ignore_steps
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


class RemoteShards:
    """The datasets of a remote API, for reading: a shard is downloaded when it is opened, and gone when it is closed.

    Its bytes are verified. Nothing is kept but the shard that is open.
    """

    def __init__(self, remote: RemoteDatasets) -> None:
        self._remote = remote

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of a finished dataset."""
        return self._remote.manifest(name)

    def shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> pq.ParquetFile:
        """Open a shard as a Parquet file (a context manager)."""
        return pq.ParquetFile(self.open_shard(name, number, manifest=manifest))

    def open_shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> BinaryIO:
        """Open a shard as a binary file.

        Raises:
            StoreError: it arrived damaged.
        """
        expected = (manifest or self.manifest(name)).shards[number]
        file, sha256 = cast(BinaryIO, tempfile.TemporaryFile(prefix="k2d-shard-")), hashlib.sha256()  # noqa: SIM115 - the caller closes it
        try:
            for block in self._remote.shard(name, number):
                sha256.update(block)
                file.write(block)
            if sha256.hexdigest() != expected.sha256:
                raise StoreError(f"shard {number} of {name!r} arrived damaged", hint="try again")
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def missing_shards(self, name: str) -> list[int]:
        """None are known to be: the API tells when they are asked for."""
        return []


class RemoteStore:
    """A remote API as a store of datasets.

    export(RemoteStore(Client("http://127.0.0.1:8080")), "lectures-v1", "nemo", "out")
    """

    def __init__(self, remote: RemoteDatasets) -> None:
        self.datasets = RemoteShards(remote)


def export_pulled(
    remote: RemoteDatasets,
    name: str,
    format_: str,
    folder: str | Path,
    *,
    script: Script | None = None,
    on_steps: OnSteps = ignore_steps,
) -> Manifest:
    """Export a remote dataset to a folder, shard by shard; return its manifest.

    Raises:
        BadRequest, NotFound, Conflict, StoreError: as `k2d.datasets.formats.export`.
    """
    export(RemoteStore(remote), name, format_, folder, script=script, on_steps=on_steps)
    return remote.manifest(name)

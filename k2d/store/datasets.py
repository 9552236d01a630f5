"""Datasets in the lake: shards in a folder named by the digest of their content, and a manifest written last."""

import hashlib
import os
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import pyarrow.parquet as pq

from k2d.errors import NotFound
from k2d.store.base import LakePart, safe_name
from k2d.store.files import Files
from k2d.store.guard import damaged, guard
from k2d.store.manifest import Manifest
from k2d.store.parquet import dumps
from k2d.wording import counted

_BLOCK: Final = 1 << 20


class Datasets(LakePart):
    """Datasets: datasets/<name>/manifest.json and datasets/<name>/<digest>/00000.parquet.

    A dataset exists once its manifest does; shards without a manifest are those of an interrupted freeze.

        lake.datasets.manifest("lectures-v1").counts.rows
        pq.read_table(lake.datasets.shard_path("lectures-v1", 0))
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._hashed: dict[str, Any] = {}  # path → its mark when its bytes were those of the manifest

    def names(self) -> list[str]:
        """List the names of all finished datasets, sorted."""
        return [name for name in self.files.folders("datasets") if self.files.exists(_manifest(name))]

    def manifest(self, name: str) -> Manifest:
        """Read the manifest of a finished dataset.

        Raises:
            NotFound, StoreError
        """
        try:
            manifest: Manifest = self.read_document(_manifest(name), Manifest)
        except NotFound as error:
            raise NotFound(f"no dataset is called {name[:100]!r}", hint="`k2d datasets list` shows them") from error
        return manifest

    def put(self, manifest: Manifest) -> bool:
        """Finish a dataset by writing its manifest; False if the name is taken."""
        return self.files.create(_manifest(manifest.name), dumps(manifest.model_dump(mode="json")))

    def shard_path(self, name: str, number: int) -> str:
        """Return the location of a shard: an absolute path, or a URL for fsspec, pyarrow and `datasets`.

        Raises:
            NotFound: no such dataset, or it has fewer shards.
        """
        return self.files.url(self._shard(name, number))

    def open_shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> BinaryIO:
        """Open a shard as a binary file. With the dataset's `manifest`, that is not read again.

        Its bytes are those of the manifest: a shard is hashed when it is opened for the first time, and again when
        size, times or inode have changed.

        Raises:
            NotFound: no such dataset, or it has fewer shards, or the shard is gone.
            StoreError: the shard is not the one that was frozen.
        """
        return self.files.open(self._verified(name, number, manifest))

    def shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> pq.ParquetFile:
        """Open a shard as a Parquet file (a context manager); otherwise as `open_shard`."""
        return self.files.parquet(self._verified(name, number, manifest))

    def unverified_shard(self, name: str, number: int) -> pq.ParquetFile:
        """Open a shard as a Parquet file without hashing it, for a look at a column."""
        return self.files.parquet(self._shard(name, number))

    def missing_shards(self, name: str) -> list[int]:
        """List the numbers of the shards that are in the manifest but not in the store."""
        manifest = self.manifest(name)
        paths = set(self.files.listing(f"{_folder(name)}/{manifest.digest}"))
        numbers = [shard.number for shard in manifest.shards]
        return [number for number in numbers if _path(name, manifest.digest, number) not in paths]

    def put_shard(self, name: str, digest: str, number: int, fill: Callable[[BinaryIO], None]) -> tuple[int, str]:
        """Write a shard: `fill` is called with the open file. Returns the size in bytes and the sha256.

        If `fill` raises, nothing is stored.

        Raises:
            StoreError: the shard cannot be written.
        """
        path = _path(name, digest, number)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                fill(pending.file)
                pending.file.flush()
                size = os.path.getsize(pending.name)
                with open(pending.name, "rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            pending.commit(path)
        return size, sha256

    def drop_shards(self, name: str, digest: str) -> None:
        """Remove the shards with this digest, unless they belong to the finished dataset."""
        if not self.files.exists(_manifest(name)) or self.manifest(name).digest != digest:
            self.files.remove_folder(f"{_folder(name)}/{safe_name(digest)}")

    def delete(self, name: str) -> None:
        """Remove a dataset: its manifest first, so that there is never a manifest without shards."""
        self.files.remove(_manifest(name))
        self.files.remove_folder(_folder(name))

    def _verified(self, name: str, number: int, manifest: Manifest | None) -> str:
        """The path of a shard, once its bytes are known to be those of the manifest."""
        manifest = manifest or self.manifest(name)
        path = self._shard(name, number, manifest)
        mark = self.files.mark(path)
        if self._hashed.get(path) == mark:
            return path
        expected, sha256, size = manifest.shards[number], hashlib.sha256(), 0
        with self.files.open(path) as file, guard(path):
            while block := file.read(_BLOCK):
                sha256.update(block)
                size += len(block)
        if size != expected.bytes:
            raise damaged(path, f"it has {size:,} of {expected.bytes:,} bytes")
        if sha256.hexdigest() != expected.sha256:
            raise damaged(path, "its bytes are not those that were frozen (sha256)")
        self._hashed[path] = mark
        return path

    def _shard(self, name: str, number: int, manifest: Manifest | None = None) -> str:
        manifest = manifest or self.manifest(name)
        if not 0 <= number < len(manifest.shards):
            raise NotFound(f"dataset {name!r} has {counted(len(manifest.shards), 'shard')}, none with number {number}")
        return _path(name, manifest.digest, number)


def _folder(name: str) -> str:
    return f"datasets/{safe_name(name)}"


def _path(name: str, digest: str, number: int) -> str:
    return f"{_folder(name)}/{safe_name(digest)}/{number:05d}.parquet"


def _manifest(name: str) -> str:
    return f"{_folder(name)}/manifest.json"

"""Datasets in the lake: shards under the digest of their content, and the manifest that makes them count."""

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO

import pyarrow.parquet as pq

from k2d.errors import NotFound
from k2d.store.guard import guard
from k2d.store.manifest import Manifest
from k2d.store.parquet import dumps
from k2d.store.rooted import Rooted, safe


class Datasets(Rooted):
    """datasets/<name>/manifest.json, datasets/<name>/<digest>/00000.parquet"""

    def names(self) -> list[str]:
        """Names of all datasets that are finished, sorted."""
        return [name for name in self.files.folders("datasets") if self.files.exists(_manifest(name))]

    def manifest(self, name: str) -> Manifest:
        """The manifest of a finished dataset.

        Raises:
            NotFound, StoreError
        """
        try:
            manifest: Manifest = self.read_document(_manifest(name), Manifest)
        except NotFound as error:
            raise NotFound(f"no dataset is called {name[:100]!r}", hint="`k2d datasets` lists them") from error
        return manifest

    def put(self, manifest: Manifest) -> bool:
        """Finish a dataset; False when the name is taken."""
        return self.files.create(_manifest(manifest.name), dumps(manifest.model_dump(mode="json")))

    def shard_path(self, name: str, number: int) -> str:
        """Where a shard is: an absolute path or a URL that fsspec, pyarrow and `datasets` open.

        Raises:
            NotFound: no such dataset, or it has fewer shards.
        """
        return self.files.url(self._shard(name, number))

    def open_shard(self, name: str, number: int) -> BinaryIO:
        """A shard's bytes."""
        return self.files.open(self._shard(name, number))

    def shard(self, name: str, number: int, *, digest: str | None = None) -> pq.ParquetFile:
        """A shard as an open Parquet file; a context manager. Who knows the digest spares a look at the manifest."""
        return self.files.parquet(_path(name, digest, number) if digest else self._shard(name, number))

    def missing_shards(self, name: str) -> list[int]:
        """Numbers of the shards that the manifest names and the store does not hold."""
        manifest = self.manifest(name)
        there = set(self.files.listing(f"{_folder(name)}/{manifest.digest}"))
        numbers = [shard.number for shard in manifest.shards]
        return [number for number in numbers if _path(name, manifest.digest, number) not in there]

    def put_shard(self, name: str, digest: str, number: int, fill: Callable[[BinaryIO], None]) -> tuple[int, str]:
        """Write a shard by letting `fill` write its file; returns its size in bytes and its sha256.

        Raises:
            StoreError: the store cannot take it. When `fill` raises, nothing is left behind.
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
        """Remove shards that no manifest names; those of a finished dataset stay."""
        if not self.files.exists(_manifest(name)) or self.manifest(name).digest != digest:
            self.files.remove_folder(f"{_folder(name)}/{safe(digest)}")

    def delete(self, name: str) -> None:
        """Remove a dataset: its manifest first, so that it never counts without its shards."""
        self.files.remove(_manifest(name))
        self.files.remove_folder(_folder(name))

    def _shard(self, name: str, number: int) -> str:
        manifest = self.manifest(name)
        if not 0 <= number < len(manifest.shards):
            raise NotFound(f"dataset {name!r} has {len(manifest.shards)} shards, none with number {number}")
        return _path(name, manifest.digest, number)


def _folder(name: str) -> str:
    return f"datasets/{safe(name)}"


def _path(name: str, digest: str, number: int) -> str:
    return f"{_folder(name)}/{safe(digest)}/{number:05d}.parquet"


def _manifest(name: str) -> str:
    return f"{_folder(name)}/manifest.json"

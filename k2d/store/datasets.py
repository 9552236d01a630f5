"""Datasets in the lake: shards in a folder named by the digest of their content, and a manifest written last.

While a dataset is written, records lie beside its shards: the plan, and what was written of each slice of it. They are
removed when the manifest is there.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, Final

import pyarrow.parquet as pq
from pydantic import BaseModel

from k2d.errors import NotFound
from k2d.store.base import LakePart, safe_name
from k2d.store.files import Files
from k2d.store.guard import damaged, guard
from k2d.store.manifest import DatasetShard, Manifest
from k2d.store.parquet import dumps
from k2d.wording import counted

_BLOCK: Final = 1 << 20


class Datasets(LakePart):
    """Datasets: datasets/<name>/manifest.json and datasets/<name>/<digest>/<part>-<slice>-<number>.parquet.

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
            hint = "`k2d datasets list` shows them"
            raise NotFound(f"no dataset is called {name[:100]!r}", hint=hint, dataset=name[:100]) from error
        return manifest

    def is_finished(self, name: str) -> bool:
        """Whether the dataset exists. Its manifest is not read."""
        return self.files.exists(_manifest(name))

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
        return [shard.number for shard in manifest.shards if _path(name, manifest.digest, shard) not in paths]

    def put_shard(self, name: str, digest: str, file: str, fill: Callable[[BinaryIO], None]) -> tuple[int, str]:
        """Write a shard under the name `file`: `fill` is called with the open file. Returns its bytes and its sha256.

        If `fill` raises, nothing is stored.

        Raises:
            StoreError: the shard cannot be written.
        """
        path = f"{_folder(name)}/{safe_name(digest)}/{safe_name(file)}"
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                fill(pending.file)
                pending.file.flush()
                size = os.path.getsize(pending.name)
                with open(pending.name, "rb") as written:
                    sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            pending.commit(path)
        return size, sha256

    # ---- records of a dataset that is being written ---------------------------------------------------------------

    def put_record(self, name: str, digest: str, key: str, record: BaseModel) -> None:
        """Store a record."""
        self.write_document(_record(name, digest, key), record.model_dump(mode="json"))

    def record(self, name: str, digest: str, key: str, kind: type[Any]) -> Any:
        """Read a record as an instance of `kind`.

        Raises:
            NotFound, StoreError
        """
        return self.read_document(_record(name, digest, key), kind)

    def written(self, name: str, digest: str) -> set[str]:
        """The names of all files beside the shards with this digest, and of these. One listing."""
        return {path.rpartition("/")[2] for path in self.files.listing(f"{_folder(name)}/{safe_name(digest)}")}

    def has_files(self, name: str, digest: str, files: Iterable[str]) -> bool:
        """Whether all these files are among the shards with this digest."""
        folder = f"{_folder(name)}/{safe_name(digest)}"
        return all(self.files.exists(f"{folder}/{safe_name(file)}") for file in files)

    def drop_records(self, name: str, digest: str) -> None:
        """Remove all records: the dataset is finished."""
        for file in self.written(name, digest):
            if file.endswith(".json"):
                self.files.remove(f"{_folder(name)}/{safe_name(digest)}/{file}")

    # ---------------------------------------------------------------------------------------------------------------

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
        return _path(name, manifest.digest, manifest.shards[number])


def _folder(name: str) -> str:
    return f"datasets/{safe_name(name)}"


def shard_file(shard: DatasetShard) -> str:
    """The name of a shard's file in the folder of its dataset."""
    return shard.file or f"{shard.number:05d}.parquet"


def _path(name: str, digest: str, shard: DatasetShard) -> str:
    return f"{_folder(name)}/{safe_name(digest)}/{safe_name(shard_file(shard))}"


def _record(name: str, digest: str, key: str) -> str:
    return f"{_folder(name)}/{safe_name(digest)}/{safe_name(key)}.json"


def _manifest(name: str) -> str:
    return f"{_folder(name)}/manifest.json"

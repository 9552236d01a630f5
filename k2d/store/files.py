"""Files under one root on any fsspec file system: atomic writes, reads, listings.

Locally a write is a temporary file in the target's folder, fsync, rename; remotely a local temporary file, then one
put (object stores show an object whole or not at all). Paths are relative to the root, with forward slashes.
"""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import pyarrow.parquet as pq

from k2d.errors import NotFound, StoreError, install_hint
from k2d.store.guard import guard

TEMP_SUFFIX = ".tmp"
_IN = TypeVar("_IN")
_OUT = TypeVar("_OUT")


class Files:
    """The root. Safe to share between threads, and across a fork (the client is opened again in the child)."""

    def __init__(self, root: str, **storage_options: Any) -> None:
        self._options = storage_options
        self._url = root
        self._pid = -1
        self.local = "://" not in root or root.startswith(("file://", "local://"))
        if self.local:
            self.root = os.path.abspath(root.split("://", 1)[-1])
        else:
            # another process may add objects at any time: a cached listing would hide them
            self._options.setdefault("use_listings_cache", False)
            self.root = self.fs._strip_protocol(root).rstrip("/")

    @property
    def fs(self) -> Any:
        """The remote file system of this process.

        Raises:
            StoreError: the protocol is unknown, its package is missing or it cannot be opened.
        """
        if self._pid != os.getpid():
            try:
                with guard(self._url):
                    self._fs, _ = fsspec.core.url_to_fs(self._url, **self._options)
            except (ImportError, ValueError) as error:
                hint = f"s3:// needs the s3 extra ({install_hint('s3')}); other protocols need their fsspec package"
                raise StoreError(f"cannot open the store at {self._url}: {error}", hint=hint) from error
            self._pid = os.getpid()
        return self._fs

    def full(self, path: str) -> str:
        """The path as the file system wants it."""
        return f"{self.root}/{path}" if path else self.root

    def url(self, path: str) -> str:
        """Where other programs find it: an absolute path, or a URL with its protocol."""
        return self.full(path) if self.local else str(self.fs.unstrip_protocol(self.full(path)))

    def exists(self, path: str) -> bool:
        with guard(path):
            return os.path.exists(self.full(path)) if self.local else bool(self.fs.exists(self.full(path)))

    def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            return Path(self.full(path)).read_bytes() if self.local else cast(bytes, self.fs.cat_file(self.full(path)))

    def open(self, path: str) -> BinaryIO:
        """A seekable binary file for reading.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            full = self.full(path)
            return cast(BinaryIO, open(full, "rb") if self.local else self.fs.open(full, "rb"))

    def parquet(self, path: str) -> pq.ParquetFile:
        """An open Parquet file; a context manager.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            return pq.ParquetFile(self.full(path) if self.local else self.fs.open(self.full(path), "rb"))

    def write(self, path: str, data: bytes) -> None:
        """Put `data` at `path` atomically, replacing what is there."""
        if not self.local:
            with guard(path, writing=True):
                self.fs.pipe_file(self.full(path), data)
            return
        with self.pending(os.path.dirname(path)) as pending, guard(path, writing=True):
            pending.file.write(data)
            pending.commit(path)

    def create(self, path: str, data: bytes) -> bool:
        """Put `data` at `path` unless something is there; False then. Of several writers at once, one wins."""
        if self.local:
            with self.pending(os.path.dirname(path)) as pending, guard(path, writing=True):
                pending.file.write(data)
                return pending.commit(path, exclusive=True)
        with guard(path, writing=True):
            # a store that cannot create exclusively ignores the mode: then this look at least narrows the race
            if self.fs.exists(self.full(path)):
                return False
            try:
                self.fs.pipe_file(self.full(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens when it is not there."""
        with contextlib.suppress(NotFound), guard(path):
            os.unlink(self.full(path)) if self.local else self.fs.rm_file(self.full(path))

    def remove_folder(self, path: str) -> None:
        """Delete a folder and all in it; nothing happens when it is not there."""
        with contextlib.suppress(NotFound), guard(path):
            shutil.rmtree(self.full(path)) if self.local else self.fs.rm(self.full(path), recursive=True)

    def listing(self, folder: str) -> list[str]:
        """Paths of all finished files under `folder` at any depth, sorted, relative to the root."""
        with guard(folder):
            return sorted(path for path in self._walk(folder) if not path.endswith(TEMP_SUFFIX))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        with guard(folder):
            full = self.full(folder)
            if self.local:
                return sorted(e.name for e in os.scandir(full) if e.is_dir()) if os.path.isdir(full) else []
            try:
                entries = self.fs.ls(full, detail=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def pending(self, folder: str) -> "Pending":
        """A file to be filled, then committed under its final name. Use as a context manager."""
        return Pending(self, folder)

    def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Remove unfinished writes that killed processes left behind in a local root; how many."""
        if not self.local:
            return 0
        limit, removed = time.time() - older_than_s, 0
        with guard(self.root, writing=True):
            for path in self._walk(""):
                full = self.full(path)
                if path.endswith(TEMP_SUFFIX) and os.path.getmtime(full) < limit:
                    os.unlink(full)
                    removed += 1
        return removed

    def many(self, function: Callable[[_IN], _OUT], items: Iterable[_IN]) -> Iterator[_OUT]:
        """Apply a reading function to many items in threads; results in order, at most a slab of them in memory."""
        threads = 8 if self.local else 32  # remote reads wait for the network, not for this machine
        iterator = iter(items)
        with ThreadPoolExecutor(threads, thread_name_prefix="lake") as pool:
            while slab := list(islice(iterator, threads * 8)):
                yield from pool.map(function, slab)

    def _walk(self, folder: str) -> Iterator[str]:
        if self.local:
            for parent, _, names in os.walk(self.full(folder)):
                relative = os.path.relpath(parent, self.root).replace(os.sep, "/")
                yield from (name if relative == "." else f"{relative}/{name}" for name in names)
        else:
            prefix = len(self.root) + 1
            yield from (path[prefix:] for path in self.fs.find(self.full(folder)))


class Pending:
    """A file that does not count yet: `file` is open for writing at `name`; leaving without commit removes it."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        with guard(folder or files.root, writing=True):
            if files.local:
                parent = files.full(folder)
                os.makedirs(parent, exist_ok=True)
            else:
                parent = tempfile.gettempdir()
            self.name = os.path.join(parent, f".{uuid.uuid4().hex}{TEMP_SUFFIX}")
            self.file = cast(BinaryIO, open(self.name, "wb"))  # noqa: SIM115 - closed by commit or discard

    def __enter__(self) -> "Pending":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def commit(self, path: str, *, exclusive: bool = False) -> bool:
        """Make what was written so far appear at `path`, whole and durable.

        With `exclusive` (local roots only) an existing file stays, and the answer is False.

        Raises:
            StoreError
        """
        with guard(path, writing=True):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            target = self._files.full(path)
            if not self._files.local:
                self._files.fs.put_file(self.name, target)
                return True
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if exclusive and not _link(self.name, target):
                return False
            if not exclusive:
                os.replace(self.name, target)
            _sync_folder(os.path.dirname(target))
            return True

    def discard(self) -> None:
        """Remove the temporary file if it is still there."""
        with contextlib.suppress(OSError):  # a full disk fails the flush in close; the file goes all the same
            self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)


def _link(temporary: str, target: str) -> bool:
    """Give the file its name only if the name is free: link(2) is atomic where rename(2) would replace."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links (FAT, some network mounts)
        if os.path.exists(target):
            return False
        os.replace(temporary, target)
    return True


def _sync_folder(folder: str) -> None:
    """Make the new name itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files under one root on any fsspec file system: atomic writes, reads, listings.

A local write is a temporary file in the target's folder, an fsync and a rename. A remote write is a local temporary
file and one put; object stores show an object completely or not at all. Paths are relative to the root, with forward
slashes.
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
from typing import Any, BinaryIO, Final, TypeVar, cast

import fsspec
import pyarrow.parquet as pq

from k2d.errors import NotFound, StoreError, install_hint
from k2d.filehash import path_status
from k2d.store import parquet
from k2d.store.guard import decoding, guard

TEMP_SUFFIX: Final = ".tmp"
_IN = TypeVar("_IN")
_OUT = TypeVar("_OUT")


class Files:
    """All files under one root. Can be shared between threads and across a fork (the child opens its own client).

    files = Files("s3://bucket/lake")
    files.write("notes/a.json", b"{}")
    """

    def __init__(self, root: str, **storage_options: Any) -> None:
        self._options = storage_options
        self._url = root
        self._pid = -1
        self.local = "://" not in root or root.startswith(("file://", "local://"))
        if self.local:
            self.root = os.path.abspath(root.split("://", 1)[-1])
            if os.path.isfile(self.root):
                hint = "K2D_STORE names a folder, or a URL such as s3://bucket/prefix"
                raise StoreError(f"the store {self.root} is a file", hint=hint)
        else:
            # other processes add objects at any time, which a cached listing would hide
            self._options.setdefault("use_listings_cache", False)
            self.root = self.fs._strip_protocol(root).rstrip("/")

    @property
    def fs(self) -> Any:
        """The fsspec file system of this process (remote roots only).

        Raises:
            StoreError: the protocol is unknown, its package is missing, or it cannot be opened.
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
        """Return the path with the root, as the file system expects it."""
        return f"{self.root}/{path}" if path else self.root

    def url(self, path: str) -> str:
        """Return the location for other programs: an absolute path, or a URL with its protocol."""
        return self.full(path) if self.local else str(self.fs.unstrip_protocol(self.full(path)))

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder at `path`."""
        with guard(path):
            return os.path.exists(self.full(path)) if self.local else bool(self.fs.exists(self.full(path)))

    def read(self, path: str) -> bytes:
        """Read a whole file.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            return Path(self.full(path)).read_bytes() if self.local else cast(bytes, self.fs.cat_file(self.full(path)))

    def mark(self, path: str) -> Any:
        """Return what changes with a file's content: size, times and inode; of an object, what its store says of it.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            if self.local:
                return path_status(self.full(path))
            info = self.fs.info(self.full(path))
            return [info.get(name) for name in ("size", "ETag", "LastModified", "mtime", "created", "generation")]

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading: binary and seekable.

        Raises:
            NotFound, StoreError
        """
        with guard(path):
            full = self.full(path)
            return cast(BinaryIO, open(full, "rb") if self.local else self.fs.open(full, "rb"))

    def parquet(self, path: str) -> pq.ParquetFile:
        """Open a Parquet file (a context manager).

        Raises:
            NotFound, StoreError
        """
        with guard(path), decoding(path):  # names in a damaged footer are no UTF-8
            source = self.full(path) if self.local else self.fs.open(self.full(path), "rb")
            file = pq.ParquetFile(source, page_checksum_verification=True)
            parquet.check(file)
            return file

    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically, replacing an existing one."""
        if not self.local:
            with guard(path, writing=True):
                self.fs.pipe_file(self.full(path), data)
            return
        with self.pending(os.path.dirname(path)) as pending, guard(path, writing=True):
            pending.file.write(data)
            pending.commit(path)

    def put(self, source: str | Path, path: str) -> None:
        """Copy a local file to `path` in an object store, replacing an existing one."""
        with guard(path, writing=True):
            self.fs.put_file(str(source), self.full(path))

    def create(self, path: str, data: bytes) -> bool:
        """Write a file atomically unless it exists; False then. Of several processes at once, one succeeds."""
        if self.local:
            with self.pending(os.path.dirname(path)) as pending, guard(path, writing=True):
                pending.file.write(data)
                return pending.commit(path, exclusive=True)
        with guard(path, writing=True):
            # stores without exclusive creation ignore the mode; for those this test at least shortens the race
            if self.fs.exists(self.full(path)):
                return False
            try:
                self.fs.pipe_file(self.full(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def remove(self, path: str) -> None:
        """Delete a file, if it exists."""
        with contextlib.suppress(NotFound), guard(path):
            os.unlink(self.full(path)) if self.local else self.fs.rm_file(self.full(path))

    def remove_folder(self, path: str) -> None:
        """Delete a folder with its content, if it exists."""
        with contextlib.suppress(NotFound), guard(path):
            shutil.rmtree(self.full(path)) if self.local else self.fs.rm(self.full(path), recursive=True)

    def listing(self, folder: str) -> list[str]:
        """List all files under `folder` at any depth, without unfinished writes; sorted paths, relative to the root."""
        with guard(folder):
            return sorted(path for path in self._walk(folder) if not path.endswith(TEMP_SUFFIX))

    def size(self, path: str) -> int | None:
        """The size of a file in bytes; None if there is none."""
        try:
            with guard(path):
                return os.stat(self.full(path)).st_size if self.local else int(self.fs.size(self.full(path)))
        except NotFound:
            return None

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Iterate over all files under `folder` with their sizes in bytes, in no order; unfinished writes too."""
        with guard(folder):
            if not self.local:
                prefix = len(self.root) + 1
                found = self.fs.find(self.full(folder), detail=True)
                yield from ((path[prefix:], int(entry.get("size") or 0)) for path, entry in found.items())
                return
            for path in self._walk(folder):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    yield path, os.stat(self.full(path)).st_size

    def folders_named(self, folder: str, suffix: str) -> list[str]:
        """List the folders under `folder` whose name ends in `suffix`, where files should be (local roots only)."""
        if not self.local or not suffix:
            return []
        paths = []
        with guard(folder):
            for parent, names, _ in os.walk(self.full(folder)):
                relative = os.path.relpath(parent, self.root).replace(os.sep, "/")
                paths += [f"{relative}/{name}" for name in names if name.endswith(suffix)]
        return sorted(paths)

    def unfinished(self, older_than_s: float) -> list[str]:
        """List the unfinished writes that are older than this: their process was killed. Remote roots have none."""
        if not self.local:
            return []
        with guard(self.root):
            paths = [path for path in self._walk("") if path.endswith(TEMP_SUFFIX)]
        return sorted(path for path in paths if self.age_s(path) > older_than_s)

    def age_s(self, path: str) -> float:
        """Seconds since a file was written, by the clocks of the store and of this machine; 0 where that is unknown or
        the file is gone."""
        written = self.written_at(path)
        return 0.0 if written is None else max(0.0, time.time() - written)

    def written_at(self, path: str) -> float | None:
        """When a file was written, by the store's clock; None where that is unknown or the file is gone."""
        with contextlib.suppress(NotFound), guard(path):
            if self.local:
                return os.path.getmtime(self.full(path))
            info = self.fs.info(self.full(path))
            written = info.get("LastModified") or info.get("mtime") or info.get("created")
            seconds = written.timestamp() if hasattr(written, "timestamp") else written
            return float(seconds) if isinstance(seconds, int | float) else None
        return None

    def clock(self) -> float:
        """The time by the store's clock, from a file that is written for it; by this machine's if the store takes
        none. Only times of one clock can be compared."""
        path = f"checks/{uuid.uuid4().hex}"
        try:
            self.write(path, b"")
            now = self.written_at(path)
            self.remove(path)
        except StoreError:
            now = None
        return time.time() if now is None else now

    def move(self, path: str, target: str) -> None:
        """Move a file, or locally a folder, to another path; nothing happens if it is gone."""
        with contextlib.suppress(NotFound), guard(path):
            if self.local:
                os.makedirs(os.path.dirname(self.full(target)), exist_ok=True)
                os.replace(self.full(path), self.full(target))
            else:
                self.fs.mv(self.full(path), self.full(target))

    def copy(self, path: str, target: str) -> None:
        """Copy a small file to another path; a folder in its place is moved."""
        if self.local and os.path.isdir(self.full(path)):
            self.move(path, target)
            return
        with contextlib.suppress(NotFound):
            self.write(target, self.read(path))

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders directly in `folder`, sorted."""
        with guard(folder):
            full = self.full(folder)
            if self.local:
                return sorted(e.name for e in os.scandir(full) if e.is_dir()) if os.path.isdir(full) else []
            try:
                entries = self.fs.ls(full, detail=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def pending(self, folder: str) -> "PendingFile":
        """Create a temporary file that is later committed under its final name. Use as a context manager.

        with files.pending("notes") as pending:
            pending.file.write(data)
            pending.commit("notes/b.bin")
        """
        return PendingFile(self, folder)

    def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Remove the unfinished writes of killed processes from a local root; return their number."""
        if not self.local:
            return 0
        paths = self.unfinished(older_than_s)
        for path in paths:
            self.remove(path)
        return len(paths)

    def many(self, function: Callable[[_IN], _OUT], items: Iterable[_IN]) -> Iterator[_OUT]:
        """Apply a function that reads files to many items, in threads.

        Yields the results in order; at most eight per thread are in memory at once.
        """
        threads = 8 if self.local else 32  # chosen: remote reads mostly wait for the network
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


class PendingFile:
    """A temporary file: `file` is open for writing, `name` is its local path. Removed on exit unless committed."""

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

    def __enter__(self) -> "PendingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def commit(self, path: str, *, exclusive: bool = False) -> bool:
        """Move the file to its final `path`, atomically and durably.

        With `exclusive` (local roots only) an existing file is kept and the result is False.

        Raises:
            StoreError
        """
        with guard(path, writing=True):
            if self.file.closed:
                _sync(self.name)
            else:
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
            _sync(os.path.dirname(target))
            return True

    def close(self) -> None:
        """Close the file, so that it holds no descriptor until it is committed.

        Raises:
            StoreError
        """
        with guard(self.name, writing=True):
            self.file.close()

    def discard(self) -> None:
        """Remove the temporary file if it still exists."""
        with contextlib.suppress(OSError):  # on a full disk the flush in close fails; the file is removed anyway
            self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)


def _link(temporary: str, target: str) -> bool:
    """Give the file its final name if that is free. link(2) does so atomically; rename(2) would replace a file."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links (FAT, some network mounts)
        if os.path.exists(target):
            return False
        os.replace(temporary, target)
    return True


def _sync(path: str) -> None:
    """fsync a file, or a folder, so that a new file name in it survives a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

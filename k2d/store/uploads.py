"""Uploads: audio files that were sent to k2d instead of referenced by a URI, stored under the hash of their bytes."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from k2d.errors import NotFound
from k2d.schema import Source
from k2d.store.base import LakePart, key_path
from k2d.store.files import Files
from k2d.store.guard import guard

SCHEME: Final = "lake://"
_BLOCK: Final = 1 << 20
_UPLOAD: Final = re.compile(r"uploads/([0-9a-f]{64})")


def upload_uri(sha256: str) -> str:
    """The URI of an upload with these bytes."""
    return f"{SCHEME}uploads/{sha256}"


class StagedUpload:
    """A file that is being received: hashed as it is written, in the lake once it is committed.

    with lake.uploads.stage() as staged:
        staged.write(b"...")
        staged.finish()
        staged.commit()  # "lake://uploads/<sha256>"
    """

    def __init__(self, files: Files) -> None:
        self.size = 0
        self._files = files
        self._pending = files.pending("uploads")
        self._sha256 = hashlib.sha256()

    def __enter__(self) -> "StagedUpload":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def uri(self) -> str:
        return upload_uri(self.sha256)

    def write(self, block: bytes) -> None:
        """Append a block.

        Raises:
            StoreError
        """
        self._sha256.update(block)
        self.size += len(block)
        with guard("uploads", writing=True):
            self._pending.file.write(block)

    def finish(self) -> None:
        """Close the file: ten thousand staged files hold no descriptor.

        Raises:
            StoreError
        """
        self._pending.close()

    @property
    def path(self) -> str:
        """Where what was received is, on this machine, after `finish`."""
        return self._pending.name

    def open(self) -> BinaryIO:
        """Open what was received, for reading, after `finish` and before `commit`."""
        with guard("uploads"):
            return open(self._pending.name, "rb")

    def commit(self) -> str:
        """Store the file under its hash, unless its bytes are there already; returns its URI.

        Raises:
            StoreError
        """
        path = key_path("uploads", self.sha256)
        if not self._files.exists(path):
            self._pending.commit(path)
        self.discard()
        return self.uri

    def move_to(self, path: str) -> None:
        """Store the file at a path of the lake, as it is, instead of committing it.

        Raises:
            StoreError
        """
        self._pending.commit(path)

    def discard(self) -> None:
        """Remove what was received, unless it was committed."""
        self._pending.discard()


class Uploads(LakePart):
    """Uploads: uploads/ab/<sha256 of the bytes>.

    uri, sha256, size = lake.uploads.put("lecture-01.m4a")  # "lake://uploads/<sha256>", …
    """

    def put(self, source: BinaryIO | str | Path) -> tuple[str, str, int]:
        """Store a file, block by block; return its URI (lake://uploads/<sha256>), its sha256 and its size in bytes.

        The same bytes are stored once. No file name is kept: decoders detect the format from the content.

        Raises:
            NotFound: `source` is a path and there is no such file.
            StoreError
        """
        if isinstance(source, str | Path):
            try:
                with open(source, "rb") as file:
                    return self.put(file)
            except FileNotFoundError as error:
                raise NotFound(f"no such file: {source}") from error
        with self.stage() as staged:
            while block := source.read(_BLOCK):
                staged.write(block)
            staged.finish()
            return staged.commit(), staged.sha256, staged.size

    def stage(self) -> "StagedUpload":
        """Begin to receive a file, which is not in the lake before it is committed. Use as a context manager.

        Raises:
            StoreError
        """
        return StagedUpload(self.files)

    def has(self, sha256: str) -> bool:
        """Whether there is an upload with these bytes."""
        return self.files.exists(key_path("uploads", sha256))

    def path_of(self, uri: str) -> str | None:
        """The path of an upload in the store, by its URI; None if it is not the URI of one."""
        match = _UPLOAD.fullmatch(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None
        return key_path("uploads", match[1]) if match else None

    def paths_of(self, sources: Iterable[Source]) -> set[str]:
        """The paths of the uploads among some sources."""
        return {path for source in sources if (path := self.path_of(source.uri)) is not None}

    def open(self, uri: str) -> BinaryIO:
        """Open an upload as a seekable binary file, by its URI (with or without lake://).

        Raises:
            NotFound: it is not the URI of an upload, or there is no such upload.
            StoreError
        """
        match = _UPLOAD.fullmatch(uri.removeprefix(SCHEME))
        if not match:
            raise NotFound(f"not an upload: {uri[:200]!r}", hint="uploads are lake://uploads/ and 64 hex digits")
        return self.files.open(key_path("uploads", match[1]))

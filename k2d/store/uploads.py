"""Uploads: audio files that were sent to k2d instead of referenced by a URI, stored under the hash of their bytes."""

import hashlib
import re
from pathlib import Path
from typing import BinaryIO, Final

from k2d.errors import NotFound
from k2d.store.base import LakePart, key_path
from k2d.store.guard import guard

SCHEME: Final = "lake://"
_BLOCK: Final = 1 << 20
_UPLOAD: Final = re.compile(r"uploads/([0-9a-f]{64})")


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
        sha256, size = hashlib.sha256(), 0
        with self.files.pending("uploads") as pending:
            while block := source.read(_BLOCK):
                sha256.update(block)
                size += len(block)
                with guard("uploads", writing=True):
                    pending.file.write(block)
            name = sha256.hexdigest()
            path = key_path("uploads", name)
            if not self.files.exists(path):
                pending.commit(path)
        return f"{SCHEME}uploads/{name}", name, size

    def path_of(self, uri: str) -> str | None:
        """The path of an upload in the store, by its URI; None if it is not the URI of one."""
        match = _UPLOAD.fullmatch(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None
        return key_path("uploads", match[1]) if match else None

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

"""Audio that was sent rather than referred to: stored once under the hash of its bytes."""

import hashlib
import re
from pathlib import Path
from typing import BinaryIO

from k2d.errors import NotFound
from k2d.store.guard import guard
from k2d.store.rooted import Rooted, fanned

SCHEME = "lake://"
_BLOCK = 1 << 20
_UPLOAD = re.compile(r"uploads/([0-9a-f]{64})")


class Uploads(Rooted):
    """uploads/ab/<sha256 of the bytes>"""

    def put(self, source: BinaryIO | str | Path) -> tuple[str, str, int]:
        """Store a file's bytes, streamed; returns its URI (lake://uploads/<sha256>), the sha256 and the size in bytes.

        The same bytes are stored once. Decoders look at content, so no file name is kept with them.

        Raises:
            NotFound: `source` is a path where nothing is.
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
            path = fanned("uploads", name)
            if not self.files.exists(path):
                pending.commit(path)
        return f"{SCHEME}uploads/{name}", name, size

    def open(self, uri: str) -> BinaryIO:
        """An upload as a seekable binary file, by its URI (with or without lake://).

        Raises:
            NotFound: it is no upload's URI, or no such bytes are stored.
            StoreError
        """
        found = _UPLOAD.fullmatch(uri.removeprefix(SCHEME))
        if not found:
            raise NotFound(f"not an upload: {uri[:200]!r}", hint="uploads are lake://uploads/ and 64 hex digits")
        return self.files.open(fanned("uploads", found[1]))

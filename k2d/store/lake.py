"""The lake as everyone else sees it: one object over one root."""

import re
import uuid
from typing import Any, BinaryIO

from k2d.corpus.index import Index
from k2d.errors import NotFound
from k2d.store.datasets import Datasets
from k2d.store.errors import damaged
from k2d.store.examinations import Probes
from k2d.store.files import Files
from k2d.store.labels import Labels
from k2d.store.listeners import Listeners
from k2d.store.opinions import Opinions
from k2d.store.uploads import Uploads

_SHARD = re.compile(r"datasets/[A-Za-z0-9][A-Za-z0-9._-]*/[0-9a-f]+/[0-9]+\.parquet")


class Lake(Uploads, Probes, Labels, Opinions, Listeners, Index, Datasets):
    """Everything that lasts: uploads, probes, labels, opinions, facts, batches with their results, datasets.

    Safe to share between threads and processes: each write appears whole or not at all, and the same key always
    holds the same content, so it does not matter who writes first.
    """

    def __init__(self, root: str = "data", **storage_options: Any) -> None:
        """Open the lake at a local folder (made on the first write) or an fsspec URL; touches nothing yet.

        Raises:
            StoreError: the URL's protocol is unknown or its package is missing.
        """
        self.files = Files(root, **storage_options)
        self._remembered = {}

    def __repr__(self) -> str:
        return f"Lake({self.files.url('')!r})"

    def check(self) -> None:
        """Prove that the lake can be written and read now.

        Raises:
            StoreError: it is full, read-only, unreachable, or does not give back what was written.
        """
        path, data = f"checks/{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.files.write(path, data)
            if self.files.read(path) != data:
                raise damaged(path, "the store gave back other bytes than were written")
        finally:
            self.files.remove(path)

    def open(self, uri: str) -> BinaryIO:
        """An upload (lake://uploads/…) or a dataset's shard (what `shard_path` says) as a seekable binary file.

        Raises:
            NotFound, StoreError
        """
        prefix = self.files.url("datasets").removesuffix("datasets")
        if uri.startswith(prefix):
            path = uri.removeprefix(prefix)
            if not _SHARD.fullmatch(path) or ".." in path:
                raise NotFound(f"not a dataset's shard: {uri[:200]!r}")
            return self.files.open(path)
        return super().open(uri)

    def chunk_audio(self, chunk_id: str) -> bytes:
        """The FLAC of a chunk by its id ("{facts_key}-{index:05d}").

        Raises:
            NotFound, StoreError
        """
        key, _, index = chunk_id.rpartition("-")
        if not key or not index.isdecimal():
            raise NotFound(f"not a chunk id: {chunk_id[:100]!r}")
        return self.label_audio(str(self.facts_meta(key)["label_key"]), int(index))

    def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Remove unfinished writes that killed processes left in a local lake; how many there were."""
        return self.files.sweep(older_than_s)

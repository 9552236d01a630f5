"""The lake: one object over one root, with a part for each kind of thing that lasts."""

import json
import re
import uuid
from typing import Any, BinaryIO, Final

from k2d.errors import NotFound
from k2d.keys import chunk_of
from k2d.schema import FACTS_VERSION
from k2d.store.batches import Batches
from k2d.store.datasets import Datasets
from k2d.store.examinations import Examinations
from k2d.store.facts import Facts
from k2d.store.files import Files
from k2d.store.guard import damaged
from k2d.store.hypotheses import Hypotheses
from k2d.store.labels import Labels
from k2d.store.parquet import dumps
from k2d.store.probes import Probes
from k2d.store.uploads import Uploads

_STORE: Final = "store.json"  # what is true of the lake as a whole
_SHARD: Final = re.compile(r"datasets/[A-Za-z0-9][A-Za-z0-9._-]*/[0-9a-f]+/[0-9]+\.parquet")


class Lake:
    """Everything that lasts: uploads, examinations, labels, hypotheses, facts, batches with their results, datasets.

    Safe to share between threads and processes: each write appears whole or not at all, and the same key always
    holds the same content, so it does not matter who writes first.

        lake = Lake("data")
        batch = lake.batches.get("lectures")
        for result in lake.batches.results(batch.id):
            print(result.name, len(lake.facts.read(result.facts_key)))
    """

    def __init__(self, root: str = "data", **storage_options: Any) -> None:
        """Open the lake at a local folder (made on the first write) or an fsspec URL; touches nothing yet.

        Raises:
            StoreError: the URL's protocol is unknown or its package is missing.
        """
        self.files = Files(root, **storage_options)
        self.uploads = Uploads(self.files)
        self.examinations = Examinations(self.files)
        self.labels = Labels(self.files)
        self.hypotheses = Hypotheses(self.files)
        self.probes = Probes(self.files)
        self.facts = Facts(self.files)
        self.batches = Batches(self.files)
        self.datasets = Datasets(self.files)
        self._is_current = False

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
        if not self.is_current() and not self.files.folders("batches"):
            self.mark_current()  # a new lake

    def is_current(self) -> bool:
        """Whether all facts in this lake have this version of them, as far as `mark_current` has said."""
        if not self._is_current:
            try:
                marked = json.loads(self.files.read(_STORE)).get("facts_version")
            except (NotFound, ValueError):
                marked = None
            self._is_current = marked == FACTS_VERSION
        return self._is_current

    def mark_current(self) -> None:
        """Record that no facts of an earlier version are left: nobody needs to search for them any more."""
        if not self.is_current():
            self.files.write(_STORE, dumps({"facts_version": FACTS_VERSION}))

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
        return self.uploads.open(uri)

    def chunk_audio(self, chunk_id: str) -> bytes:
        """The FLAC of a chunk by its id (`k2d.keys.chunk_id`).

        Raises:
            NotFound, StoreError
        """
        key, index = chunk_of(chunk_id)
        return self.labels.audio(str(self.facts.meta(key)["label_key"]), index)

    def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Remove unfinished writes that killed processes left in a local lake; how many there were."""
        return self.files.sweep(older_than_s)

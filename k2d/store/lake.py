"""The lake: the store of a k2d installation, with one part for each kind of data."""

import json
import re
import uuid
from typing import Any, BinaryIO, Final

import structlog

from k2d.errors import DamagedFile, NotFound, StoreError, described
from k2d.keys import chunk_of
from k2d.schema import FACTS_VERSION, NoLabel, Versions
from k2d.store.access import AccessKeys
from k2d.store.audit_log import AuditLog
from k2d.store.base import key_path
from k2d.store.batches import Batches
from k2d.store.datasets import Datasets
from k2d.store.drafts import Drafts
from k2d.store.examinations import Examinations
from k2d.store.facts import Facts
from k2d.store.files import Files
from k2d.store.guard import damaged, decoding, reason, why_damaged
from k2d.store.heartbeats import Heartbeats
from k2d.store.hypotheses import Hypotheses
from k2d.store.journals import Journals
from k2d.store.labels import Labels
from k2d.store.memory import Memory
from k2d.store.parquet import dumps
from k2d.store.partial import PartialUploads
from k2d.store.probes import Probes
from k2d.store.reviews import ReviewDraws, Reviews
from k2d.store.runs import Runs
from k2d.store.uploads import Uploads

TAILS: Final = 8  # parts; chosen: few megabytes each, and as many as workers fill at once
log = structlog.get_logger()

KEPT_S: Final = 7 * 24 * 3600.0  # for which an upload that broke off, or labeling that was killed, can be resumed
_STORE: Final = "store.json"  # properties of the lake as a whole
_SHARD: Final = re.compile(r"datasets/[A-Za-z0-9][A-Za-z0-9._-]*/[0-9a-f]+/[0-9]+(-[0-9]+)*\.parquet")


class Lake:
    """All stored data: uploads, examinations, labels, hypotheses, facts, batches with their results, datasets, reviews;
    runs that were published; and the keys of the API with its audit log.

    Can be shared between threads and processes: every write is atomic, and a key always has the same content, so it
    does not matter which of two writers is first.

        lake = Lake("data")
        batch = lake.batches.get("lectures")
        for result in lake.batches.results(batch.id):
            print(result.name, len(lake.facts.read(result.facts_key)))
    """

    def __init__(self, root: str = "data", **storage_options: Any) -> None:
        """Open the lake at a local folder (created on the first write) or an fsspec URL. Nothing is read or written
        yet.

        Raises:
            StoreError: the URL's protocol is unknown or its package is missing.
        """
        self.files = Files(root, **storage_options)
        self.uploads = Uploads(self.files)
        self.partial = PartialUploads(self.files)
        self.drafts = Drafts(self.files)
        self.examinations = Examinations(self.files)
        self.labels = Labels(self.files)
        self.journals = Journals(self.files)
        self.heartbeats = Heartbeats(self.files)
        self.hypotheses = Hypotheses(self.files)
        self.probes = Probes(self.files)
        self.facts = Facts(self.files)
        self.batches = Batches(self.files)
        self.datasets = Datasets(self.files)
        self.reviews = Reviews(self.files)
        self.draws = ReviewDraws(self.files)
        self.runs = Runs(self.files)
        self.access = AccessKeys(self.files)
        self.audit_log = AuditLog(self.files)
        self.memory = Memory()  # what was read from files that never change, by whoever reads them
        self.tails = Memory(TAILS)  # what came in since the index of a part was written (k2d.corpus.index)
        self._is_current = False

    def __repr__(self) -> str:
        return f"Lake({self.files.url('')!r})"

    def check(self) -> None:
        """Test that the lake can be written and read now.

        Raises:
            StoreError: it is full, read-only or unreachable, or returns other bytes than were written.
        """
        path, data = f"checks/{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.files.write(path, data)
            if self.files.read(path) != data:
                raise damaged(path, "the store gave back other bytes than were written")
        finally:
            self.files.remove(path)
        if not self.is_current() and not self.files.folders("batches"):
            self.mark_current()  # a new lake has no facts of earlier versions

    def is_current(self) -> bool:
        """Whether the lake is marked (`mark_current`) to have only facts of the current FACTS_VERSION."""
        if not self._is_current:
            self._is_current = self._recorded_version() == FACTS_VERSION
        return self._is_current

    def version(self) -> dict[str, int | None]:
        """The version of facts that nothing in the lake is older than (None: not recorded), and what is written now."""
        recorded = FACTS_VERSION if self.is_current() else self._recorded_version()
        return {"facts_version": recorded, "facts_written": FACTS_VERSION}

    def _recorded_version(self) -> int | None:
        try:
            recorded = json.loads(self.files.read(_STORE))["facts_version"]
        except (NotFound, DamagedFile, ValueError, TypeError, KeyError, RecursionError):  # it is made again
            return None
        return recorded if isinstance(recorded, int) else None

    def mark_problem(self) -> str | None:
        """What is wrong with the mark of `mark_current`, if there is one."""
        try:
            json.loads(self.files.read(_STORE))["facts_version"]
        except NotFound:
            return None
        except (DamagedFile, ValueError, TypeError, KeyError, RecursionError) as error:
            return why_damaged(error) if isinstance(error, DamagedFile) else reason(error)
        return None

    def mark_current(self) -> None:
        """Mark that no facts of an earlier version are left, so that batches need not be searched for them."""
        if not self.is_current():
            try:
                self.files.write(_STORE, dumps({"facts_version": FACTS_VERSION}))
            except StoreError as error:  # without the mark, batches are searched again
                log.warning("the store was not marked as current", error=described(error))

    def open(self, uri: str) -> BinaryIO:
        """Open an upload (lake://uploads/…) or a dataset's shard (`datasets.shard_path`) as a seekable binary file.

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
        """Read the FLAC of a chunk by its id (`k2d.keys.chunk_id`).

        Raises:
            NotFound, StoreError
        """
        key, index = chunk_of(chunk_id)
        return self.labels.audio(self.facts.label_key(key), index)

    def provenance(self, label_key: str, facts_key: str) -> tuple[Versions, NoLabel | None]:
        """The versions of what labeled and validated a recording, and what has no label, as its shards say. A shard
        that is gone says nothing.

        Raises:
            StoreError
        """
        labels, facts = _meta_of(self.labels, label_key), _meta_of(self.facts, facts_key)
        with decoding(key_path("facts", facts_key, ".parquet")):
            versions = Versions(
                label=int(labels.get("version") or 0),
                facts=int(facts.get("version") or 0),
                labeled_by=str(labels.get("k2d_version") or ""),
                validated_by=str(facts.get("k2d_version") or ""),
            )
            return versions, NoLabel(**labels["no_label"]) if "no_label" in labels else None

    def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Remove the heartbeats of killed processes and, from a local lake, their unfinished writes, and what nobody
        went on with for a week: uploads that broke off, drafts, journals; return their number."""
        kept_s = max(older_than_s, KEPT_S)
        ended = self.files.sweep(older_than_s) + self.heartbeats.sweep(older_than_s)
        return ended + sum(part.sweep(kept_s) for part in (self.partial, self.drafts, self.journals))


def _meta_of(shards: Labels | Facts, key: str) -> dict[str, Any]:
    try:
        return shards.meta(key)
    except NotFound:
        return {}

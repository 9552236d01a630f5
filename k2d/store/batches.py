"""Batches in the lake: the request, its ledger of results, its cancel mark. One process's truth is everyone's."""

import uuid
from collections.abc import Iterator

from k2d.errors import Conflict, NotFound
from k2d.keys import digest
from k2d.schema import Batch, RecordingResult
from k2d.store.files import Files
from k2d.store.parquet import dumps
from k2d.store.rooted import Rooted, safe

# Results and the index are kept in parts of this many positions: a folder stays listable, and a running batch's index
# is complete but for the parts that workers are in. About 90,000 chunks where recordings are half an hour.
PART = 1024
STALE_SUFFIX = ".stale"
REMEMBERED = 4  # batch documents kept in memory


class Batches(Rooted):
    """batches/<id>/…, names/<hash of name>.json, recent/<time>~<id>"""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        # documents never change, and one of 100,000 sources takes half a second to read
        self._remembered: dict[str, Batch] = {}

    def put(self, batch: Batch) -> None:
        """Store a batch and let its name stand for its id. Done again, or under a second name, it stays as it was.

        Raises:
            Conflict: the name belongs to another batch.
        """
        path = f"{_folder(batch.id)}/batch.json"
        self._refuse_taken(batch)
        # the document first: a name always leads to a batch, whoever is killed where
        created = self.files.create(path, dumps(batch))
        if batch.name != batch.id and not self.files.create(_alias(batch.name), _naming(batch)):
            self._refuse_taken(batch)
        if not created and self._named(self.get(batch.id).name) not in (batch.id, None):
            # stored by a request that lost its name to another batch in the same moment
            self._remembered.pop(batch.id, None)
            self.files.write(path, dumps(batch))
        stamp = "".join(c for c in batch.created_at[:19] if c.isdigit())
        self.files.create(f"recent/{stamp or '0'}~{batch.id}", b"")

    def get(self, id_or_name: str) -> Batch:
        """The batch with this id or name.

        Raises:
            NotFound, StoreError
        """
        found = self._document(id_or_name)
        if found is None and (owner := self._named(id_or_name)) is not None:
            found = self._document(owner)
        if found is not None:
            return found
        raise NotFound(f"no batch is called {id_or_name[:100]!r}", hint="`k2d batches` lists them")

    def ids(self) -> list[str]:
        """Ids of all batches, newest first, by one listing."""
        marks = sorted((path.rpartition("/")[2] for path in self.files.listing("recent")), reverse=True)
        return list(dict.fromkeys(mark.partition("~")[2] for mark in marks))

    def all(self) -> Iterator[Batch]:
        """All batches, newest first, read one by one."""
        for batch_id in self.ids():
            yield self.get(batch_id)

    def cancel(self, batch_id: str) -> None:
        """Mark a batch: workers begin no more of its recordings."""
        self._require(batch_id)
        self.files.write(f"{_folder(batch_id)}/cancelled", b"")

    def is_cancelled(self, batch_id: str) -> bool:
        return self.files.exists(f"{_folder(batch_id)}/cancelled")

    def uncancel(self, batch_id: str) -> None:
        """Take the mark away."""
        self._require(batch_id)
        self.files.remove(f"{_folder(batch_id)}/cancelled")

    # ---- results --------------------------------------------------------------------------------------------------

    def put_result(self, batch_id: str, result: RecordingResult) -> None:
        """Write one line of the ledger. A line that was there before is replaced."""
        path, data = _result(batch_id, result.position), dumps(result)
        if not self.files.create(path, data):
            self._outdate(batch_id, result.position)
            self.files.write(path, data)
            self._outdate(batch_id, result.position)

    def delete_result(self, batch_id: str, position: int) -> None:
        """Take a line of the ledger away, so that the recording is done again."""
        self._outdate(batch_id, position)
        self.files.remove(_result(batch_id, position))
        self._outdate(batch_id, position)

    def result(self, batch_id: str, position: int) -> RecordingResult | None:
        """One line of the ledger; None where there is none yet."""
        try:
            return self._read_result(_result(batch_id, position))
        except NotFound:
            return None

    def results(self, batch_id: str, *, part: int | None = None) -> Iterator[RecordingResult]:
        """Lines of the ledger in order of position; of one part (1024 positions) if asked."""
        folder = f"{_folder(batch_id)}/results" + ("" if part is None else f"/{part:06d}")
        yield from self.files.many(self._read_result, self.files.listing(folder))

    def result_positions(self, batch_id: str) -> set[int]:
        """Positions that have a result, by one listing."""
        return {_position(path) for path in self.files.listing(_folder(batch_id) + "/results")}

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _document(self, batch_id: str) -> Batch | None:
        found = self._remembered.get(batch_id)
        if found is None:
            try:
                found = self.read_document(f"{_folder(batch_id)}/batch.json", Batch)
            except NotFound:
                return None
            while len(self._remembered) >= REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)), None)
            self._remembered[batch_id] = found
        return found

    def _read_result(self, path: str) -> RecordingResult:
        found: RecordingResult = self.read_document(path, RecordingResult)
        return found

    def _outdate(self, batch_id: str, position: int) -> None:
        """Give the index of this part of the batch another name (k2d.corpus.index), so that what was built is not read.

        Done before and after a change: an index built between the two, from the old ledger, has an old name too.
        Each mark is unique and only older ones go, so a set of marks, and the name made from it, never comes back.
        """
        part = f"{_folder(batch_id)}/index/{position // PART:06d}-"
        older = [path for path in self.files.listing(part.rpartition("/")[0]) if path.endswith(STALE_SUFFIX)]
        self.files.write(f"{part}{uuid.uuid4().hex}{STALE_SUFFIX}", b"")
        for path in older:
            if path.startswith(part):
                self.files.remove(path)

    def _refuse_taken(self, batch: Batch) -> None:
        owner = self._named(batch.name)
        if owner not in (None, batch.id):
            hint = "choose another name, or leave it out: equal requests find their batch by themselves"
            raise Conflict(
                f"the name {batch.name!r} belongs to batch {owner}", hint=hint, name=batch.name, batch_id=owner
            )

    def _named(self, name: str) -> str | None:
        try:
            alias: dict[str, str] = self.read_document(_alias(name), dict[str, str])
        except NotFound:
            return None
        return alias.get("id")

    def _require(self, batch_id: str) -> None:
        if not self.files.exists(f"{_folder(batch_id)}/batch.json"):
            raise NotFound(f"no batch has the id {batch_id!r}")


def _folder(batch_id: str) -> str:
    return f"batches/{safe(batch_id)}"


def _result(batch_id: str, position: int) -> str:
    return f"{_folder(batch_id)}/results/{position // PART:06d}/{position:09d}.json"


def _position(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".json"))


def _naming(batch: Batch) -> bytes:
    return dumps({"name": batch.name, "id": batch.id})


def _alias(name: str) -> str:
    return f"names/{digest('batch name', name)}.json"

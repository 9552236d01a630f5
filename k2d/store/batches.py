"""Batches in the lake: the request, one result per recording (the ledger), and the mark of a cancelled batch."""

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from k2d.errors import Conflict, DamagedFile, NotFound, StoreError
from k2d.keys import digest
from k2d.schema import Batch, RecordingResult
from k2d.store.base import LakePart, safe_name
from k2d.store.files import Files
from k2d.store.guard import damaged
from k2d.store.parquet import dumps

# Recordings in a part of a batch, by their order in it: the unit of work of every step over a corpus (docs/store.md).
# Results and the index are stored by part, so that folders stay small enough to list and the index of a running batch
# is incomplete only where workers are. Chosen: about 90,000 chunks of half-hour recordings.
PART_RECORDINGS: Final = 1024
STALE_SUFFIX: Final = ".stale"
GONE_HINT: Final = "label the same files again with `k2d label`: it makes the record again"
_RESULT: Final = re.compile(r"[0-9]{1,18}\.json")  # file name of a result
REMEMBERED: Final = 4  # batch documents kept in memory; chosen
SURE_S: Final = 5.0  # for which a batch counts as there without another look; chosen
NAME_SURE_S: Final = 60.0  # for which a batch is shown by its name without another look; chosen: it rarely moves
NAMES_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class DamagedBatch:
    """A batch whose record cannot be read."""

    id: str
    created_at: str  # ISO 8601, to the second
    error: StoreError


@dataclass(frozen=True, slots=True)
class DamagedResult:
    """The result of a recording that cannot be read."""

    position: int
    error: DamagedFile


class Batches(LakePart):
    """Batches: batches/<id>/…, names/<hash of name>.json, recent/<time>~<id>.

    batch = lake.batches.get("lectures")  # by name or id
    results = list(lake.batches.results(batch.id))
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        # a batch document never changes, and reading one with 100,000 sources takes half a second
        self._remembered: dict[str, tuple[Batch, float]] = {}  # with the time when it was last there
        self._shown: dict[str, tuple[str, float]] = {}  # names by id, with the time when they were looked up

    def put(self, batch: Batch) -> None:
        """Store a batch and its name. A batch that exists already stays unchanged, also when it gets a second name.

        Raises:
            Conflict: the name belongs to another batch.
        """
        path = f"{_folder(batch.id)}/batch.json"
        self._shown.pop(batch.id, None)
        self.refuse_taken(batch)
        # the document first: a name must always lead to a batch, even if this process is killed between the writes
        created = self.files.create(path, dumps(batch))
        if not created and self._is_damaged(batch.id):
            self.files.write(path, dumps(batch))
        if batch.name != batch.id and not self.files.create(_alias(batch.name), _naming(batch)):
            self.refuse_taken(batch)
        if not created and self._named(self.get(batch.id).name) not in (batch.id, None):
            # stored by a request whose name another batch took at the same moment
            self._remembered.pop(batch.id, None)
            self.files.write(path, dumps(batch))
        self._mark_recent(batch)

    def put_extended(self, batch: Batch, *, of: Batch) -> None:
        """Store a batch that has all sources of another, and give it that one's name. Of two extensions of one batch at
        once, one succeeds.

        Raises:
            Conflict: the other batch was extended meanwhile: extend that one.
            StoreError
        """
        self.files.create(f"{_folder(batch.id)}/batch.json", dumps(batch))
        self._mark_recent(batch)
        self._shown.pop(of.id, None)
        self._shown.pop(batch.id, None)
        if of.name == of.id:
            return  # without a name nothing moves
        successor = f"{_folder(of.id)}/extended/{_alias(of.name).rpartition('/')[2]}"
        if not self.files.create(successor, _naming(batch)):
            by: dict[str, str] = self.read_document(successor, dict[str, str])
            self.files.write(_alias(of.name), dumps({"name": of.name, "id": by["id"]}))
            if by["id"] != batch.id:
                raise Conflict(
                    f"batch {of.name!r} was extended by somebody else at the same time", hint="run the command again"
                )
            return
        self.files.write(_alias(of.name), _naming(batch))

    def get(self, id_or_name: str) -> Batch:
        """Return the batch with this id or name.

        Raises:
            NotFound: there is none, or its record is gone.
            DamagedFile: its record is damaged.
            StoreError
        """
        batch = self._document(id_or_name)
        if batch is not None:
            return batch
        owner = self._named(id_or_name)
        if owner is None:
            name = id_or_name[:100]
            raise NotFound(f"no batch is called {name!r}", hint="`k2d batches` lists them", batch=name)
        batch = self._document(owner)
        if batch is None:
            raise NotFound(f"the record of batch {id_or_name!r}, {_folder(owner)}/batch.json, is gone", hint=GONE_HINT)
        return batch

    def find(self, id_or_name: str) -> Batch | None:
        """As `get`; None if there is no such batch."""
        if self._document(id_or_name) is None and self._named(id_or_name) is None:
            return None
        return self.get(id_or_name)

    def ids(self) -> list[str]:
        """List the ids of all batches, newest first. One listing, no file is read."""
        marks = sorted((path.rpartition("/")[2] for path in self.files.listing("recent")), reverse=True)
        return list(dict.fromkeys(mark.partition("~")[2] for mark in marks))

    def entry(self, batch_id: str) -> Batch | DamagedBatch | None:
        """Return a batch for a list: what is known of it if its record is damaged or gone, None if nothing is there.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            batch = self._document(batch_id)
            if batch is None and self.files.exists(_folder(batch_id)):
                raise _gone(batch_id)
            return batch
        except NotFound:  # not even an id
            return None
        except StoreError as error:
            if not self.files.local and not isinstance(error, DamagedFile):
                raise
            return DamagedBatch(batch_id, self._stamp(batch_id), error)

    def entries(self) -> Iterator[Batch | DamagedBatch]:
        """Iterate over all batches, newest first, and over those whose record is damaged."""
        for batch_id in self.ids():
            entry = self.entry(batch_id)
            if entry is not None:
                yield entry

    def all(self) -> Iterator[Batch]:
        """Iterate over all batches whose record can be read, newest first."""
        return (entry for entry in self.entries() if isinstance(entry, Batch))

    def cancel(self, batch_id: str) -> None:
        """Mark a batch as cancelled: workers start no more of its recordings."""
        self._require(batch_id)
        self.files.write(f"{_folder(batch_id)}/cancelled", b"")

    def is_cancelled(self, batch_id: str) -> bool:
        """Whether the batch is marked as cancelled."""
        return self.files.exists(f"{_folder(batch_id)}/cancelled")

    def uncancel(self, batch_id: str) -> None:
        """Remove the mark of a cancelled batch."""
        self._require(batch_id)
        self.files.remove(f"{_folder(batch_id)}/cancelled")

    def delete(self, batch: Batch) -> None:
        """Remove a batch with its results and its index; its record comes last, so that a killed deletion can go on."""
        self._require(batch.id)
        folder = _folder(batch.id)
        for name in ("index", "results"):
            self.files.remove_folder(f"{folder}/{name}")
        if self.owner(batch.name) == batch.id:
            self.files.remove(_alias(batch.name))
        for path in self.files.listing("recent"):
            if path.rpartition("~")[2] == batch.id:
                self.files.remove(path)
        self.files.remove_folder(folder)
        self._remembered.pop(batch.id, None)
        self._shown.pop(batch.id, None)

    def owner(self, name: str) -> str | None:
        """The id of the batch that a name belongs to; None if it is free, or its record is damaged."""
        try:
            return self._named(name)
        except DamagedFile:
            return None

    def shown_name(self, batch: Batch) -> str:
        """The name of a batch, or its id once the name has gone to the batch that extends it, as of the last minute."""
        if batch.name == batch.id:
            return batch.id
        shown, looked_at = self._shown.get(batch.id, (batch.name, -NAME_SURE_S))
        now = time.monotonic()
        if now - looked_at < NAME_SURE_S:
            return shown
        try:
            shown = batch.name if self._named(batch.name) == batch.id else batch.id
        except DamagedFile:
            return batch.name
        if len(self._shown) >= NAMES_REMEMBERED:
            self._shown.clear()
        self._shown[batch.id] = shown, now
        return shown

    def name_path(self, name: str) -> str:
        """The path of the record of a name."""
        return _alias(name)

    def named_by(self, path: str) -> str:
        """The id of the batch in the record of a name.

        Raises:
            DamagedFile, StoreError
        """
        alias: dict[str, str] = self.read_document(path, dict[str, str])
        if "id" not in alias:
            raise damaged(path, "it names no batch")
        return alias["id"]

    # ---- results --------------------------------------------------------------------------------------------------

    def put_result(self, batch_id: str, result: RecordingResult) -> None:
        """Store the result of one recording, replacing an earlier one."""
        path, data = _result(batch_id, result.position), dumps(result)
        if not self.files.create(path, data):
            self._outdate(batch_id, result.position)
            self.files.write(path, data)
            self._outdate(batch_id, result.position)

    def delete_result(self, batch_id: str, position: int) -> None:
        """Remove the result of one recording, so that it is processed again."""
        self._outdate(batch_id, position)
        self.files.remove(_result(batch_id, position))
        self._outdate(batch_id, position)

    def result(self, batch_id: str, position: int) -> RecordingResult | None:
        """Return the result of one recording; None if there is none yet."""
        try:
            reading = self._read_result(_result(batch_id, position))
        except NotFound:
            return None
        return reading if isinstance(reading, RecordingResult) else None

    def results(self, batch_id: str, *, part: int | None = None) -> Iterator[RecordingResult]:
        """Iterate over the results of a batch, or of one of its parts, in the order of positions.

        Reads a file for each; `k2d.corpus.index.results` reads one for each part that is in the index. Those that
        cannot be read are left out: they are missing, until they are made again.
        """
        return (reading for reading in self.readings(batch_id, part=part) if isinstance(reading, RecordingResult))

    def readings(self, batch_id: str, *, part: int | None = None) -> Iterator[RecordingResult | DamagedResult]:
        """As `results`, with those that cannot be read in their places."""
        yield from self.files.many(self._read_result, self._result_paths(_results(batch_id, part)))

    def readings_at(self, batch_id: str, positions: Iterable[int]) -> Iterator[RecordingResult | DamagedResult]:
        """As `readings`, at these positions, in their order.

        Raises:
            NotFound: one of them has no result.
        """
        yield from self.files.many(self._read_result, [_result(batch_id, position) for position in positions])

    def result_path(self, batch_id: str, position: int) -> str:
        """The path of the result of one recording."""
        return _result(batch_id, position)

    def damaged_results(self, batch_id: str) -> list[int]:
        """List the positions whose result cannot be read as one. Reads all of them."""
        return [reading.position for reading in self.readings(batch_id) if isinstance(reading, DamagedResult)]

    def result_positions(self, batch_id: str, *, part: int | None = None) -> set[int]:
        """Return the positions of a batch, or of one of its parts, that have a result. One listing, no file is read."""
        return {_position(path) for path in self._result_paths(_results(batch_id, part))}

    def begun_parts(self, batch_id: str) -> set[int]:
        """Return the numbers of the parts that have or had a result. One listing of as many folders."""
        return {int(name) for name in self.files.folders(_results(batch_id, None)) if name.isdecimal()}

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _document(self, batch_id: str) -> Batch | None:
        try:
            path = f"{_folder(batch_id)}/batch.json"
        except NotFound:
            return None  # nothing can have this id
        now = time.monotonic()
        batch, seen_at = self._remembered.get(batch_id, (None, 0.0))
        if batch is not None and now - seen_at < SURE_S:
            return batch
        self._remembered.pop(batch_id, None)
        if batch is None or not self.files.exists(path):  # gone: another process deleted it
            try:
                batch = self.read_document(path, Batch)
            except NotFound:
                return None
        while len(self._remembered) >= REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)), None)
        self._remembered[batch_id] = batch, now
        return batch

    def _is_damaged(self, batch_id: str) -> bool:
        try:
            self._document(batch_id)
        except DamagedFile:
            return True
        return False

    def _mark_recent(self, batch: Batch) -> None:
        """Name a batch where `ids` looks."""
        stamp = "".join(c for c in batch.created_at[:19] if c.isdigit())
        self.files.create(f"recent/{stamp or '0'}~{batch.id}", b"")

    def _stamp(self, batch_id: str) -> str:
        """When a batch was created, by its mark in recent/."""
        marks = (path.rpartition("/")[2].partition("~") for path in self.files.listing("recent"))
        digits = next((stamp for stamp, _, marked in marks if marked == batch_id), "")
        try:
            return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).isoformat(timespec="seconds")
        except ValueError:
            return ""

    def _result_paths(self, folder: str) -> list[str]:
        return [path for path in self.files.listing(folder) if _RESULT.fullmatch(path.rpartition("/")[2])]

    def _read_result(self, path: str) -> RecordingResult | DamagedResult:
        try:
            result: RecordingResult = self.read_document(path, RecordingResult)
        except DamagedFile as error:
            return DamagedResult(_position(path), error)
        return result

    def _outdate(self, batch_id: str, position: int) -> None:
        """Invalidate the index of a position's part (k2d.corpus.index), by changing the name it is looked up by.

        The name is a hash of the part's marks. Called before and after a change of the results, so that an index which
        another process builds in between, from the old results, gets an old name. Every mark is unique and only older
        marks are removed, so the same set of marks, and the same name, never occurs again.
        """
        part = f"{_folder(batch_id)}/index/{position // PART_RECORDINGS:06d}-"
        older = [path for path in self.files.listing(part.rpartition("/")[0]) if path.endswith(STALE_SUFFIX)]
        self.files.write(f"{part}{uuid.uuid4().hex}{STALE_SUFFIX}", b"")
        for path in older:
            if path.startswith(part):
                self.files.remove(path)

    def refuse_taken(self, batch: Batch) -> None:
        """Raise Conflict when the name belongs to another batch."""
        owner = self._named(batch.name)
        if owner not in (None, batch.id):
            other = self.entry(owner) if owner else None
            what = f": {_difference(batch, other)}" if isinstance(other, Batch) else ""
            raise Conflict(
                f"the name {batch.name!r} belongs to batch {owner}{what}",
                hint=f"`--add {batch.name}` adds files to it, with its options; another name, or none, makes another "
                "batch. Either way labels that are there are used, not made again",
                name=batch.name,
                batch_id=owner,
            )

    def _named(self, name: str) -> str | None:
        try:
            return self.named_by(_alias(name))
        except NotFound:
            return None

    def _require(self, batch_id: str) -> None:
        if not self.files.exists(f"{_folder(batch_id)}/batch.json"):
            raise NotFound(f"no batch has the id {batch_id!r}")


def part_sizes(recordings: int) -> list[int]:
    """How many recordings each part of a batch has: PART_RECORDINGS, and the rest in the last.

    part_sizes(2500)  # [1024, 1024, 452]
    """
    starts = range(0, recordings, PART_RECORDINGS)
    return [min(PART_RECORDINGS, recordings - start) for start in starts]


def _difference(batch: Batch, other: Batch) -> str:
    """In what a batch differs from the one that has its name: files, or options."""
    mine, theirs = options_of(batch), options_of(other)
    changed = [f"{name} {theirs[name]}, not {value}" for name, value in mine.items() if theirs[name] != value]
    new = {source.key for source in batch.sources} - {source.key for source in other.sources}
    return "; ".join([*(["it has other files"] if new else []), *changed]) or "its files lay elsewhere"


def options_of(batch: Batch) -> dict[str, object]:
    """What a batch was asked to be labeled with, by the names of its fields."""
    options, decode = asdict(batch.options), asdict(batch.options.decode)
    options.pop("decode")
    options.pop("short_context")  # nobody's choice
    return {"teacher": batch.teacher, "validator": batch.validator} | decode | options | asdict(batch.audio)


def _folder(batch_id: str) -> str:
    return f"batches/{safe_name(batch_id)}"


def _results(batch_id: str, part: int | None) -> str:
    return f"{_folder(batch_id)}/results" + ("" if part is None else f"/{part:06d}")


def _result(batch_id: str, position: int) -> str:
    return f"{_folder(batch_id)}/results/{position // PART_RECORDINGS:06d}/{position:09d}.json"


def _gone(batch_id: str) -> DamagedFile:
    path = f"{_folder(batch_id)}/batch.json"
    return DamagedFile(f"the record of batch {batch_id}, {path}, is gone", hint=GONE_HINT)


def _position(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".json"))


def _naming(batch: Batch) -> bytes:
    return dumps({"name": batch.name, "id": batch.id})


def _alias(name: str) -> str:
    return f"names/{digest('batch name', name)}.json"

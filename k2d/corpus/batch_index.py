"""Which parts of a batch's index are stored, and makes those that are not."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Final

from k2d.corpus.gather import PartTables, gather, join
from k2d.corpus.ledgers import KeptSums, PartLedger, batch_ledger, join_ledgers
from k2d.corpus.part import LEDGER, SUFFIXES, Part, store_part
from k2d.errors import DamagedFile, NotFound, StoreError
from k2d.filtering.policy import DEFAULT, Policy
from k2d.keys import digest
from k2d.schema import FACTS_VERSION, Batch
from k2d.store import Lake
from k2d.store.base import read_json, safe_name
from k2d.store.batches import STALE_SUFFIX, part_sizes
from k2d.store.parquet import dumps

INDEX_VERSION: Final = 7  # of the files' content; part of their names, so that older files are not read
# Recordings that came in since an unfinished part was stored before it is stored again. Chosen: reading their facts
# takes a fraction of a second, writing a full part one or two.
STORE_TAIL: Final = 64
TOTAL: Final = "all-"  # begins the name of the ledger of a batch
CLAIM: Final = ".claim"  # who makes a part, while it is made
# Seconds after which whoever makes a part counts as killed. Chosen: a part takes seconds, in an object store a minute.
CLAIM_S: Final = 120.0
_WAIT_S: Final = (0.05, 1.0)  # between looks for a part that another makes: at first, at most


def stem(batch_id: str, number: int, marks: Sequence[str]) -> str:
    """The path of a part's files without suffix, as long as the part has these marks (file names, `Batches`)."""
    return f"batches/{safe_name(batch_id)}/index/{number:06d}-{_revision(marks)}"


def _revision(marks: Sequence[str]) -> str:
    return digest("index", INDEX_VERSION, FACTS_VERSION, list(marks))[:16]


class BatchIndex:
    """The index of a batch as it is now: which parts are stored. One listing; more where parts are unfinished."""

    def __init__(self, lake: Lake, batch: Batch) -> None:
        self._lake, self._batch = lake, batch
        self._folder = f"batches/{batch.id}/index"
        self.sizes = part_sizes(len(batch.sources))
        self._names: dict[int, list[str]] = {}
        self._totals: set[str] = set()
        self.damaged: list[DamagedFile] = []  # what `ledger` had to leave out
        for path in lake.files.listing(self._folder):
            number, _, rest = path.rpartition("/")[2].partition("-")
            if path.rpartition("/")[2].startswith(TOTAL):
                self._totals.add(path)
            if rest and number.isdecimal():
                self._names.setdefault(int(number), []).append(f"{number}-{rest}")

    def is_stored(self, number: int) -> bool:
        """Whether all recordings of the part have a result, and its files are there."""
        return self._has(number, self._revision(number))

    @cached_property
    def unmade(self) -> list[int]:
        """The parts whose recordings all have a result but whose files are not there."""
        return [number for number, size in enumerate(self.sizes) if len(self._unstored(number)) == size]

    @cached_property
    def finished(self) -> int:
        """How many recordings have a result, whether they are in the index or not."""
        return sum(
            size if self.is_stored(number) else len(self._unstored(number)) for number, size in enumerate(self.sizes)
        )

    @property
    def stored_ms(self) -> int:
        """Milliseconds of the recordings in finished parts that are stored."""
        total = self._stored_total()
        if total is not None:
            return total.input_ms
        return sum(self.part(number).ledger().input_ms for number in range(len(self.sizes)) if self.is_stored(number))

    def part(self, number: int, *, make: bool = True) -> Part:
        """One part. See `parts` for `make`."""
        revision = self._revision(number)
        if self._has(number, revision):
            return self._stored_part(number, revision)
        positions = self._unstored(number)
        if len(positions) < self.sizes[number]:
            return self._unfinished(number, revision, positions, make=make)
        return self._made(number, revision) if make else self._without(number, revision)

    def parts(self, *, make: bool = True) -> Iterator[Part]:
        """All parts, in order. See `k2d.corpus.index.parts` for `make`."""
        return (self.part(number, make=make) for number in range(len(self.sizes)))

    def ledger(self, policy: Policy = DEFAULT, *, make: bool = True) -> PartLedger:
        """The ledger of the batch. One file where all parts are stored, else one a part."""
        total, batch_parts = self._stored_total(), list(self.parts(make=make))
        if total is None:
            ledgers = list(self._lake.files.many(lambda part: part.ledger(policy), batch_parts))
            self.damaged = [error for part in batch_parts for error in part.damaged]
            return batch_ledger(ledgers)
        if total.policy == policy.key:
            return total
        kept = self._lake.files.many(lambda part: part.ledger(policy).kept, batch_parts)
        return total.model_copy(update={"policy": policy.key, "kept": sum(kept, KeptSums())})

    def store_total(self) -> None:
        """Store the ledger of the batch, if all its parts are stored."""
        self._stored_total()

    def _stored_total(self) -> PartLedger | None:
        """The stored ledger of the batch under the default policy; None where a part is not stored."""
        stems = [self._revision(number) for number in range(len(self.sizes))]
        if not all(map(self.is_stored, range(len(self.sizes)))):
            return None
        path = f"{self._folder}/{TOTAL}{digest('total', stems)[:16]}{LEDGER}"

        def read() -> PartLedger:
            with contextlib.suppress(NotFound, StoreError):
                ledger: PartLedger = read_json(self._lake.files, path, PartLedger)
                if ledger.policy == DEFAULT.key:
                    return ledger
            ledgers = self._lake.files.many(lambda part: part.ledger(), list(self.parts()))
            ledger = batch_ledger(list(ledgers))
            with contextlib.suppress(StoreError):
                self._lake.files.write(path, dumps(ledger.as_json()))
                for older in self._totals - {path}:
                    self._lake.files.remove(older)
            return ledger

        return self._lake.memory.recall(path, read)

    # ---- finished parts -------------------------------------------------------------------------------------------

    def _made(self, number: int, revision: str) -> Part:
        """Make a finished part, or wait for another process that does."""
        claim, wait_s = _Claim(self._lake, revision + CLAIM), _WAIT_S[0]
        while not claim.take():
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_S[1])
            if self._lake.files.exists(revision + LEDGER):
                return self._stored_part(number, revision)
        with claim:
            if self._lake.files.exists(revision + LEDGER):  # made and released since this index was listed
                return self._stored_part(number, revision)
            tables = self._remade(number, revision)
        return self._in_memory(number, revision, tables)

    def _remade(self, number: int, revision: str) -> PartTables:
        """Gather a finished part from facts shards, and store it unless some of them had to be left out."""
        tables = gather(self._lake, list(self._lake.batches.readings(self._batch.id, part=number)))
        if tables.recordings.num_rows == self.sizes[number]:
            self._store(number, revision, tables)
        return tables

    def _stored_part(self, number: int, stem_: str) -> Part:
        remake = partial(self._remade, number, stem_)
        return Part(self._lake, number, stem_, expected=self.sizes[number], remake=remake)

    def _in_memory(self, number: int, revision: str, tables: PartTables) -> Part:
        stem_ = revision
        if tables.recordings.num_rows < self.sizes[number]:
            stem_ = _unfinished_stem(revision, tables.recordings["position"].to_pylist())
        return Part(self._lake, number, stem_, expected=self.sizes[number], tables=tables, remake=lambda: tables)

    def _without(self, number: int, revision: str) -> Part:
        return self._in_memory(number, revision, gather(self._lake, []))

    # ---- unfinished parts -----------------------------------------------------------------------------------------

    def _unfinished(self, number: int, revision: str, positions: set[int], *, make: bool) -> Part:
        """What there is of an unfinished part: what was stored last, and its tail."""
        base = self._base(number, revision, positions)
        stored = frozenset[int]() if base is None else self._positions_in(base)
        tail = self._tail(number, revision, positions - stored)
        if base is None:
            part = self._in_memory(number, revision, tail)
        elif not tail.recordings.num_rows:
            part = base
        else:
            part = _GrowingPart(self._lake, number, revision, base=base, tail=tail, expected=self.sizes[number])
        if make and tail.recordings.num_rows >= STORE_TAIL and not tail.left_out:
            self._store(number, part.stem, part.tables())
            self._lake.tails.drop((self._batch.id, number))
        return part

    def _base(self, number: int, revision: str, positions: set[int]) -> Part | None:
        """What was stored last of an unfinished part, if that is still valid."""
        begin = revision.rpartition("/")[2] + "~"
        stems = {
            f"{self._folder}/{name.removesuffix(LEDGER)}"
            for name in self._names.get(number, [])
            if name.startswith(begin) and name.endswith(LEDGER)
        }
        for stem_ in sorted(stems, reverse=True):  # the one with the most recordings
            if self._has(number, stem_):
                base = self._stored_part_of(number, stem_, positions)
                if base is not None:
                    return base
        return None

    def _stored_part_of(self, number: int, stem_: str, positions: set[int]) -> Part | None:
        """What was stored of an unfinished part; None if it has recordings that have no result any more."""

        def unknown() -> PartTables:
            raise StoreError(f"what is stored of part {number} is damaged", hint="ask again: it is made anew")

        def remade() -> PartTables:
            tables = gather(self._lake, list(self._lake.batches.readings_at(self._batch.id, sorted(stored))))
            if not tables.left_out:
                self._store(number, stem_, tables)
            return tables

        try:
            stored = self._positions_in(Part(self._lake, number, stem_, expected=self.sizes[number], remake=unknown))
        except StoreError:
            return None
        if not stored <= positions:
            return None
        return Part(self._lake, number, stem_, expected=self.sizes[number], remake=remade)

    def _positions_in(self, part: Part) -> frozenset[int]:
        """The positions of an unfinished part that are stored. Read once."""
        return self._lake.memory.recall(
            ("positions", part.stem), lambda: frozenset(part.recording_table["position"].to_pylist())
        )

    def _tail(self, number: int, revision: str, positions: set[int]) -> PartTables:
        """The tables of these recordings, from memory as far as they were read before."""
        if not positions:
            return gather(self._lake, [])
        key = (self._batch.id, number)
        known_revision, known, tables = self._lake.tails.recall(key, lambda: ("", frozenset[int](), None))
        if tables is None or known_revision != revision or not known <= positions:
            known, tables = frozenset(), gather(self._lake, [])
        new = sorted(positions - known)
        if new:
            fresh = gather(self._lake, list(self._lake.batches.readings_at(self._batch.id, new)))
            tables = join(tables, fresh) if tables.recordings.num_rows else fresh
            self._lake.tails.drop(key)
            if not fresh.left_out:  # these may be mended without a mark: another batch may have the same facts
                self._lake.tails.recall(key, lambda: (revision, frozenset(positions), tables))
        return tables

    # ---- files ----------------------------------------------------------------------------------------------------

    @cached_property
    def _begun(self) -> set[int]:
        return self._lake.batches.begun_parts(self._batch.id)

    def _unstored(self, number: int) -> set[int]:
        """The positions with a result of a part that is not stored as finished."""
        if self.is_stored(number) or number not in self._begun:
            return set()
        return self._listed(number)

    def _listed(self, number: int) -> set[int]:
        if number not in self._positions:
            self._positions[number] = self._lake.batches.result_positions(self._batch.id, part=number)
        return self._positions[number]

    @cached_property
    def _positions(self) -> dict[int, set[int]]:
        return {}

    def _revision(self, number: int) -> str:
        marks = sorted(name for name in self._names.get(number, []) if name.endswith(STALE_SUFFIX))
        return stem(self._batch.id, number, marks)

    def _has(self, number: int, stem_: str) -> bool:
        name = stem_.rpartition("/")[2]
        return {name + suffix for suffix in SUFFIXES}.issubset(self._names.get(number, []))

    def _store(self, number: int, stem_: str, tables: PartTables) -> None:
        """Store a part if the lake can be written, and remove what was stored of it before."""
        with contextlib.suppress(StoreError):
            store_part(self._lake, stem_, tables)
            stays = {stem_.rpartition("/")[2] + suffix for suffix in SUFFIXES}
            stays.add(self._revision(number).rpartition("/")[2] + CLAIM)
            for name in self._names.get(number, []):
                if name not in stays and not name.endswith(STALE_SUFFIX):
                    self._lake.files.remove(f"{self._folder}/{name}")


class _GrowingPart(Part):
    """An unfinished part: what was stored of it, and its tail. They are joined when columns are asked for."""

    def __init__(self, lake: Lake, number: int, revision: str, *, base: Part, tail: PartTables, expected: int) -> None:
        positions = [*base.recording_table["position"].to_pylist(), *tail.recordings["position"].to_pylist()]
        stem_ = _unfinished_stem(revision, positions)
        super().__init__(lake, number, stem_, expected=expected, remake=lambda: join(base.tables(), tail))
        self._base = base
        tail_stem = f"{self.stem}.tail"
        self._tail = Part(lake, number, tail_stem, expected=expected, tables=tail, remake=lambda: tail)

    def ledger(self, policy: Policy = DEFAULT) -> PartLedger:
        return join_ledgers([self._base.ledger(policy), self._tail.ledger(policy)])


def _unfinished_stem(revision: str, positions: Sequence[int]) -> str:
    """The stem of what there is of an unfinished part: how many recordings, and a hash of which."""
    return f"{revision}~{len(positions):04d}-{digest('positions', sorted(positions))[:8]}"


class _Claim:
    """A file that one of several processes creates, so that the others wait. One that was killed loses it in time."""

    def __init__(self, lake: Lake, path: str) -> None:
        self._files, self._path = lake.files, path
        self._id = uuid.uuid4().hex

    def take(self) -> bool:
        """Whether this process may go on; True also where nothing can be written."""
        content = json.dumps({"id": self._id, "at": time.time()}).encode()
        try:
            if self._files.create(self._path, content):
                return True
            if time.time() - float(json.loads(self._files.read(self._path))["at"]) < CLAIM_S:
                return False
            self._files.write(self._path, content)
        except NotFound:  # it was released in this moment
            return False
        except (StoreError, ValueError, KeyError):
            return True
        return True

    def __enter__(self) -> "_Claim":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(StoreError):
            self._files.remove(self._path)

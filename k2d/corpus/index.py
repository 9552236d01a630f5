"""The index of a batch: the facts of all its recordings in a few large files, for sweeps over every chunk.

A cache: a part (1024 recordings) is written once all its positions have a result, under a name made from the marks
that changes of the ledger leave, so that an outdated part is never found again. What is missing, unfinished or
damaged is read from the facts shards instead. No Python loop runs over rows.

A part is three files: everything but the details in Parquet, for pages of texts and for DuckDB; and what policies
judge, of chunks and of their segments, as arrays that are mapped into memory (k2d.corpus.numbers).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.corpus import numbers
from k2d.errors import NotFound, StoreError
from k2d.keys import digest
from k2d.schema import Outcome, RecordingResult
from k2d.store import facts_shard as shard
from k2d.store.batches import PART, STALE_SUFFIX, Batches
from k2d.store.errors import DAMAGED_HINT, damaged, guard
from k2d.store.facts import Facts
from k2d.store.files import Files
from k2d.store.parquet import printable, writer
from k2d.store.rooted import safe

INDEX_VERSION: Final = 3  # of what lies in the files; part of their names, so that older ones are made again
# Rows read to show one of them: small enough to page through text, large enough to sweep numbers fast.
ROWS_PER_GROUP: Final = 16_384
FACTS, CHUNKS, SEGMENTS = ".parquet", ".chunks.arrow", ".segments.arrow"
_T = TypeVar("_T")
_FACT_COLUMNS: Final = [name for name in shard.SCHEMA.names if name not in shard.DETAILS]


class Index(Batches, Facts):
    """batches/<id>/index/<part>-<revision>.parquet, .chunks.arrow, .segments.arrow"""

    def index(self, batch_id: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One row for each chunk of the batch so far, in order of (position, index).

        Columns are those of `k2d.store.facts_shard.INDEX_SCHEMA` (position, recording, keys, facts without segments);
        only the ones asked for are read.

        Raises:
            NotFound: no such batch.
            StoreError
        """
        return pa.concat_tables(
            [_schema(columns).empty_table(), *(part.read(columns) for part in self.parts(batch_id))]
        )

    def index_rows(self, batch_id: str, rows: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Some rows of `index` by row number, in the order asked for; reads only the row groups they are in."""
        wanted = np.asarray(rows, dtype=np.int64)
        tables, places = [_schema(columns).empty_table()], []
        start = 0
        for part in self.parts(batch_id):
            stop = start + part.rows()
            here = np.flatnonzero((wanted >= start) & (wanted < stop))
            if here.size:
                tables.append(part.take(wanted[here] - start, columns))
                places.append(here)
            start = stop
        if sum(place.size for place in places) != wanted.size:
            raise NotFound(f"batch {batch_id} has rows 0 to {start - 1}")
        order = np.argsort(np.concatenate(places)) if places else np.empty(0, np.int64)
        return pa.concat_tables(tables).take(pa.array(order))

    def compact(self, batch_id: str) -> int:
        """Write every part of the index that can be written and is not; how many parts still wait for results."""
        return sum(not part.complete for part in self.parts(batch_id))

    def parts(self, batch_id: str) -> "Iterator[Part]":
        """Every part of the batch in order, at most 1024 recordings each, stored where it is complete.

        Raises:
            NotFound: no such batch.
            StoreError
        """
        batch = self.batch(batch_id)
        folder, sources = f"batches/{batch.id}/index", len(batch.sources)
        there: dict[str, list[str]] = {}
        for name in (path.rpartition("/")[2] for path in self.files.listing(folder)):
            there.setdefault(name.partition("-")[0], []).append(name)
        for number in range(-(-sources // PART)):
            mine = there.get(f"{number:06d}", [])
            marks = sorted(name for name in mine if name.endswith(STALE_SUFFIX))
            path = stem(batch.id, number, marks)
            expected = min(PART, sources - number * PART)
            part = Part(self.files, path, partial(self._gather, batch.id, number, expected=expected))
            current = {path.rpartition("/")[2] + suffix for suffix in (FACTS, CHUNKS, SEGMENTS)}
            if not current.issubset(mine):
                part.make()
                for old in mine if part.complete else ():
                    if old not in marks and old not in current:
                        self.files.remove(f"{folder}/{old}")
            yield part

    def _gather(self, batch_id: str, number: int, *, expected: int) -> "_Gathered":
        """The rows of a part from its facts shards, and whether all its positions have a result."""
        results = list(self.results(batch_id, part=number))
        labeled = [r for r in results if r.outcome is Outcome.LABELED and r.facts_key is not None]
        found = list(self.files.many(self._rows_of, labeled))
        rows = pa.concat_tables([shard.INDEX_SCHEMA.empty_table(), *(table for table, _ in found)])
        evidence = pa.chunked_array([one for _, each in found for one in each.chunks], _EVIDENCE_TYPE)
        return _Gathered(rows, numbers.chunks(rows), numbers.segments(evidence), len(results) == expected)

    def _rows_of(self, result: RecordingResult) -> tuple[pa.Table, pa.ChunkedArray]:
        """The index rows of one recording, and the evidence of its segments, a list for each row."""
        key = str(result.facts_key)
        try:
            table, meta = self.facts_shard(key, [*_FACT_COLUMNS, "segment_evidence"])
        except NotFound as error:
            raise StoreError(f"the facts of {result.name!r} are gone: {error.message}", hint=DAMAGED_HINT) from error
        constants = {
            "position": result.position,
            "recording": printable(result.name),
            "label_key": result.label_key,
            "facts_key": key,
            "teacher_fingerprint": fingerprint(meta.get("teacher")),
            "validator_fingerprint": fingerprint(meta.get("validator")),
        }
        return shard.with_constants(table, constants).select(shard.INDEX_SCHEMA.names), table["segment_evidence"]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a part holds, as read from facts shards."""

    rows: pa.Table  # INDEX_SCHEMA
    chunks: pa.Table  # numbers.CHUNKS, the same rows
    segments: pa.Table  # numbers.SEGMENTS
    complete: bool


class Part:
    """One part: stored files, or tables that were just gathered."""

    def __init__(self, files: Files, stem: str, gather: Callable[[], _Gathered]) -> None:
        self._files = files
        self.stem = stem  # the path of its files, without their suffixes; names this content for ever if `complete`
        self._gather = gather
        self._made: _Gathered | None = None

    @property
    def complete(self) -> bool:
        """Whether every position of the part has a result."""
        return self._made is None or self._made.complete

    def make(self) -> None:
        """Gather the rows; store them if they are all there. A store that takes no writes can still be read."""
        made = self._made = self._gather()
        if made.complete:
            with contextlib.suppress(StoreError):
                self._store(CHUNKS, partial(numbers.write, table=made.chunks))
                self._store(SEGMENTS, partial(numbers.write, table=made.segments))
                self._store(FACTS, partial(_write_facts, table=made.rows))

    def chunks(self) -> numbers.Columns:
        """What policies judge, an array a column (k2d.corpus.numbers.CHUNKS), one entry a chunk."""
        return numbers.arrays(self._stored(lambda: self._arrow(CHUNKS, numbers.CHUNKS), lambda made: made.chunks))

    def segments(self) -> numbers.Columns:
        """The same of the chunks' segments (k2d.corpus.numbers.SEGMENTS)."""
        return numbers.arrays(self._stored(lambda: self._arrow(SEGMENTS, numbers.SEGMENTS), lambda made: made.segments))

    def rows(self) -> int:
        """How many chunks there are."""
        return self._stored(self._rows, lambda made: int(made.rows.num_rows))

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Columns of all rows as a table."""
        names = _schema(columns).names
        return self._stored(lambda: self._read(names), lambda made: made.rows.select(names))

    def take(self, rows: npt.NDArray[np.int64], columns: Sequence[str] | None) -> pa.Table:
        """Rows by number within the part."""
        names = _schema(columns).names
        return self._stored(lambda: self._take(rows, names), lambda made: made.rows.select(names).take(pa.array(rows)))

    def _stored(self, read: Callable[[], _T], of: Callable[[_Gathered], _T]) -> _T:
        """Read from the stored files; what is broken in them is made again."""
        if self._made is None:
            try:
                return read()
            except (NotFound, StoreError):
                self.make()
        return of(cast(_Gathered, self._made))

    def _rows(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    def _read(self, names: list[str]) -> pa.Table:
        with self._open() as file, guard(self.stem):
            return file.read(columns=names).select(names).replace_schema_metadata()

    def _take(self, rows: npt.NDArray[np.int64], names: list[str]) -> pa.Table:
        with self._open() as file, guard(self.stem):
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            group_of = np.searchsorted(starts, rows, side="right") - 1
            groups = np.unique(group_of)
            table = file.read_row_groups(groups.tolist(), columns=names).select(names).replace_schema_metadata()
            # where each group that was read begins in the table that holds these groups only
            offsets = np.concatenate([[0], np.cumsum(np.asarray(sizes)[groups])[:-1]])
            return table.take(pa.array(rows - starts[group_of] + offsets[np.searchsorted(groups, group_of)]))

    def _open(self) -> pq.ParquetFile:
        return self._files.parquet(self.stem + FACTS)

    def _arrow(self, suffix: str, schema: pa.Schema) -> pa.Table:
        path = self.stem + suffix
        with guard(path):
            try:
                if self._files.local:
                    return numbers.read(pa.memory_map(self._files.full(path)), schema)
                return numbers.read(pa.BufferReader(self._files.read(path)), schema)
            except ValueError as error:  # pyarrow's ArrowInvalid is one
                raise damaged(path, str(error)) from error

    def _store(self, suffix: str, write: Callable[[Any], None]) -> None:
        path = self.stem + suffix
        with self._files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                write(pending.file)
            pending.commit(path)


_EVIDENCE_TYPE: Final = shard.SCHEMA.field("segment_evidence").type


def stem(batch_id: str, number: int, marks: Sequence[str]) -> str:
    """Where the files of a part lie, without their suffixes, while the ledger carries these marks (file names)."""
    return f"batches/{safe(batch_id)}/index/{number:06d}-{digest('index', INDEX_VERSION, list(marks))[:16]}"


def _write_facts(file: Any, *, table: pa.Table) -> None:
    with writer(file, shard.INDEX_SCHEMA) as out:
        out.write_table(table, row_group_size=ROWS_PER_GROUP)


def fingerprint(model: Any) -> str:
    """A model's fingerprint from a shard's metadata (k2d.schema.ModelInfo as JSON); '' where none was recorded."""
    if not isinstance(model, dict):
        return str(model or "")
    return f"{str(model.get('digest', ''))[:16]}:{model.get('engine', '')}:{model.get('compute_type', '')}"


def _schema(columns: Sequence[str] | None) -> pa.Schema:
    return shard.INDEX_SCHEMA if columns is None else pa.schema([shard.INDEX_SCHEMA.field(name) for name in columns])

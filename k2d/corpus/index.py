"""The index of a batch: the facts of all its recordings in a few large files, for questions about all chunks.

The index is a cache. A part (1,024 recordings) is written once all its positions have a result. Its file name is a hash
of the marks that changes of the results leave, so an outdated part is never read again. Parts that are missing,
incomplete or damaged are read from the facts shards instead. There is no Python loop over rows.

A part consists of three files: all columns except the details as Parquet, for pages of texts and for DuckDB; and the
columns that policies read, of chunks and of segments, as memory-mapped arrays (`k2d.corpus.column_files`).

    for part in parts(lake, lake.batches.get("lectures").id):
        print(part.chunks["duration_s"].sum(), part.read(["teacher_text"]).num_rows)
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.corpus import column_files
from k2d.corpus.gather import SCHEMA, PartTables, gather
from k2d.errors import NotFound, StoreError
from k2d.filtering.policy import Columns
from k2d.keys import digest
from k2d.schema import Batch, Outcome, RecordingResult
from k2d.store import Lake
from k2d.store.base import safe_name
from k2d.store.batches import PART_RECORDINGS, STALE_SUFFIX
from k2d.store.files import Files
from k2d.store.guard import damaged, guard
from k2d.store.parquet import writer

INDEX_VERSION: Final = 5  # of the files' content; part of their names, so that older files are not read
# Rows of a Parquet row group, all of which are read to show one row. Chosen: small enough for pages of text, large
# enough to read whole columns fast.
ROWS_PER_GROUP: Final = 16_384
FACTS, CHUNKS, SEGMENTS = ".parquet", ".chunks.arrow", ".segments.arrow"
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_T = TypeVar("_T")

# columns that are the same for all chunks of a recording
RECORDING_COLUMNS: Final = (
    "recording",
    "recording_id",
    "label_key",
    "facts_key",
    "teacher_fingerprint",
    "validator_fingerprint",
    "validators",
)


# ---- parts --------------------------------------------------------------------------------------------------------


def parts(lake: Lake, batch_id: str) -> "Iterator[Part]":
    """Iterate over the parts of a batch, at most 1,024 recordings each, in order. Complete parts are stored.

        for part in parts(lake, batch.id):
            print(part.chunks["duration_s"].sum())

    Raises:
        NotFound: no such batch.
        StoreError
    """
    batch = lake.batches.get(batch_id)
    folder, sources = f"batches/{batch.id}/index", len(batch.sources)
    stored: dict[str, list[str]] = {}
    for name in (path.rpartition("/")[2] for path in lake.files.listing(folder)):
        stored.setdefault(name.partition("-")[0], []).append(name)
    for number in range(-(-sources // PART_RECORDINGS)):
        names = stored.get(f"{number:06d}", [])
        marks = sorted(name for name in names if name.endswith(STALE_SUFFIX))
        path = stem(batch.id, number, marks)
        expected = min(PART_RECORDINGS, sources - number * PART_RECORDINGS)
        part = Part(lake.files, path, partial(gather, lake, batch.id, number, expected=expected))
        current = {path.rpartition("/")[2] + suffix for suffix in (FACTS, CHUNKS, SEGMENTS)}
        if not current.issubset(names):
            part.make()
            for old in names if part.complete else ():
                if old not in marks and old not in current:
                    lake.files.remove(f"{folder}/{old}")
        yield part


def read_index(lake: Lake, batch_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one row for each chunk of a batch so far, in the order of (position, index).

    `columns` are names of `k2d.corpus.gather.SCHEMA`; None: all.

        read_index(lake, "lectures", ["recording", "start_s", "teacher_text"]).to_pandas()

    Raises:
        NotFound: no such batch.
        StoreError
    """
    empty = _schema(columns).empty_table()
    return pa.concat_tables([empty, *(part.read(columns) for part in parts(lake, batch_id))])


def outdated(lake: Lake, batch: Batch, *, search: bool = False) -> list[int]:
    """List the positions of a batch whose facts were written by an earlier version, are damaged or are gone: they count
    as missing.

    A lake that is marked as current (`Lake.is_current`) is only searched if `search` is set, since that reads one file
    per recording.
    """
    if lake.is_current() and not search:
        return []

    def check(result: RecordingResult) -> int | None:
        return None if lake.facts.is_current(str(result.facts_key)) else result.position

    labeled = (result for result in lake.batches.results(batch.id) if result.outcome is Outcome.LABELED)
    return [position for position in lake.files.many(check, labeled) if position is not None]


def _without_labels(lake: Lake, batch: Batch) -> list[RecordingResult]:
    """The results of a batch whose label shard is gone."""

    def check(result: RecordingResult) -> RecordingResult | None:
        return None if lake.labels.has(str(result.label_key)) else result

    labeled = (result for result in lake.batches.results(batch.id) if result.outcome is Outcome.LABELED)
    return [result for result in lake.files.many(check, labeled) if result is not None]


def take_back_outdated(lake: Lake, batch: Batch, *, search: bool = False) -> int:
    """Remove the results of `outdated` positions, so that these recordings are processed again; return their number.

    With `search`, also results that are damaged, and those whose labels are gone, with the facts made from them.
    """
    damaged_results = lake.batches.damaged_results(batch.id) if search else []
    for position in damaged_results:
        lake.batches.delete_result(batch.id, position)
    positions = set(outdated(lake, batch, search=search))
    for result in _without_labels(lake, batch) if search else ():
        lake.facts.remove(str(result.facts_key))
        positions.add(result.position)
    for position in positions:
        lake.batches.delete_result(batch.id, position)
    return len(positions) + len(damaged_results)


class Part:
    """Up to 1,024 recordings of a batch, with their chunks and segments as columns.

    Columns come from the stored files, or from facts shards if these are missing, incomplete or damaged.
    """

    def __init__(self, files: Files, stem: str, gather: Callable[[], PartTables]) -> None:
        self._files = files
        self.stem = stem  # path of its files without suffix; if `complete`, it always stands for the same content
        self._gather = gather
        self._tables: PartTables | None = None

    @property
    def complete(self) -> bool:
        """Whether every position of the part has a result, with facts of the current version."""
        return self._tables is None or not self._tables.missing

    @property
    def results(self) -> tuple[RecordingResult, ...] | None:
        """The results that the rows of an incomplete part account for; more may come in meanwhile. None: all."""
        return None if self.complete or self._tables is None else self._tables.results

    def make(self) -> None:
        """Read the rows from facts shards, and store them if the part is complete and the lake writable."""
        tables = self._tables = self._gather()
        if not tables.missing:
            with contextlib.suppress(StoreError):
                self._store(CHUNKS, partial(column_files.write, table=tables.chunks))
                self._store(SEGMENTS, partial(column_files.write, table=tables.segments))
                self._store(FACTS, partial(_write_facts, table=tables.rows))

    @cached_property
    def chunks(self) -> Columns:
        """The columns of `column_files.CHUNKS`, shape (chunks,) each."""
        table = self._stored(lambda: self._arrow(CHUNKS, column_files.CHUNKS), lambda tables: tables.chunks)
        return column_files.arrays(table)

    @cached_property
    def segments(self) -> Columns:
        """The columns of `column_files.SEGMENTS`, shape (segments,) each; `chunk` is the row of a segment's chunk."""
        table = self._stored(lambda: self._arrow(SEGMENTS, column_files.SEGMENTS), lambda tables: tables.segments)
        return column_files.arrays(table)

    @cached_property
    def recordings(self) -> "Recordings":
        """The recordings of this part that have chunks."""
        positions = self.chunks["position"]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions)) + 1]) if len(positions) else np.empty(0, int)
        return Recordings(starts.astype(np.int64), len(positions), self.take(starts, list(RECORDING_COLUMNS)))

    def rows(self) -> int:
        """The number of chunks."""
        return self._stored(self._rows, lambda tables: int(tables.rows.num_rows))

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of all rows (names of SCHEMA; None: all)."""
        names = _schema(columns).names
        return self._stored(lambda: self._read(names), lambda tables: tables.rows.select(names))

    def take(self, rows: Ints, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of some rows, by their numbers within the part. Only the row groups with these rows are read."""
        names = _schema(columns).names
        return self._stored(
            lambda: self._take(rows, names), lambda tables: tables.rows.select(names).take(pa.array(rows))
        )

    def _stored(self, read: Callable[[], _T], of: Callable[[PartTables], _T]) -> _T:
        """Read from the stored files, or from the facts shards if those are missing or damaged."""
        if self._tables is None:
            try:
                return read()
            except (NotFound, StoreError):
                self.make()
        return of(cast(PartTables, self._tables))

    def _rows(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    def _read(self, names: list[str]) -> pa.Table:
        with self._open() as file, guard(self.stem):
            return file.read(columns=names).select(names).replace_schema_metadata()

    def _take(self, rows: Ints, names: list[str]) -> pa.Table:
        with self._open() as file, guard(self.stem):
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            group_of = np.searchsorted(starts, rows, side="right") - 1
            groups = np.unique(group_of)
            table = file.read_row_groups(groups.tolist(), columns=names).select(names).replace_schema_metadata()
            # the first row of each group in the table of the groups that were read
            offsets = np.concatenate([[0], np.cumsum(np.asarray(sizes)[groups])[:-1]])
            return table.take(pa.array(rows - starts[group_of] + offsets[np.searchsorted(groups, group_of)]))

    def _open(self) -> pq.ParquetFile:
        return self._files.parquet(self.stem + FACTS)

    def _arrow(self, suffix: str, schema: pa.Schema) -> pa.Table:
        path = self.stem + suffix
        with guard(path):
            try:
                if self._files.local:
                    return column_files.read(pa.memory_map(self._files.full(path)), schema)
                return column_files.read(pa.BufferReader(self._files.read(path)), schema)
            except ValueError as error:  # includes pyarrow's ArrowInvalid
                raise damaged(path, str(error)) from error

    def _store(self, suffix: str, write: Callable[[Any], None]) -> None:
        path = self.stem + suffix
        with self._files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                write(pending.file)
            pending.commit(path)


class Recordings:
    """The recordings of a part, in order: the rows of their chunks, and their names and keys."""

    def __init__(self, starts: Ints, chunks: int, names: pa.Table) -> None:
        self.starts = starts  # (recordings,): the row of each one's first chunk
        self.stops = np.append(starts[1:], chunks)[: len(starts)]
        self._names = names

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> Ints:
        """The number of chunks of each recording, shape (recordings,)."""
        sizes: Ints = self.stops - self.starts
        return sizes

    def column(self, name: str) -> list[str]:
        """Return one of RECORDING_COLUMNS, with one value for each recording."""
        values: list[str] = self._names[name].to_pylist()
        return values

    def of_chunk(self, rows: Ints) -> Ints:
        """Return the recording of each of these chunks, shape of `rows`."""
        return np.searchsorted(self.starts, rows, side="right") - 1


def stem(batch_id: str, number: int, marks: Sequence[str]) -> str:
    """The path of a part's files without suffix, as long as the part has these marks (file names, `Batches`)."""
    return f"batches/{safe_name(batch_id)}/index/{number:06d}-{digest('index', INDEX_VERSION, list(marks))[:16]}"


def _write_facts(file: Any, *, table: pa.Table) -> None:
    with writer(file, SCHEMA) as out:
        out.write_table(table, row_group_size=ROWS_PER_GROUP)


def _schema(columns: Sequence[str] | None) -> pa.Schema:
    return SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])

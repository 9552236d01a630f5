"""A part of the index: up to 1,024 recordings of a batch, with their chunks and segments as columns.

Five files: all columns except the details as Parquet, for pages of texts and for DuckDB; the columns that policies
read, of chunks and of segments, as memory-mapped arrays (`k2d.corpus.column_files`); the recordings with their results;
and the ledger, which is written last. There is no Python loop over rows.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.corpus import column_files
from k2d.corpus.gather import RECORDINGS, SCHEMA, PartTables, results_of
from k2d.corpus.ledgers import PartLedger, kept_sums, part_ledger
from k2d.errors import DamagedFile, NotFound, StoreError
from k2d.filtering.policy import DEFAULT, Columns, Policy
from k2d.schema import RecordingResult
from k2d.store import Lake
from k2d.store.base import read_json
from k2d.store.guard import damaged, guard
from k2d.store.parquet import describe, dumps, writer

# Rows of a Parquet row group, all of which are read to show one row. Of 1,024 to 16,384 this is where a page of texts
# costs least, and a whole column as much as with larger groups (docs/LOG.md, 2026-11-30).
ROWS_PER_GROUP: Final = 4096
FACTS, CHUNKS, SEGMENTS = ".parquet", ".chunks.arrow", ".segments.arrow"
RECORDING_TABLE, LEDGER = ".recordings.arrow", ".ledger.json"
SUFFIXES: Final = (FACTS, CHUNKS, SEGMENTS, RECORDING_TABLE, LEDGER)
Ints = npt.NDArray[np.int64]
_T = TypeVar("_T")

# columns that are the same for all chunks of a recording, and their names in RECORDINGS
RECORDING_COLUMNS: Final = {
    "recording": "name",
    "recording_id": "recording_id",
    "label_key": "label_key",
    "facts_key": "facts_key",
    "teacher_fingerprint": "teacher_fingerprint",
    "validator_fingerprint": "validator_fingerprint",
    "validators": "validators",
}


class Part:
    """Some recordings of one part of a batch: all of them, or those that have a result so far.

    Columns come from the stored files, or from facts shards where these are missing or damaged, and for recordings that
    came in since they were written.

    Args:
        stem: path of its files without suffix; always stands for the same content.
        tables: what is in it, if it is in memory; else it is read from its files.
        remake: gathers its recordings from facts shards and stores them; called where the files are missing or damaged.
        expected: the number of positions of the part.
    """

    def __init__(
        self,
        lake: Lake,
        number: int,
        stem: str,
        *,
        expected: int,
        tables: PartTables | None = None,
        remake: Callable[[], PartTables],
    ) -> None:
        self._lake, self._files = lake, lake.files
        self.number = number
        self.stem = stem
        self.expected = expected
        self._tables = tables
        self._remake = remake

    @property
    def complete(self) -> bool:
        """Whether every position of the part has a result, with facts of the current version."""
        return self.counted == self.expected

    @cached_property
    def counted(self) -> int:
        """The number of recordings in it, quarantined ones included."""
        return self.ledger().recordings

    @property
    def results(self) -> list[RecordingResult]:
        """The results that its rows account for; more may come in meanwhile."""
        return results_of(self.recording_table)

    @property
    def damaged(self) -> tuple[DamagedFile, ...]:
        """The results and facts of its recordings that cannot be read. Known once anything was read of the part."""
        return () if self._tables is None else self._tables.damaged

    def require_whole(self) -> None:
        """Check that nothing is left out, for numbers that people decide by.

        Raises:
            DamagedFile: results or facts of the part cannot be read.
        """
        if self.damaged:
            raise self.damaged[0]

    def load(self) -> None:
        """Open the columns of chunks and segments, which makes the part anew where its files are damaged."""
        _ = self.chunks, self.segments

    def release(self) -> None:
        """Free the columns of chunks and segments; they are read again when they are asked for."""
        for name in ("chunks", "segments"):
            self.__dict__.pop(name, None)

    @cached_property
    def chunks(self) -> Columns:
        """The columns of `column_files.CHUNKS`, shape (chunks,) each."""
        return self._stored(
            lambda: self._columns(CHUNKS, column_files.CHUNKS), lambda tables: column_files.arrays(tables.chunks)
        )

    @cached_property
    def segments(self) -> Columns:
        """The columns of `column_files.SEGMENTS`, shape (segments,) each; `chunk` is the row of a segment's chunk."""
        return self._stored(
            lambda: self._columns(SEGMENTS, column_files.SEGMENTS), lambda tables: column_files.arrays(tables.segments)
        )

    @cached_property
    def recordings(self) -> "Recordings":
        """The recordings of this part that have chunks."""
        table = self.recording_table
        return Recordings(table.filter(pa.array(table["chunks"].to_numpy() > 0)))

    @cached_property
    def recording_table(self) -> pa.Table:
        """All recordings (k2d.corpus.gather.RECORDINGS), in the order of positions."""
        return self._stored(self._recordings, lambda tables: tables.recordings)

    def ledger(self, policy: Policy = DEFAULT) -> PartLedger:
        """Its ledger, with the sums of `policy`. Read from one file, once; other policies are computed once."""
        ledger = self._lake.memory.recall((LEDGER, self.stem), lambda: self._stored(self._ledger, ledger_of))
        if ledger.policy == policy.key:
            return ledger
        kept = self._lake.memory.recall((LEDGER, self.stem, policy.key), lambda: kept_sums(policy, self))
        return ledger.model_copy(update={"kept": kept, "policy": policy.key})

    def rows(self) -> int:
        """The number of chunks."""
        return self._stored(self._rows, lambda tables: int(tables.rows.num_rows))

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of all rows (names of SCHEMA; None: all)."""
        names = chosen_columns(columns).names
        return self._stored(lambda: self._read(names), lambda tables: tables.rows.select(names))

    def take(self, rows: Ints, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of some rows, by their numbers within the part. Only the row groups with these rows are read."""
        names = chosen_columns(columns).names
        return self._stored(
            lambda: self._take(rows, names), lambda tables: tables.rows.select(names).take(pa.array(rows))
        )

    def tables(self) -> PartTables:
        """All of it."""
        return self._stored(
            lambda: PartTables(
                self._read(SCHEMA.names),
                self._arrow(CHUNKS, column_files.CHUNKS),
                self._arrow(SEGMENTS, column_files.SEGMENTS),
                self._recordings(),
            ),
            lambda tables: tables,
        )

    # ---- files ----------------------------------------------------------------------------------------------------

    def _stored(self, read: Callable[[], _T], of: Callable[[PartTables], _T]) -> _T:
        """Read from the stored files, or from the facts shards if those are missing or damaged."""
        if self._tables is None:
            try:
                return read()
            except (NotFound, StoreError):
                self._tables = self._remake()
        return of(self._tables)

    def _ledger(self) -> PartLedger:
        ledger: PartLedger = read_json(self._files, self.stem + LEDGER, PartLedger)
        return ledger

    def _recordings(self) -> pa.Table:
        return self._arrow(RECORDING_TABLE, RECORDINGS)

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

    def _columns(self, suffix: str, schema: pa.Schema) -> Columns:
        table = self._arrow(suffix, schema)
        with guard(self.stem + suffix):
            try:
                return column_files.arrays(table)
            except ValueError as error:  # buffers that are too short
                raise damaged(self.stem + suffix, str(error)) from error

    def _arrow(self, suffix: str, schema: pa.Schema) -> pa.Table:
        path = self.stem + suffix
        with guard(path):
            try:
                if self._files.local:
                    return column_files.read(pa.memory_map(self._files.full(path)), schema)
                return column_files.read(pa.BufferReader(self._files.read(path)), schema)
            except ValueError as error:  # includes pyarrow's ArrowInvalid
                raise damaged(path, str(error)) from error


class Recordings:
    """The recordings of a part that have chunks, in order: the rows of these, and their names and keys."""

    def __init__(self, table: pa.Table) -> None:
        self.sizes: Ints = table["chunks"].to_numpy().astype(np.int64)  # (recordings,): how many chunks each has
        self.stops: Ints = np.cumsum(self.sizes)
        self.starts: Ints = self.stops - self.sizes  # (recordings,): the row of each one's first chunk
        self.positions: Ints = table["position"].to_numpy().astype(np.int64)
        self._names = table

    def __len__(self) -> int:
        return len(self.starts)

    def column(self, name: str) -> list[str]:
        """Return one of RECORDING_COLUMNS, with one value for each recording."""
        values: list[str] = self._names[RECORDING_COLUMNS[name]].to_pylist()
        return values

    def of_chunk(self, rows: Ints) -> Ints:
        """Return the recording of each of these chunks, shape of `rows`."""
        return np.searchsorted(self.starts, rows, side="right") - 1


def store_part(lake: Lake, stem: str, tables: PartTables) -> None:
    """Write the files of a part, its ledger last.

    Raises:
        StoreError
    """
    _store(lake, stem + CHUNKS, partial(column_files.write, table=tables.chunks))
    _store(lake, stem + SEGMENTS, partial(column_files.write, table=tables.segments))
    _store(lake, stem + FACTS, partial(_write_facts, table=tables.rows))
    _store(lake, stem + RECORDING_TABLE, partial(column_files.write, table=tables.recordings, compression="zstd"))
    lake.files.write(stem + LEDGER, dumps(ledger_of(tables).as_json()))


def ledger_of(tables: PartTables) -> PartLedger:
    """The ledger of some recordings under the default policy."""
    columns = _Columns(column_files.arrays(tables.chunks), column_files.arrays(tables.segments))
    return part_ledger(results_of(tables.recordings), kept_sums(DEFAULT, columns), DEFAULT)


class _Columns:
    """Chunks and segments as columns (`k2d.filtering.policy.PartColumns`)."""

    def __init__(self, chunks: Columns, segments: Columns) -> None:
        self.chunks, self.segments = chunks, segments


def _write_facts(file: Any, *, table: pa.Table) -> None:
    with writer(file, describe(SCHEMA, {})) as out:
        out.write_table(table, row_group_size=ROWS_PER_GROUP)


def _store(lake: Lake, path: str, write: Callable[[Any], None]) -> None:
    with lake.files.pending(path.rpartition("/")[0]) as pending:
        with guard(path, writing=True):
            write(pending.file)
        pending.commit(path)


def chosen_columns(columns: Sequence[str] | None) -> pa.Schema:
    """The schema of some columns of SCHEMA, or of all."""
    return SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])

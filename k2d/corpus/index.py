"""The index of a batch: the facts of all its recordings in a few large files, for questions about every chunk.

A cache: a part (1,024 recordings) is written once all its positions have a result, under a name made from the marks
that changes of the ledger leave, so that an outdated part is never found again. What is missing, unfinished or damaged
is read from the facts shards instead. No Python loop runs over rows.

A part is three files: everything but the details in Parquet, for pages of texts and for DuckDB; and what policies read,
of chunks and of their segments, as arrays that are mapped into memory (k2d.corpus.columns).

    for part in parts(lake, lake.batches.get("lectures").id):
        print(part.chunks["duration_s"].sum(), part.read(["teacher_text"]).num_rows)
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.corpus import columns as numbers
from k2d.errors import NotFound, StoreError
from k2d.filtering.policy import Columns
from k2d.keys import digest
from k2d.schema import Batch, ModelInfo, Outcome, RecordingResult
from k2d.store import Lake, facts
from k2d.store.batches import PART, STALE_SUFFIX
from k2d.store.files import Files
from k2d.store.guard import DAMAGED_HINT, damaged, guard
from k2d.store.parquet import printable, writer
from k2d.store.rooted import safe

INDEX_VERSION: Final = 4  # of what lies in the files; part of their names, so that older ones are made again
# Rows read to show one of them: small enough to page through text, large enough to sweep numbers fast.
ROWS_PER_GROUP: Final = 16_384
FACTS, CHUNKS, SEGMENTS = ".parquet", ".chunks.arrow", ".segments.arrow"
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_T = TypeVar("_T")

# what a facts row gains in the index of a batch
POSITION_COLUMNS: Final = (
    ("position", pa.int32()),  # of the recording in the batch
    ("recording", pa.string()),  # the source's name
    ("label_key", pa.string()),
    ("facts_key", pa.string()),
    ("teacher_fingerprint", pa.string()),
    ("validator_fingerprint", pa.string()),
)
SCHEMA: Final = pa.schema([*POSITION_COLUMNS, *(field for field in facts.SCHEMA if field.name not in facts.DETAILS)])
_FACT_COLUMNS: Final = [name for name in facts.SCHEMA.names if name not in facts.DETAILS]
_EVIDENCE_TYPE: Final = facts.SCHEMA.field("segment_evidence").type
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
    """Every part of a batch in order, at most 1,024 recordings each; parts that are complete are stored.

    Raises:
        NotFound: no such batch.
        StoreError
    """
    batch = lake.batches.get(batch_id)
    folder, sources = f"batches/{batch.id}/index", len(batch.sources)
    stored: dict[str, list[str]] = {}
    for name in (path.rpartition("/")[2] for path in lake.files.listing(folder)):
        stored.setdefault(name.partition("-")[0], []).append(name)
    for number in range(-(-sources // PART)):
        names = stored.get(f"{number:06d}", [])
        marks = sorted(name for name in names if name.endswith(STALE_SUFFIX))
        path = stem(batch.id, number, marks)
        expected = min(PART, sources - number * PART)
        part = Part(lake.files, path, partial(_gather, lake, batch.id, number, expected=expected))
        current = {path.rpartition("/")[2] + suffix for suffix in (FACTS, CHUNKS, SEGMENTS)}
        if not current.issubset(names):
            part.make()
            for old in names if part.complete else ():
                if old not in marks and old not in current:
                    lake.files.remove(f"{folder}/{old}")
        yield part


def read_index(lake: Lake, batch_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One row for each chunk of a batch so far, in order of (position, index); columns of SCHEMA, all when None.

        read_index(lake, "lectures", ["recording", "start_s", "teacher_text"]).to_pandas()

    Raises:
        NotFound: no such batch.
        StoreError
    """
    empty = _schema(columns).empty_table()
    return pa.concat_tables([empty, *(part.read(columns) for part in parts(lake, batch_id))])


def outdated(lake: Lake, batch: Batch, *, search: bool = False) -> list[int]:
    """Positions of a batch whose facts were written by an earlier version, or are gone: they count as missing.

    A lake that says it has no such facts (`k2d.store.Lake.is_current`) is searched only if `search` asks for it: that
    opens a file a recording.
    """
    if lake.is_current() and not search:
        return []

    def check(result: RecordingResult) -> int | None:
        return None if lake.facts.is_current(str(result.facts_key)) else result.position

    labeled = (result for result in lake.batches.results(batch.id) if result.outcome is Outcome.LABELED)
    return [position for position in lake.files.many(check, labeled) if position is not None]


def take_back_outdated(lake: Lake, batch: Batch, *, search: bool = False) -> int:
    """Take the results away that `outdated` names, so that those recordings are done again; returns how many."""
    positions = outdated(lake, batch, search=search)
    for position in positions:
        lake.batches.delete_result(batch.id, position)
    return len(positions)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a part holds, as read from facts shards."""

    rows: pa.Table  # SCHEMA
    chunks: pa.Table  # columns.CHUNKS, the same rows
    segments: pa.Table  # columns.SEGMENTS
    missing: int  # positions without a result, or with facts of an earlier version


class Part:
    """Up to 1,024 recordings of a batch: their chunks and segments as columns, from stored files or just gathered."""

    def __init__(self, files: Files, stem: str, gather: Callable[[], _Gathered]) -> None:
        self._files = files
        self.stem = stem  # the path of its files, without their suffixes; names this content for ever if `complete`
        self._gather = gather
        self._made: _Gathered | None = None

    @property
    def complete(self) -> bool:
        """Whether every position of the part has a result, with facts of this version."""
        return self._made is None or not self._made.missing

    def make(self) -> None:
        """Gather the rows; store them if they are all there. A store that takes no writes can still be read."""
        made = self._made = self._gather()
        if not made.missing:
            with contextlib.suppress(StoreError):
                self._store(CHUNKS, partial(numbers.write, table=made.chunks))
                self._store(SEGMENTS, partial(numbers.write, table=made.segments))
                self._store(FACTS, partial(_write_facts, table=made.rows))

    @cached_property
    def chunks(self) -> Columns:
        """What policies read, an array a column (k2d.corpus.columns.CHUNKS), one entry a chunk."""
        return numbers.arrays(self._stored(lambda: self._arrow(CHUNKS, numbers.CHUNKS), lambda made: made.chunks))

    @cached_property
    def segments(self) -> Columns:
        """The same of the chunks' segments (k2d.corpus.columns.SEGMENTS); `chunk` is the row of a segment's chunk."""
        return numbers.arrays(self._stored(lambda: self._arrow(SEGMENTS, numbers.SEGMENTS), lambda made: made.segments))

    @cached_property
    def recordings(self) -> "Recordings":
        """The recordings that have chunks in this part."""
        positions = self.chunks["position"]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions)) + 1]) if len(positions) else np.empty(0, int)
        return Recordings(starts.astype(np.int64), len(positions), self.take(starts, list(RECORDING_COLUMNS)))

    def rows(self) -> int:
        """How many chunks there are."""
        return self._stored(self._rows, lambda made: int(made.rows.num_rows))

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Columns of all rows as a table (SCHEMA)."""
        names = _schema(columns).names
        return self._stored(lambda: self._read(names), lambda made: made.rows.select(names))

    def take(self, rows: Ints, columns: Sequence[str] | None) -> pa.Table:
        """Rows by number within the part; reads only the row groups they are in."""
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

    def _take(self, rows: Ints, names: list[str]) -> pa.Table:
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


class Recordings:
    """The recordings of a part, in order: which rows of the chunks are theirs, and their names and keys."""

    def __init__(self, starts: Ints, chunks: int, names: pa.Table) -> None:
        self.starts = starts  # the first row of each, shape (recordings,)
        self.stops = np.append(starts[1:], chunks)[: len(starts)]
        self._names = names

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> Ints:
        """How many chunks each recording has."""
        sizes: Ints = self.stops - self.starts
        return sizes

    def column(self, name: str) -> list[str]:
        """One of RECORDING_COLUMNS, a value for each recording."""
        values: list[str] = self._names[name].to_pylist()
        return values

    def of_chunk(self, rows: Ints) -> Ints:
        """The recording of each of these chunks."""
        return np.searchsorted(self.starts, rows, side="right") - 1


# ---- recordings that several batches share ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class DistinctPart:
    """A part without the recordings that came before it: `fresh` says of each recording whether it is the first.

    `chunks` and `segments` are those of fresh recordings alone, `rows` their rows in the part, and `segment_rows` those of
    the segments; `segments["chunk"]` points into these chunks.
    """

    part: Part
    fresh: Flags
    chunks: Columns
    segments: Columns
    rows: Ints
    segment_rows: Ints


def distinct_parts(lake: Lake, batches: Sequence[Batch]) -> Iterator[DistinctPart]:
    """All parts of these batches; of a recording that is in several, the first counts.

    Raises:
        StoreError
    """
    seen: set[str] = set()
    for batch in batches:
        for part in parts(lake, batch.id):
            ids = part.recordings.column("recording_id")
            fresh = np.zeros(len(ids), np.bool_)
            for place, recording_id in enumerate(ids):
                fresh[place] = recording_id not in seen
                seen.add(recording_id)
            yield _distinct(part, fresh)


def _distinct(part: Part, fresh: Flags) -> DistinctPart:
    chunks, segments = part.chunks, part.segments
    if fresh.all():
        every = (np.arange(len(chunks["ms"])), np.arange(len(segments["ms"])))
        return DistinctPart(part, fresh, chunks, segments, *every)
    mask = np.repeat(fresh, part.recordings.sizes)
    rows, segment_rows = np.flatnonzero(mask), np.flatnonzero(mask[segments["chunk"]])
    renumbered = np.cumsum(mask) - 1
    kept = {name: column[segment_rows] for name, column in segments.items()}
    kept["chunk"] = renumbered[kept["chunk"]].astype(np.int32)
    return DistinctPart(part, fresh, {name: c[rows] for name, c in chunks.items()}, kept, rows, segment_rows)


# ---- gathering ----------------------------------------------------------------------------------------------------


def _gather(lake: Lake, batch_id: str, number: int, *, expected: int) -> _Gathered:
    """The rows of a part from its facts shards, and how many of its positions have none."""
    results = list(lake.batches.results(batch_id, part=number))
    labeled = [result for result in results if result.outcome is Outcome.LABELED and result.facts_key is not None]
    tables = [table for table in lake.files.many(partial(_index_rows, lake), labeled) if table is not None]
    rows = pa.concat_tables([SCHEMA.empty_table(), *(table for table, _ in tables)])
    evidence = pa.chunked_array([chunk for _, lists in tables for chunk in lists.chunks], _EVIDENCE_TYPE)
    missing = expected - len(results) + len(labeled) - len(tables)
    return _Gathered(rows, numbers.chunks(rows), numbers.segments(evidence), missing)


def _index_rows(lake: Lake, result: RecordingResult) -> tuple[pa.Table, pa.ChunkedArray] | None:
    """The index rows of one recording, and the evidence of its segments, a list for each row.

    None where its facts were written by an earlier version: the recording is not labeled yet, as far as this one knows.

    Raises:
        StoreError: the facts are gone; or they are an earlier version's in a lake that says it has none, whose ledgers
            count them as done.
    """
    key = str(result.facts_key)
    try:
        table, meta = lake.facts.shard(key, [*_FACT_COLUMNS, "segment_evidence"])
    except NotFound as error:
        if lake.facts.has(key):
            if lake.is_current():
                raise StoreError(f"the facts of {result.name!r}: {error.message}", hint=error.hint) from error
            return None
        raise StoreError(f"the facts of {result.name!r} are gone: {error.message}", hint=DAMAGED_HINT) from error
    constants = {
        "position": result.position,
        "recording": printable(result.name),
        "label_key": result.label_key,
        "facts_key": key,
        "teacher_fingerprint": fingerprint(meta.get("teacher")),
        "validator_fingerprint": fingerprint(meta.get("validator")),
    }
    return _with_constants(table, constants).select(SCHEMA.names), table["segment_evidence"]


def _with_constants(table: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    """Put columns of one repeated value, typed as in SCHEMA, before the others."""
    for place, (name, value) in enumerate(values.items()):
        repeated = pa.repeat(pa.scalar(value, SCHEMA.field(name).type), table.num_rows)
        table = table.add_column(place, SCHEMA.field(name), repeated)
    return table


def stem(batch_id: str, number: int, marks: Sequence[str]) -> str:
    """Where the files of a part lie, without their suffixes, while the ledger carries these marks (file names)."""
    return f"batches/{safe(batch_id)}/index/{number:06d}-{digest('index', INDEX_VERSION, list(marks))[:16]}"


def _write_facts(file: Any, *, table: pa.Table) -> None:
    with writer(file, SCHEMA) as out:
        out.write_table(table, row_group_size=ROWS_PER_GROUP)


def fingerprint(model: Any) -> str:
    """A model's fingerprint from a shard's metadata (k2d.schema.ModelInfo as JSON); '' where none was recorded."""
    return ModelInfo(**model).fingerprint if isinstance(model, dict) else str(model or "")


def _schema(columns: Sequence[str] | None) -> pa.Schema:
    return SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])

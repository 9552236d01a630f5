"""The index of a batch: the facts of all its recordings in a few large Parquet files, for sweeps over every chunk.

A cache: a part (1024 recordings) is written once all its positions have a result, under a name made from the marks
that changes of the ledger leave, so that an outdated part is never found again. What is missing, unfinished or
damaged is read from the facts shards instead. No Python loop runs over rows.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.errors import NotFound, StoreError
from k2d.keys import digest
from k2d.schema import Outcome, RecordingResult
from k2d.shards import facts as shard
from k2d.shards.parquet import printable, writer
from k2d.store.batches import PART, STALE_SUFFIX, Batches
from k2d.store.errors import DAMAGED_HINT, guard
from k2d.store.facts import Facts
from k2d.store.files import Files

# Rows read to show one of them: small enough to page through text, large enough to sweep numbers fast.
ROWS_PER_GROUP = 16_384
_FACT_COLUMNS = [name for name in shard.SCHEMA.names if name not in shard.DETAILS]


class Index(Batches, Facts):
    """batches/<id>/index/<part>-<revision>.parquet"""

    def index(self, batch_id: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One row for each chunk of the batch so far, in order of (position, index).

        Columns are those of `k2d.shards.facts.INDEX_SCHEMA` (position, recording, keys, facts without segments);
        only the ones asked for are read.

        Raises:
            NotFound: no such batch.
            StoreError
        """
        return pa.concat_tables([_schema(columns).empty_table(), *self.index_parts(batch_id, columns)])

    def index_parts(self, batch_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of `index` in tables of at most 1024 recordings each; a recording is never split."""
        for part in self._parts(batch_id):
            yield part.read(columns)

    def index_rows(self, batch_id: str, rows: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Some rows of `index` by row number, in the order asked for; reads only the row groups they are in."""
        wanted = np.asarray(rows, dtype=np.int64)
        tables, places = [_schema(columns).empty_table()], []
        start = 0
        for part in self._parts(batch_id):
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
        return sum(not part.complete for part in self._parts(batch_id))

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _parts(self, batch_id: str) -> "Iterator[_Part]":
        """Every part of the batch, stored where it is complete."""
        batch = self.batch(batch_id)
        folder, sources = f"batches/{batch.id}/index", len(batch.sources)
        names = [path.rpartition("/")[2] for path in self.files.listing(folder)]
        for number in range(-(-sources // PART)):
            mine = [name for name in names if name.startswith(f"{number:06d}-")]
            marks = sorted(name for name in mine if name.endswith(STALE_SUFFIX))
            name = f"{number:06d}-{digest('index', marks)[:16]}.parquet"
            expected = min(PART, sources - number * PART)
            part = _Part(self.files, f"{folder}/{name}", partial(self._gather, batch.id, number, expected=expected))
            if name not in mine or not part.sound():
                part.make()
                for old in mine if part.complete else ():
                    if old.endswith(".parquet") and old != name:
                        self.files.remove(f"{folder}/{old}")
            yield part

    def _gather(self, batch_id: str, number: int, *, expected: int) -> tuple[pa.Table, bool]:
        """The rows of a part from its facts shards, and whether all its positions have a result."""
        results = list(self.results(batch_id, part=number))
        labeled = [r for r in results if r.outcome is Outcome.LABELED and r.facts_key is not None]
        tables = list(self.files.many(self._rows_of, labeled))
        return pa.concat_tables([shard.INDEX_SCHEMA.empty_table(), *tables]), len(results) == expected

    def _rows_of(self, result: RecordingResult) -> pa.Table:
        key = str(result.facts_key)
        try:
            table, meta = self.facts_shard(key, _FACT_COLUMNS)
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
        return shard.with_constants(table, constants).select(shard.INDEX_SCHEMA.names)


class _Part:
    """One part: a stored file, or a table that was just gathered."""

    def __init__(self, files: Files, path: str, gather: Callable[[], tuple[pa.Table, bool]]) -> None:
        self._files = files
        self._path = path
        self._gather = gather
        self.table: pa.Table | None = None
        self.complete = True

    def sound(self) -> bool:
        """Whether the stored file can be opened and has this version's columns. A broken one is made again."""
        with contextlib.suppress(NotFound, StoreError), self._open() as file:
            return bool(file.schema_arrow.names == shard.INDEX_SCHEMA.names)
        return False

    def make(self) -> None:
        """Gather the rows; store them if they are all there. A store that takes no writes can still be read."""
        self.table, self.complete = self._gather()
        if self.complete:
            with contextlib.suppress(StoreError), self._files.pending(self._path.rpartition("/")[0]) as pending:
                with guard(self._path, writing=True), writer(pending.file, shard.INDEX_SCHEMA) as out:
                    out.write_table(self.table, row_group_size=ROWS_PER_GROUP)
                pending.commit(self._path)

    def rows(self) -> int:
        if self.table is not None:
            return int(self.table.num_rows)
        with self._open() as file:
            return int(file.metadata.num_rows)

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        names = _schema(columns).names
        if self.table is None:
            try:
                with self._open() as file, guard(self._path):
                    return file.read(columns=names).select(names).replace_schema_metadata()
            except StoreError:  # a footer that reads over pages that do not
                self.make()
        return cast(pa.Table, self.table).select(names)

    def take(self, rows: "np.ndarray[Any, np.dtype[np.int64]]", columns: Sequence[str] | None) -> pa.Table:
        """Rows by number within the part."""
        names = _schema(columns).names
        if self.table is not None:
            return self.table.select(names).take(pa.array(rows))
        with self._open() as file, guard(self._path):
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            group_of = np.searchsorted(starts, rows, side="right") - 1
            groups = np.unique(group_of)
            table = file.read_row_groups(groups.tolist(), columns=names).select(names).replace_schema_metadata()
            # where each group that was read begins in the table that holds these groups only
            offsets = np.concatenate([[0], np.cumsum(np.asarray(sizes)[groups])[:-1]])
            return table.take(pa.array(rows - starts[group_of] + offsets[np.searchsorted(groups, group_of)]))

    def _open(self) -> pq.ParquetFile:
        return self._files.parquet(self._path)


def fingerprint(model: Any) -> str:
    """A model's fingerprint from a shard's metadata (k2d.schema.ModelInfo as JSON); '' where none was recorded."""
    if not isinstance(model, dict):
        return str(model or "")
    return f"{str(model.get('digest', ''))[:16]}:{model.get('engine', '')}:{model.get('compute_type', '')}"


def _schema(columns: Sequence[str] | None) -> pa.Schema:
    return shard.INDEX_SCHEMA if columns is None else pa.schema([shard.INDEX_SCHEMA.field(name) for name in columns])

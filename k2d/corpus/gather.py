"""Reads the rows of a part of a batch from its facts shards, one shard per recording."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyarrow as pa

from k2d.corpus import column_files
from k2d.errors import DamagedFile, NotFound
from k2d.schema import ModelInfo, Outcome, RecordingResult
from k2d.store import Lake, facts
from k2d.store.batches import DamagedResult
from k2d.store.parquet import printable

# the columns that a row of facts gets in the index of a batch
POSITION_COLUMNS: Final = (
    ("position", pa.int32()),  # of the recording in the batch
    ("recording", pa.string()),  # name of the source
    ("label_key", pa.string()),
    ("facts_key", pa.string()),
    ("teacher_fingerprint", pa.string()),
    ("validator_fingerprint", pa.string()),
)
SCHEMA: Final = pa.schema([*POSITION_COLUMNS, *(field for field in facts.SCHEMA if field.name not in facts.DETAILS)])
_FACT_COLUMNS: Final = [name for name in facts.SCHEMA.names if name not in facts.DETAILS]
_GONE_HINT: Final = "run `k2d resume`: it computes them again from the stored labels and hypotheses"
_EVIDENCE_TYPE: Final = facts.SCHEMA.field("segment_evidence").type


@dataclass(frozen=True, slots=True)
class PartTables:
    """The content of a part."""

    rows: pa.Table  # SCHEMA, one row per chunk
    chunks: pa.Table  # column_files.CHUNKS, the same rows
    segments: pa.Table  # column_files.SEGMENTS
    missing: int  # positions without a result, or with facts of an earlier version
    results: tuple[RecordingResult, ...]  # the results that these rows account for, quarantined recordings included
    damaged: tuple[DamagedFile, ...] = ()  # results and facts that cannot be read; among `missing`


def gather(lake: Lake, batch_id: str, number: int, *, expected: int) -> PartTables:
    """Read part `number` of a batch from facts shards. `expected`: the number of its positions.

    Recordings whose result or facts are gone or damaged are left out; the errors are in `damaged`.

    Raises:
        StoreError: the store does not answer.
    """
    readings = list(lake.batches.readings(batch_id, part=number))
    results = [reading for reading in readings if isinstance(reading, RecordingResult)]
    labeled = [result for result in results if result.outcome is Outcome.LABELED and result.facts_key is not None]
    read = list(zip(labeled, lake.files.many(partial(_index_rows_or_error, lake), labeled), strict=True))
    tables = [table for _, table in read if isinstance(table, tuple)]
    outdated = {result.position for result, table in read if not isinstance(table, tuple)}
    errors = [reading.error for reading in readings if isinstance(reading, DamagedResult)]
    errors += [table for _, table in read if isinstance(table, DamagedFile)]
    rows = pa.concat_tables([SCHEMA.empty_table(), *(table for table, _ in tables)])
    evidence = pa.chunked_array([chunk for _, lists in tables for chunk in lists.chunks], _EVIDENCE_TYPE)
    missing = expected - len(results) + len(labeled) - len(tables)
    counted = tuple(result for result in results if result.position not in outdated)
    columns = column_files.chunks(rows), column_files.segments(evidence)
    return PartTables(rows, *columns, missing, counted, tuple(errors))


def _index_rows_or_error(lake: Lake, result: RecordingResult) -> tuple[pa.Table, pa.ChunkedArray] | DamagedFile | None:
    try:
        return _index_rows(lake, result)
    except DamagedFile as error:
        return error


def _index_rows(lake: Lake, result: RecordingResult) -> tuple[pa.Table, pa.ChunkedArray] | None:
    """The index rows of one recording, and the evidence of its segments, one list per row.

    None if its facts were written by an earlier version: the recording then counts as not labeled yet.

    Raises:
        DamagedFile: the facts are damaged or gone, or they are an earlier version's in a lake that is marked as
            current, where ledgers count the recording as done.
    """
    key = str(result.facts_key)
    try:
        table, meta = lake.facts.shard(key, [*_FACT_COLUMNS, "segment_evidence"])
    except NotFound as error:
        if lake.facts.has(key):
            if lake.is_current():
                raise DamagedFile(f"the facts of {result.name!r}: {error.message}", hint=error.hint) from error
            return None
        raise DamagedFile(f"the facts of {result.name!r} are gone: {error.message}", hint=_GONE_HINT) from error
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
    """Insert columns that have one value in all rows, typed as in SCHEMA, before the others."""
    for place, (name, value) in enumerate(values.items()):
        repeated = pa.repeat(pa.scalar(value, SCHEMA.field(name).type), table.num_rows)
        table = table.add_column(place, SCHEMA.field(name), repeated)
    return table


def fingerprint(model: Any) -> str:
    """Return a model's fingerprint from a shard's metadata (ModelInfo as JSON); "" if none was recorded."""
    try:
        return ModelInfo(**model).fingerprint if isinstance(model, dict) else str(model or "")
    except TypeError:  # another version's, or damaged
        return ""

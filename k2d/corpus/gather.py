"""Reads the rows of recordings from their facts shards, one shard a recording, and joins what was read before."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from k2d.corpus import column_files
from k2d.errors import DamagedFile, NotFound
from k2d.schema import ModelInfo, NoLabel, Outcome, RecordingResult, Versions
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
# one row per recording: its result, and where its chunks are
RECORDINGS: Final = pa.schema(
    [
        ("position", pa.int32()),
        ("name", pa.string()),
        ("outcome", pa.string()),
        ("duration_s", pa.float64()),
        ("recording_id", pa.string()),
        ("label_key", pa.string()),
        ("facts_key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("wall_s", pa.float64()),
        ("quarantined_s", pa.float64()),
        ("notes", pa.list_(pa.string())),
        (
            "versions",
            pa.struct(
                [
                    ("label", pa.int32()),
                    ("facts", pa.int32()),
                    ("labeled_by", pa.string()),
                    ("validated_by", pa.string()),
                ]
            ),
        ),
        ("no_label", pa.struct([(field.name, pa.int64()) for field in dataclasses.fields(NoLabel)])),
        ("chunks", pa.int32()),  # how many it has
        ("teacher_fingerprint", pa.string()),
        ("validator_fingerprint", pa.string()),
        ("validators", pa.string()),
    ]
)
_RESULT: Final = tuple(
    field.name for field in dataclasses.fields(RecordingResult) if field.name in RECORDINGS.names
)  # what a forecast reads of a result is in its own file only
_FACT_COLUMNS: Final = [name for name in facts.SCHEMA.names if name not in facts.DETAILS]
_GONE_HINT: Final = "run `k2d resume`: it computes them again from the stored labels and hypotheses"
_EVIDENCE_TYPE: Final = facts.SCHEMA.field("segment_evidence").type


@dataclass(frozen=True, slots=True)
class PartTables:
    """The content of a part, or of some of its recordings. All rows are in the order of positions."""

    rows: pa.Table  # SCHEMA, one row per chunk
    chunks: pa.Table  # column_files.CHUNKS, the same rows
    segments: pa.Table  # column_files.SEGMENTS
    recordings: pa.Table  # RECORDINGS, quarantined recordings included
    left_out: int = 0  # recordings whose facts an earlier version wrote, or that are damaged
    damaged: tuple[DamagedFile, ...] = ()  # results and facts that cannot be read; among those left out


def gather(lake: Lake, readings: Sequence[RecordingResult | DamagedResult]) -> PartTables:
    """Read the facts shards of recordings by their results, which are in the order of positions.

    Recordings whose result or facts are gone or damaged are left out; the errors are in `damaged`.

    Raises:
        StoreError: the store does not answer.
    """
    if not readings:
        return _nothing()
    results = [reading for reading in readings if isinstance(reading, RecordingResult)]
    labeled = [result for result in results if result.outcome is Outcome.LABELED and result.facts_key is not None]
    read = zip(labeled, lake.files.many(partial(_rows_or_error, lake), labeled), strict=True)
    shards = {result.position: shard for result, shard in read}
    tables = [shard for shard in shards.values() if isinstance(shard, _ShardRows)]
    errors = [reading.error for reading in readings if isinstance(reading, DamagedResult)]
    errors += [shard for shard in shards.values() if isinstance(shard, DamagedFile)]
    rows = pa.concat_tables([SCHEMA.empty_table(), *(shard.rows for shard in tables)])
    evidence = pa.chunked_array([chunk for shard in tables for chunk in shard.evidence.chunks], _EVIDENCE_TYPE)
    recordings = []
    for result in results:
        shard = shards.get(result.position)
        if result.position not in shards or isinstance(shard, _ShardRows):
            recordings.append(recording_row(result, shard if isinstance(shard, _ShardRows) else None))
    return PartTables(
        rows,
        column_files.chunks(rows),
        column_files.segments(evidence),
        pa.Table.from_pylist(recordings, schema=RECORDINGS),
        left_out=len(readings) - len(recordings),
        damaged=tuple(errors),
    )


@cache
def _nothing() -> PartTables:
    """The tables of no recording. Made once: a look at a batch asks for them once a part."""
    rows = SCHEMA.empty_table()
    segments = column_files.segments(pa.chunked_array([], _EVIDENCE_TYPE))
    return PartTables(rows, column_files.chunks(rows), segments, RECORDINGS.empty_table())


def _rows_or_error(lake: Lake, result: RecordingResult) -> "_ShardRows | DamagedFile | None":
    try:
        return _rows_of(lake, result)
    except DamagedFile as error:
        return error


def join(first: PartTables, second: PartTables) -> PartTables:
    """The tables of two disjoint sets of recordings of a part, in the order of positions."""
    rows = pa.concat_tables([first.rows, second.rows])
    positions = np.concatenate([table.chunks["position"].to_numpy() for table in (first, second)])
    order = np.argsort(positions, kind="stable")  # within a recording, chunks are in order already
    place = np.empty(len(order), np.int32)  # the new row of each chunk
    place[order] = np.arange(len(order), dtype=np.int32)
    offsets = (0, first.rows.num_rows)
    of = [table.segments["chunk"].to_numpy() + offset for table, offset in zip((first, second), offsets, strict=True)]
    chunk = place[np.concatenate(of)]
    segments = pa.concat_tables([first.segments, second.segments])
    at = segments.schema.get_field_index("chunk")
    segments = segments.set_column(at, segments.schema.field("chunk"), pa.array(chunk.astype(np.int32)))
    recordings = pa.concat_tables([first.recordings, second.recordings])
    return PartTables(
        rows.take(pa.array(order)),
        pa.concat_tables([first.chunks, second.chunks]).take(pa.array(order)),
        segments.take(pa.array(np.argsort(chunk, kind="stable"))),
        recordings.take(pa.array(np.argsort(recordings["position"].to_numpy(), kind="stable"))),
        left_out=first.left_out + second.left_out,
        damaged=(*first.damaged, *second.damaged),
    )


def results_of(recordings: pa.Table) -> list[RecordingResult]:
    """The results in a table RECORDINGS, or in some of its rows."""
    return [_result(row) for row in recordings.select(list(_RESULT)).to_pylist()]


@dataclass(frozen=True, slots=True)
class _ShardRows:
    """The index rows of one recording."""

    rows: pa.Table  # SCHEMA
    evidence: pa.ChunkedArray  # of its segments, one list for each row


def _rows_of(lake: Lake, result: RecordingResult) -> _ShardRows | None:
    """Read the index rows of one recording.

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
    return _ShardRows(_with_constants(table, constants).select(SCHEMA.names), table["segment_evidence"])


def _with_constants(table: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    """Insert columns that have one value in all rows, typed as in SCHEMA, before the others."""
    for place, (name, value) in enumerate(values.items()):
        repeated = pa.repeat(pa.scalar(value, SCHEMA.field(name).type), table.num_rows)
        table = table.add_column(place, SCHEMA.field(name), repeated)
    return table


def recording_row(result: RecordingResult, shard: "_ShardRows | None") -> dict[str, Any]:
    """A row of RECORDINGS: a result, and what its facts shard says of its chunks."""
    row = {name: getattr(result, name) for name in _RESULT} | {"name": printable(result.name), "chunks": 0}
    row["detail"] = None if result.detail is None else printable(result.detail)
    row["notes"] = [printable(note) for note in result.notes]
    row["versions"] = None if result.versions is None else dataclasses.asdict(result.versions)
    row["no_label"] = None if result.no_label is None else dataclasses.asdict(result.no_label)
    if shard is not None and shard.rows.num_rows:
        names = ("teacher_fingerprint", "validator_fingerprint", "validators")
        row |= {"chunks": shard.rows.num_rows, **{name: shard.rows[name][0].as_py() for name in names}}
    return row


def _result(row: dict[str, Any]) -> RecordingResult:
    versions, no_label = row.pop("versions"), row.pop("no_label")
    row |= {"outcome": Outcome(row["outcome"]), "notes": tuple(row["notes"])}
    return RecordingResult(
        **row,
        versions=None if versions is None else Versions(**versions),
        no_label=None if no_label is None else NoLabel(**no_label),
    )


def fingerprint(model: Any) -> str:
    """Return a model's fingerprint from a shard's metadata (ModelInfo as JSON); "" if none was recorded."""
    try:
        return ModelInfo(**model).fingerprint if isinstance(model, dict) else str(model or "")
    except TypeError:  # another version's, or damaged
        return ""

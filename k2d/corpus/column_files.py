"""Column files: the columns that policies read, of many chunks and of their segments, in memory-mappable files.

The format is Arrow IPC, uncompressed, with one batch and no nulls, so that each column is a plain array in the file and
columns that are not used are not read. Floats are float32 (evidence is rounded to four decimals); durations are whole
milliseconds, so that ledgers add up exactly.
"""

from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2d.filtering.policy import EVIDENCE_COLUMNS
from k2d.store import facts

_MS: Final = ("ms", pa.int32())
_INT: Final = pa.int32()
# stored as bytes: Arrow's booleans are bits and cannot be mapped
FLAGS: Final = frozenset(("is_phrase", "is_echo", "is_rescored"))


def _kind(field: pa.Field) -> pa.DataType:
    if field.name in FLAGS:
        return pa.uint8()
    return pa.float32() if pa.types.is_floating(field.type) else field.type


SEGMENT_EVIDENCE: Final = facts.SCHEMA.field("segment_evidence").type.value_type
# one row per chunk, in the order of (position, index)
CHUNKS: Final = pa.schema(
    [
        ("position", _INT),
        ("index", _INT),
        _MS,
        ("duration_s", pa.float32()),
        *((name, _kind(facts.SCHEMA.field(name))) for name in facts.POLICY_COLUMNS),
    ]
)
# one row per segment of these chunks
SEGMENTS: Final = pa.schema(
    [
        ("chunk", _INT),  # row of its chunk in CHUNKS
        ("number", _INT),  # its number in the chunk
        _MS,
        *((name, _kind(SEGMENT_EVIDENCE.field(name))) for name in EVIDENCE_COLUMNS),
    ]
)


def chunks(table: pa.Table) -> pa.Table:
    """Make the table CHUNKS from rows of the index (`k2d.corpus.gather.SCHEMA`)."""
    ms = pa.array(_ms(table["duration_s"].to_numpy()))
    return _typed({**{name: table[name] for name in table.column_names}, "ms": ms}, CHUNKS)


def segments(evidence: pa.ChunkedArray) -> pa.Table:
    """Make the table SEGMENTS from a column segment_evidence, which has one list for each chunk."""
    lists = evidence.combine_chunks() if evidence.num_chunks else pa.array([], evidence.type)
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    chunk = np.repeat(np.arange(len(sizes)), sizes)
    flat = lists.flatten()
    columns = {name: flat.field(flat.type.get_field_index(name)) for name in EVIDENCE_COLUMNS}
    columns["chunk"] = pa.array(chunk.astype(np.int32))
    columns["number"] = pa.array((np.arange(len(chunk)) - np.repeat(starts, sizes)).astype(np.int32))
    columns["ms"] = pa.array(_ms(columns["duration_s"].to_numpy(zero_copy_only=False)))
    return _typed(columns, SEGMENTS)


def write(file: BinaryIO, table: pa.Table, *, compression: str | None = None) -> None:
    """Write a table as one batch; CHUNKS and SEGMENTS without compression, so that they can be mapped."""
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(table.combine_chunks())


def read(source: Any, schema: pa.Schema) -> pa.Table:
    """Read the table of a file or of mapped memory, without copying its columns.

    Raises:
        ValueError: the file has another schema.
    """
    with pa.ipc.open_file(source) as file:
        if not file.schema.equals(schema):
            raise ValueError("its columns are not those of this version of k2d")
        table = file.read_all()
        table.validate()  # sizes of buffers: what is read beyond one is not an error but a crash
        return table


def arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Return the columns as arrays, shape (rows,) each; not copied if the table is one batch. FLAGS are booleans."""
    return {name: _array(column, np.bool_ if name in FLAGS else None) for name, column in _columns(table)}


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _array(column: pa.ChunkedArray, kind: type[np.bool_] | None) -> npt.NDArray[Any]:
    """A column without nulls as an array. Arrow's own to_numpy is not used: it imports pandas, which takes seconds."""
    dtype = np.dtype(kind or column.type.to_pandas_dtype())
    arrays = [
        np.frombuffer(chunk.buffers()[1], dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _typed(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _ms(seconds: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.rint(seconds.astype(np.float64) * 1000).astype(np.int32)

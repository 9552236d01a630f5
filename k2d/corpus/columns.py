"""Column files: what policies read of many chunks and their segments, laid out so that memory can be mapped to it.

Arrow IPC, not compressed, one batch, no nulls: a column is an array as it lies in the file, and what is not looked at
is not read. Floats are float32, as evidence is rounded; spans are whole milliseconds, which ledgers add up.
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
FLAGS: Final = frozenset(("is_phrase", "is_echo"))  # a byte each: a bit each could not be mapped to an array


def _kind(field: pa.Field) -> pa.DataType:
    if field.name in FLAGS:
        return pa.uint8()
    return pa.float32() if pa.types.is_floating(field.type) else field.type


SEGMENT_EVIDENCE: Final = facts.SCHEMA.field("segment_evidence").type.value_type
# one row for each chunk, in order of (position, index)
CHUNKS: Final = pa.schema(
    [
        ("position", _INT),
        ("index", _INT),
        _MS,
        ("duration_s", pa.float32()),
        *((name, _kind(facts.SCHEMA.field(name))) for name in facts.POLICY_COLUMNS),
    ]
)
# one row for each segment of them
SEGMENTS: Final = pa.schema(
    [
        ("chunk", _INT),  # the row of its chunk in the file of chunks
        ("number", _INT),  # its place in the chunk
        _MS,
        *((name, _kind(SEGMENT_EVIDENCE.field(name))) for name in EVIDENCE_COLUMNS),
    ]
)


def chunks(table: pa.Table) -> pa.Table:
    """The columns of chunks from rows of the index (position, and columns of facts)."""
    ms = pa.array(_ms(table["duration_s"].to_numpy()))
    return _typed({**{name: table[name] for name in table.column_names}, "ms": ms}, CHUNKS)


def segments(evidence: pa.ChunkedArray) -> pa.Table:
    """The columns of segments from a column segment_evidence with one list for each chunk."""
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


def write(file: BinaryIO, table: pa.Table) -> None:
    """Write CHUNKS or SEGMENTS as one batch."""
    with pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table.combine_chunks())


def read(source: Any, schema: pa.Schema) -> pa.Table:
    """The table of a file or mapped memory; its columns stay where they are.

    Raises:
        ValueError: the file is none of this schema.
    """
    with pa.ipc.open_file(source) as file:
        if not file.schema.equals(schema):
            raise ValueError("the columns are not those of this version")
        return file.read_all()


def arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """The columns of CHUNKS or SEGMENTS as arrays, without a copy where the table is one batch; flags are booleans."""
    return {name: _array(column, np.bool_ if name in FLAGS else None) for name, column in _columns(table)}


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _array(column: pa.ChunkedArray, kind: type[np.bool_] | None) -> npt.NDArray[Any]:
    """A column without nulls. Not by Arrow's own to_numpy, which imports pandas: seconds for a command that sweeps."""
    dtype = np.dtype(kind or column.type.to_pandas_dtype())
    found = [
        np.frombuffer(one.buffers()[1], dtype, count=len(one), offset=one.offset * dtype.itemsize)
        for one in column.chunks
        if len(one)
    ]
    if len(found) == 1:
        return found[0]
    return np.concatenate(found) if found else np.empty(0, dtype)


def _typed(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _ms(seconds: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.rint(seconds.astype(np.float64) * 1000).astype(np.int32)

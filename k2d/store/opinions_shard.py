"""Opinions shards: what one listener makes of a recording's chunks, one row for each chunk it heard."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from k2d.schema import Opinion
from k2d.store.parquet import describe, writer

# field names as in k2d.schema.Opinion, in its order
OPINION = pa.struct(
    [
        ("listener", pa.string()),
        ("view", pa.string()),
        ("text", pa.string()),
        ("avg_logprob", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("is_phonemes", pa.bool_()),
        ("doubts", pa.list_(pa.float64())),
    ]
)
SCHEMA = pa.schema([("index", pa.int32()), ("opinions", pa.list_(OPINION))])


def write(file: BinaryIO, rows: Iterable[tuple[int, tuple[Opinion, ...]]], meta: Mapping[str, Any]) -> None:
    """Write what was said of each chunk, by the chunk's index, as a shard of one row group."""
    schema = describe(SCHEMA, meta)
    found = [{"index": index, "opinions": [opinion_row(one) for one in said]} for index, said in rows]
    with writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist(found, schema=schema))


def opinions(table: pa.Table) -> dict[int, tuple[Opinion, ...]]:
    """What was said, by the chunk's index; chunks that were not heard are not in it."""
    return {row["index"]: tuple(opinion(one) for one in row["opinions"]) for row in table.to_pylist()}


def opinion_row(one: Opinion) -> dict[str, Any]:
    """An opinion as it is stored."""
    values = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return {**values, "scores": list(one.scores), "doubts": list(one.doubts)}


def opinion(row: Mapping[str, Any]) -> Opinion:
    """A stored opinion as the noun."""
    return Opinion(**{**row, "scores": tuple(row["scores"]), "doubts": tuple(row["doubts"])})

"""Frozen datasets of noise for tests: many short rows in several row groups and shards."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lakes import batch, put_recording

from k2d.datasets.freeze import freeze
from k2d.datasets.read import FrozenDataset
from k2d.datasets.rows import ROWS_PER_GROUP
from k2d.filtering.policy import PAPER
from k2d.store import Lake
from k2d.store.parquet import dumps, writer

NAME = "talks"
BATCH = "b_0123456789abcdef"
ROW_S = 0.2
APART_S = 3.0  # more than a row may bridge


def frozen(root: Path | Lake, *, recordings: int = 4, rows: int = 10, shard_bytes: int = 20_000) -> FrozenDataset:
    """A dataset of `recordings` × `rows` rows of 0.2 s, a few to a shard."""
    lake = root if isinstance(root, Lake) else Lake(str(root))
    lake.batches.put(batch(recordings))
    spans = [(round(i * APART_S, 3), round(i * APART_S + ROW_S, 3)) for i in range(rows)]
    for number in range(recordings):
        lake.batches.put_result(BATCH, put_recording(lake, number, spans))
    freeze(lake, name=NAME, batches=["lectures"], policy=PAPER, shard_bytes=shard_bytes)
    return FrozenDataset(lake, NAME)


def change(lake: Lake, shard: int, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Rewrite a shard of a local lake, and its hash in the manifest, after `edit` has changed its rows in place: as if
    it had been frozen so."""
    path = lake.datasets.shard_path(NAME, shard)
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    with open(path, "wb") as file, writer(file, table.schema) as out:
        for start in range(0, len(rows), ROWS_PER_GROUP):
            out.write_table(pa.Table.from_pylist(rows[start : start + ROWS_PER_GROUP], schema=table.schema))
    manifest = lake.datasets.manifest(NAME)
    data = Path(path).read_bytes()
    changed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    shards = [own.model_copy(update=changed) if own.number == shard else own for own in manifest.shards]
    document = manifest.model_copy(update={"shards": shards}).model_dump(mode="json")
    lake.files.write(f"datasets/{NAME}/manifest.json", dumps(document))

"""Frozen datasets of noise for tests: many short rows in several row groups and shards."""

from pathlib import Path

from lakes import batch, put_recording

from k2d.datasets.freeze import freeze
from k2d.datasets.frozen import Frozen
from k2d.policy import DEFAULT
from k2d.store import Lake

NAME = "talks"
BATCH = "b_0123456789abcdef"
ROW_S = 0.2
APART_S = 3.0  # more than a row may bridge


def frozen(root: Path | Lake, *, recordings: int = 4, rows: int = 10, shard_bytes: int = 20_000) -> Frozen:
    """A dataset of `recordings` × `rows` rows of 0.2 s, a few to a shard."""
    lake = root if isinstance(root, Lake) else Lake(str(root))
    lake.put_batch(batch(recordings))
    spans = [(round(i * APART_S, 3), round(i * APART_S + ROW_S, 3)) for i in range(rows)]
    for number in range(recordings):
        lake.put_result(BATCH, put_recording(lake, number, spans))
    freeze(lake, name=NAME, batches=["lectures"], policy=DEFAULT, shard_bytes=shard_bytes)
    return Frozen(lake, NAME)

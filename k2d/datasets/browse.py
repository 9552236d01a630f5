"""A look into a frozen dataset: some of its rows, and their audio, by small reads."""

import random
from dataclasses import dataclass
from typing import Any, Final

from k2d.datasets.read import FrozenDataset
from k2d.datasets.rows import ROWS_PER_GROUP
from k2d.errors import NotFound
from k2d.store import Lake
from k2d.store.guard import guard

COLUMNS: Final = ("id", "text", "duration_s", "source", "start_s", "end_s", "language", "distance")


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row without its audio, and where it is."""

    shard: int
    row: int  # within its shard
    id: str
    text: str
    duration_s: float
    source: str
    start_s: float
    end_s: float
    language: str
    distance: float | None


def random_rows(lake: Lake, name: str, count: int, seed: int) -> list[SampleRow]:
    """Draw rows uniformly; the same seed gives the same rows. Reads one row group for each, without audio.

        random_rows(lake, "lectures-v1", 6, seed=1)[0].text

    Shards are not hashed for it: this is a look, not training.

    Raises:
        NotFound, StoreError
    """
    shards = FrozenDataset(lake, name).manifest.shards
    total = sum(shard.rows for shard in shards)
    numbers = sorted(random.Random(seed).sample(range(total), min(count, total)))
    rows, before, left = [], 0, iter(shards)
    shard = next(left, None)
    for number in numbers:
        while shard is not None and number >= before + shard.rows:
            before += shard.rows
            shard = next(left, None)
        if shard is not None:
            rows.append(_row(lake, name, shard.number, number - before))
    return rows


def row_audio(lake: Lake, name: str, shard: int, row: int) -> bytes:
    """The FLAC of a row; reads one row group, at most about 32 MB.

    Raises:
        NotFound: no such dataset, shard or row.
        StoreError
    """
    flac: bytes = _read(lake, name, shard, row, ["audio.bytes"])["audio"]["bytes"]
    return flac


def _row(lake: Lake, name: str, shard: int, row: int) -> SampleRow:
    values = _read(lake, name, shard, row, list(COLUMNS))
    return SampleRow(shard, row, **values)


def _read(lake: Lake, name: str, shard: int, row: int, columns: list[str]) -> dict[str, Any]:
    group, place = divmod(row, ROWS_PER_GROUP)
    with lake.datasets.unverified_shard(name, shard) as file, guard(f"shard {shard} of dataset {name!r}"):
        known = [column for column in columns if column.partition(".")[0] in file.schema_arrow.names]
        if not 0 <= group < file.metadata.num_row_groups:
            raise NotFound(f"shard {shard} of dataset {name!r} has no row {row}")
        table = file.read_row_group(group, columns=known)
        if place >= table.num_rows:
            raise NotFound(f"shard {shard} of dataset {name!r} has no row {row}")
        values: dict[str, Any] = table.slice(place, 1).to_pylist()[0]
    return dict.fromkeys((column.partition(".")[0] for column in columns), None) | values

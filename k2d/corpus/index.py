"""The index of a batch: the facts of all its recordings in a few large files, for questions about all chunks.

The index is a cache, made part by part (1,024 recordings, by their order in the batch). A part is written once all its
positions have a result: by the worker whose result was the last, else by whoever asks first, and by one of several at
once. The names of its files contain a hash of the marks that changes of the results leave, so an outdated part is never
read again. Of a part that is not finished, what there is so far is stored from time to time, and what came in since,
its tail, is read from facts shards and kept in memory. Files that are missing or damaged are made again.

    for part in parts(lake, lake.batches.get("lectures").id):
        print(part.chunks["duration_s"].sum(), part.read(["teacher_text"]).num_rows)
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from k2d.corpus.batch_index import BatchIndex, stem
from k2d.corpus.gather import SCHEMA
from k2d.corpus.part import Ints, Part, chosen_columns
from k2d.schema import Batch, Outcome, RecordingResult
from k2d.store import Lake
from k2d.store.batches import PART_RECORDINGS, DamagedResult

__all__ = ["SCHEMA", "Ints", "Part", "parts", "read_index", "results", "stem"]


# ---- reading ------------------------------------------------------------------------------------------------------


def parts(lake: Lake, batch_id: str, *, make: bool = True) -> Iterator[Part]:
    """Iterate over the parts of a batch, at most 1,024 recordings each, in order.

        for part in parts(lake, batch.id):
            print(part.chunks["duration_s"].sum())

    Parts whose recordings all have a result are stored, if they are not; without `make` they are left out: they come as
    parts in which nothing has a result.

    Raises:
        NotFound: no such batch.
        StoreError
    """
    yield from BatchIndex(lake, lake.batches.get(batch_id)).parts(make=make)


def read_index(lake: Lake, batch_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one row for each chunk of a batch so far, in the order of (position, index).

    `columns` are names of `k2d.corpus.gather.SCHEMA`; None: all.

        read_index(lake, "lectures", ["recording", "start_s", "teacher_text"]).to_pandas()

    Raises:
        NotFound: no such batch.
        StoreError: besides, results or facts of a recording cannot be read.
    """
    empty = chosen_columns(columns).empty_table()
    return pa.concat_tables([empty, *(_whole(part, columns) for part in parts(lake, batch_id))])


def _whole(part: Part, columns: Sequence[str] | None) -> pa.Table:
    table = part.read(columns)
    part.require_whole()
    return table


def results(lake: Lake, batch: Batch) -> Iterator[RecordingResult]:
    """Iterate over the results of a batch: from one file a part where the index has it, else from one a recording.

    Raises:
        StoreError
    """
    index = BatchIndex(lake, batch)
    for number in range(len(index.sizes)):
        if index.is_stored(number):
            yield from index.part(number).results
        else:
            yield from lake.batches.results(batch.id, part=number)


# ---- keeping it up ------------------------------------------------------------------------------------------------


def settle(lake: Lake, batch: Batch, numbers: Sequence[int] | None = None) -> None:
    """Store what is finished of these parts (None: of all), long tails of unfinished ones, and the batch's ledger if
    these were the last.

        settle(lake, batch, [position // PART_RECORDINGS])  # after a result

    Raises:
        StoreError: facts are gone or damaged.
    """
    index = BatchIndex(lake, batch)
    for number in range(len(index.sizes)) if numbers is None else sorted(set(numbers)):
        if not index.is_stored(number):
            index.part(number)
    BatchIndex(lake, batch).store_total()


def parts_of(positions: Sequence[int]) -> list[int]:
    """The numbers of the parts that have these positions."""
    return sorted({position // PART_RECORDINGS for position in positions})


def retry(lake: Lake, batch: Batch) -> None:
    """Remove the mark of a cancelled batch and the results of its quarantined recordings: they are missing then.

    So are results that cannot be read, where the index of their part is not stored.
    """
    lake.batches.uncancel(batch.id)
    index = BatchIndex(lake, batch)
    for number in range(len(index.sizes)):
        stored = index.is_stored(number)
        readings = index.part(number).results if stored else list(lake.batches.readings(batch.id, part=number))
        for reading in readings:
            if isinstance(reading, DamagedResult) or reading.outcome is Outcome.QUARANTINED:
                lake.batches.delete_result(batch.id, reading.position)


def outdated(lake: Lake, batch: Batch, *, search: bool = False) -> list[int]:
    """List the positions of a batch whose facts were written by an earlier version, are damaged or are gone: they count
    as missing.

    A lake that is marked as current (`Lake.is_current`) is only searched if `search` is set, since that reads one file
    per recording. Without it, parts in the index are not searched: their facts were current when they were stored.
    """
    if lake.is_current() and not search:
        return []

    def check(result: RecordingResult) -> int | None:
        return None if lake.facts.is_current(str(result.facts_key)) else result.position

    index = BatchIndex(lake, batch)
    searched = [number for number in range(len(index.sizes)) if search or not index.is_stored(number)]
    found = (result for number in searched for result in lake.batches.results(batch.id, part=number))
    labeled = (result for result in found if result.outcome is Outcome.LABELED)
    return [position for position in lake.files.many(check, labeled) if position is not None]


def _without_labels(lake: Lake, batch: Batch) -> list[RecordingResult]:
    """The results of a batch whose label shard is gone."""

    def check(result: RecordingResult) -> RecordingResult | None:
        return None if lake.labels.has(str(result.label_key)) else result

    labeled = (result for result in lake.batches.results(batch.id) if result.outcome is Outcome.LABELED)
    return [result for result in lake.files.many(check, labeled) if result is not None]


def take_back_outdated(lake: Lake, batch: Batch, *, search: bool = False) -> int:
    """Remove the results of `outdated` positions, so that these recordings are processed again; return their number.

    With `search`, also results that are damaged, and those whose labels are gone, with the facts made from them.
    """
    damaged_results = lake.batches.damaged_results(batch.id) if search else []
    for position in damaged_results:
        lake.batches.delete_result(batch.id, position)
    positions = set(outdated(lake, batch, search=search))
    for result in _without_labels(lake, batch) if search else ():
        lake.facts.remove(str(result.facts_key))
        positions.add(result.position)
    for position in positions:
        lake.batches.delete_result(batch.id, position)
    return len(positions) + len(damaged_results)

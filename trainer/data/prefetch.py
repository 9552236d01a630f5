"""Reads the blocks of a dataset's order a little ahead of whoever trains, in one thread and bounded memory."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from k2d.datasets.read import FrozenDataset, RowGroup
from trainer.data.order import Block, Order

COLUMNS = ("id", "audio.bytes", "text", "segments", "duration_s", "recording_id", "previous_text", "distance")

Fields = dict[str, Any]  # one row's columns


class Loaded:
    """A block's rows, each handed out once: what was taken is forgotten here."""

    def __init__(self, rows: list[Fields | None]) -> None:
        self._rows = rows

    def take(self, row: int) -> Fields:
        """One row, counted through the block's groups."""
        fields = self._rows[row]
        if fields is None:
            raise LookupError(f"row {row} of the block was taken before")
        self._rows[row] = None
        return fields


class Reader:
    """Blocks of the lanes that are asked for; of each lane this block and, from its middle on, the next."""

    def __init__(self, dataset: FrozenDataset, groups: list[RowGroup], order: Order) -> None:
        self._dataset = dataset
        self._groups = groups
        self._order = order
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._lanes: dict[int, dict[tuple[int, int], Future[Loaded]]] = {}

    def block(self, block: Block, index: int) -> Future[Loaded]:
        """A block that is there or being read; `index` says how far in it the caller is.

        A lane's earlier blocks are forgotten: what was taken of them lives as long as its taker needs it.
        """
        coming = [block] if index < len(block.shuffled) // 2 else [block, self._order.after(block)]
        known = self._lanes.get(block.lane, {})
        self._lanes[block.lane] = {
            one.key: known.get(one.key) or self._thread.submit(self._load, one) for one in coming
        }
        return self._lanes[block.lane][block.key]

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _load(self, block: Block) -> Loaded:
        rows: list[Fields | None] = []
        for group in block.groups:
            rows += self._dataset.read(self._groups[group], COLUMNS)
        return Loaded(rows)

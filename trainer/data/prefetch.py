"""Reads the blocks of a dataset's order shortly before they are needed, in one thread and bounded memory."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from k2d.datasets.read import FrozenDataset, RowGroup
from trainer.data.order import Block, Order

COLUMNS: Final = ("id", "audio.bytes", "text", "segments", "duration_s", "recording_id", "previous_text", "distance")

Fields = dict[str, Any]  # one row's columns


class BlockRows:
    """The rows of a block. Each is handed out once and then dropped here, so that its memory can be freed."""

    def __init__(self, rows: list[Fields | None]) -> None:
        self._rows = rows

    def take(self, row: int) -> Fields:
        """One row, counted through the block's groups.

        Raises:
            LookupError: it was taken before.
        """
        fields = self._rows[row]
        if fields is None:
            raise LookupError(f"row {row} of the block was taken before")
        self._rows[row] = None
        return fields


class BlockReader:
    """Reads blocks in a thread. Of each lane it keeps the current block and, from its middle on, the next one."""

    def __init__(self, dataset: FrozenDataset, groups: list[RowGroup], order: Order) -> None:
        self._dataset = dataset
        self._groups = groups
        self._order = order
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._lanes: dict[int, dict[tuple[int, int], Future[BlockRows]]] = {}

    def block(self, block: Block, index: int) -> Future[BlockRows]:
        """The rows of a block, read or being read; `index` says how far in it the caller is.

        The lane's earlier blocks are dropped here; rows that were taken of them live as long as the caller holds them.
        """
        wanted = [block] if index < len(block.shuffled) // 2 else [block, self._order.after(block)]
        reading = self._lanes.get(block.lane, {})
        self._lanes[block.lane] = {
            each.key: reading.get(each.key) or self._thread.submit(self._read, each) for each in wanted
        }
        return self._lanes[block.lane][block.key]

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _read(self, block: Block) -> BlockRows:
        rows: list[Fields | None] = []
        for group in block.groups:
            rows += self._dataset.read(self._groups[group], COLUMNS)
        return BlockRows(rows)

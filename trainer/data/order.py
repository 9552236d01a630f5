"""The order of training rows, a pure function of step and position: a checkpoint's only data state is its step number.

Row groups are visited in epochs, each a new permutation. `lanes` streams share the groups out between them, so that a
batch holds rows of many recordings and ranks read different files; inside a lane, the rows of a few groups at a time
(a block) are shuffled. Nothing here knows how many processes or threads there are.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trainer.data.draws import generator

Numbers = npt.NDArray[np.int64]

GROUPS_A_LANE = 4  # fewer groups than this for each lane, and there are fewer lanes
KEPT = 4  # plans and blocks remembered for each lane: this one, the next, and room for those who ask back


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is: in which row group, in which of its rows, and the how-manieth visit of the group this is."""

    visit: int
    group: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Row groups of one lane whose rows are shuffled together; N rows. All belong to one visit."""

    lane: int
    visit: int
    number: int  # among the lane's blocks of this visit
    groups: tuple[int, ...]
    ends: Numbers  # (groups,): rows up to and with each group
    shuffled: Numbers  # (N,): which row, counted through the groups, comes when

    @property
    def key(self) -> tuple[int, int]:
        """Which block of its lane."""
        return self.visit, self.number

    def place(self, index: int) -> Place:
        """Where the row that comes at `index` is."""
        row = int(self.shuffled[index])
        group = int(np.searchsorted(self.ends, row, side="right"))
        return Place(self.visit, self.groups[group], row - (int(self.ends[group - 1]) if group else 0))


class Order:
    """The endless order of rows of a dataset whose row groups have `group_rows` rows."""

    def __init__(self, group_rows: Sequence[int], *, seed: int, batch: int, lanes: int, shuffle_groups: int) -> None:
        self._rows = np.asarray(group_rows, dtype=np.int64)
        if not len(self._rows) or self._rows.min() < 1:
            raise ValueError("want at least one row group, and none of them empty")
        self._seed = seed
        self._shuffle_groups = shuffle_groups
        most = min(lanes, max(1, len(self._rows) // GROUPS_A_LANE))
        self.lanes = max(n for n in range(1, most + 1) if batch % n == 0)
        self._share = batch // self.lanes  # rows a lane gives to each batch
        self._before = [np.zeros(self.lanes, dtype=np.int64)]  # of each epoch: rows of each lane before it
        self._permutation = lru_cache(maxsize=KEPT)(self._permute)
        self._plan = lru_cache(maxsize=KEPT * self.lanes)(self._make_plan)
        self._block = lru_cache(maxsize=KEPT * self.lanes)(self._make_block)

    def place(self, step: int, position: int) -> Place:
        """Where the row at this position of this step's batch is."""
        block, index = self.find(step, position)
        return block.place(index)

    def find(self, step: int, position: int) -> tuple[Block, int]:
        """The same as a block and an index in it, for who reads whole blocks."""
        lane, within = divmod(position, self._share)
        offset = step * self._share + within  # rows of the lane before this one
        while self._before[-1][lane] <= offset:
            self._extend()
        visit = bisect_right(self._before, offset, key=lambda before: int(before[lane])) - 1
        offset -= int(self._before[visit][lane])
        _, ends = self._plan(lane, visit)
        number = int(np.searchsorted(ends, offset, side="right"))
        return self._block(lane, visit, number), offset - (int(ends[number - 1]) if number else 0)

    def after(self, block: Block) -> Block:
        """The lane's next block."""
        if block.number + 1 < len(self._plan(block.lane, block.visit)[1]):
            return self._block(block.lane, block.visit, block.number + 1)
        return self._block(block.lane, block.visit + 1, 0)

    def _permute(self, visit: int) -> Numbers:
        return generator("groups", self._seed, visit).permutation(len(self._rows))

    def _extend(self) -> None:
        """Count the rows that each lane gets in one more epoch."""
        visit = len(self._before) - 1
        rows = self._rows[self._permutation(visit)]
        counted = [rows[self._first(lane, visit) :: self.lanes].sum() for lane in range(self.lanes)]
        self._before.append(self._before[-1] + np.array(counted))

    def _first(self, lane: int, visit: int) -> int:
        """The lane's first place in an epoch's permutation; the sequence of groups runs on through the epochs."""
        return (lane - visit * len(self._rows)) % self.lanes

    def _make_plan(self, lane: int, visit: int) -> tuple[Numbers, Numbers]:
        """The lane's groups in this epoch, and how many rows end with each of its blocks.

        Blocks end with the epoch: no group meets itself in one, and with one lane every epoch has each row once.
        """
        groups = self._permutation(visit)[self._first(lane, visit) :: self.lanes]
        starts = np.arange(0, len(groups), self._shuffle_groups)
        return groups, np.cumsum(np.add.reduceat(self._rows[groups], starts))

    def _make_block(self, lane: int, visit: int, number: int) -> Block:
        start = number * self._shuffle_groups
        groups = self._plan(lane, visit)[0][start : start + self._shuffle_groups]
        ends = np.cumsum(self._rows[groups])
        shuffled = generator("rows", self._seed, lane, visit, number).permutation(int(ends[-1]))
        return Block(lane, visit, number, tuple(groups.tolist()), ends, shuffled)

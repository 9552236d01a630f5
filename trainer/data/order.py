"""The order of training rows: a pure function of step and position, so a checkpoint needs only the step's number.

Row groups are visited in epochs, each in a new permutation. They are dealt out to `lanes` streams, so that a batch has
rows of many recordings and processes read different files. Within a lane the rows of a few groups (a block) are
shuffled. The order does not depend on the number of processes or threads.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from trainer.data.draws import generator

Integers = npt.NDArray[np.int64]

# A lane needs a few groups to shuffle; a small dataset gets fewer lanes. 4 is the default of `shuffle_groups`
GROUPS_PER_LANE: Final = 4
# Plans and blocks remembered for each lane: the current one, the next, and two for callers that go back
REMEMBERED: Final = 4


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row is: its row group, its number in that group, and which visit of the group this is (from 0)."""

    visit: int
    group: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Row groups of one lane whose rows are shuffled together: G groups of N rows in all, of one visit."""

    lane: int
    visit: int
    number: int  # among the lane's blocks of this visit
    groups: tuple[int, ...]  # G of them
    ends: Integers  # (G,): rows up to and including each group
    shuffled: Integers  # (N,): the rows, counted through the groups, in the order in which they come

    @property
    def key(self) -> tuple[int, int]:
        """Which block of its lane this is."""
        return self.visit, self.number

    def place(self, index: int) -> RowPlace:
        """Where the row is that comes at `index` of the block."""
        row = int(self.shuffled[index])
        group = int(np.searchsorted(self.ends, row, side="right"))
        return RowPlace(self.visit, self.groups[group], row - (int(self.ends[group - 1]) if group else 0))


class Order:
    """The endless order of rows of a dataset whose row groups have `group_rows` rows.

    order = Order([64, 64, 12], seed=0, batch=8, lanes=2, shuffle_groups=4)
    order.place(step=100, position=3)  # RowPlace(visit=…, group=…, row=…)
    """

    def __init__(self, group_rows: Sequence[int], *, seed: int, batch: int, lanes: int, shuffle_groups: int) -> None:
        self._rows = np.asarray(group_rows, dtype=np.int64)  # (groups,)
        if not len(self._rows) or self._rows.min() < 1:
            raise ValueError("want at least one row group, and none of them empty")
        self._seed = seed
        self._shuffle_groups = shuffle_groups
        most = min(lanes, max(1, len(self._rows) // GROUPS_PER_LANE))
        self.lanes = max(n for n in range(1, most + 1) if batch % n == 0)  # every lane fills an equal share of a batch
        self._share = batch // self.lanes  # rows a lane gives to each batch
        self._before = [np.zeros(self.lanes, dtype=np.int64)]  # per epoch: rows (lanes,) of each lane before it
        self._permutation = lru_cache(maxsize=REMEMBERED)(self._permute)
        self._plan = lru_cache(maxsize=REMEMBERED * self.lanes)(self._make_plan)
        self._block = lru_cache(maxsize=REMEMBERED * self.lanes)(self._make_block)

    def place(self, step: int, position: int) -> RowPlace:
        """Where the row is that stands at this position of this step's batch."""
        block, index = self.find(step, position)
        return block.place(index)

    def find(self, step: int, position: int) -> tuple[Block, int]:
        """The same as a block and an index in it, for callers that read whole blocks."""
        lane, within = divmod(position, self._share)
        offset = step * self._share + within  # rows of the lane before this one
        while self._before[-1][lane] <= offset:
            self._add_epoch()
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

    def _permute(self, visit: int) -> Integers:
        return generator("groups", self._seed, visit).permutation(len(self._rows))

    def _add_epoch(self) -> None:
        """Count the rows that each lane gets in one more epoch."""
        visit = len(self._before) - 1
        rows = self._rows[self._permutation(visit)]
        per_lane = [rows[self._first(lane, visit) :: self.lanes].sum() for lane in range(self.lanes)]
        self._before.append(self._before[-1] + np.array(per_lane))

    def _first(self, lane: int, visit: int) -> int:
        """The lane's first place in an epoch's permutation; dealing out goes on from one epoch to the next."""
        return (lane - visit * len(self._rows)) % self.lanes

    def _make_plan(self, lane: int, visit: int) -> tuple[Integers, Integers]:
        """The lane's groups in this epoch, and how many rows there are up to the end of each of its blocks.

        Blocks end with the epoch: no block has a group twice, and with one lane every epoch has each row once.
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

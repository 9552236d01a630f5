"""Counts the rows that are skipped, and stops a run that cannot learn."""

from collections import Counter
from typing import Final

import structlog

from k2d.wording import counted
from trainer.data.order import RowPlace
from trainer.data.prepare import SkippedRow
from trainer.data.targets import SkipReason
from trainer.errors import NoTrainingData

MAX_BROKEN: Final = 0.05  # of the rows of one visit: one row in twenty broken is no accident
ENOUGH: Final = 200  # rows before that is judged: 10 broken ones
# In two visits every row of a dataset has come at least once, wherever counting began, so nothing can be learned when
# none of them was usable. Of a large dataset 10,000 rows in a row say enough.
VISITS_WITHOUT_ROW: Final = 2
ROWS_WITHOUT_USE: Final = 10_000

log = structlog.get_logger()


class SkipCounter:
    """Counts the rows that one process used and skipped, by visit: in one visit each row comes once."""

    def __init__(self, dataset: str, *, rows: int) -> None:
        self.skipped: Counter[str] = Counter()  # reason → rows; without those held out for validation
        self._dataset = dataset
        self._seen: Counter[int] = Counter()  # visit → rows
        self._broken: Counter[int] = Counter()  # visit → rows
        self._logged_visit: int | None = None
        self._since_used = 0
        self._most_since_used = min(VISITS_WITHOUT_ROW * rows, ROWS_WITHOUT_USE)

    def count_used(self, place: RowPlace) -> None:
        """Count a row that goes into a batch."""
        self._since_used = 0
        self._seen[place.visit] += 1

    def count_skipped(self, skipped: SkippedRow, place: RowPlace, *, shard: int) -> None:
        """Count a row that is skipped; a broken one is logged.

        Raises:
            NoTrainingData: too many rows are broken, or none can be used.
        """
        self._since_used += 1
        if skipped.reason is not SkipReason.HELD_OUT:
            self.skipped[skipped.reason.value] += 1
            self._seen[place.visit] += 1
        if skipped.reason.is_broken:
            self._broken[place.visit] += 1
            self._log(skipped, place, shard=shard)
        seen, broken = self._seen[place.visit], self._broken[place.visit]
        if seen >= ENOUGH and broken > MAX_BROKEN * seen:
            raise self._error(
                f"{broken} of {counted(seen, 'row')} of dataset {self._dataset!r} are broken", seen=seen, bad=broken
            )
        if self._since_used >= self._most_since_used:
            raise self._error(f"none of {counted(self._since_used, 'row')} of dataset {self._dataset!r} can be used")

    def _log(self, skipped: SkippedRow, place: RowPlace, *, shard: int) -> None:
        """Name a broken row in the first visit only; later visits meet the same ones."""
        if self._logged_visit is None:
            self._logged_visit = place.visit
        if place.visit <= self._logged_visit:
            log.warning("row skipped", row=skipped.id, shard=shard, why=skipped.reason.value, detail=skipped.detail)

    def _error(self, message: str, **details: int) -> NoTrainingData:
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in self.skipped.most_common())
        return NoTrainingData(
            f"{message} ({reasons or 'all are held out'})",
            hint="look at the dataset's texts (`k2d export`) and freeze it again, or change max_tokens or holdout, "
            "as the reasons say",
            dataset=self._dataset,
            **details,
        )

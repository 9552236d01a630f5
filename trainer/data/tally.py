"""Counts what is left out, and says when that is too much."""

from collections import Counter

import structlog

from trainer.data.order import Place
from trainer.data.prepare import Skipped
from trainer.data.targets import Skip
from trainer.errors import NoTrainingData

MOST_BAD = 0.05  # of the rows of one visit; one row in twenty broken is no accident any more
ENOUGH = 200  # rows before that is judged: 10 broken ones
BARREN = 1_000  # rows in a row, at least the whole dataset, of which none can be used …
BARREN_AT_MOST = 10_000  # … but this many say enough of a large one

log = structlog.get_logger()


class Tally:
    """Rows that one process saw. Each row is seen once a visit, so a visit's counts are of different rows."""

    def __init__(self, dataset: str, *, rows: int) -> None:
        self.skipped: Counter[str] = Counter()  # reason → rows
        self._dataset = dataset
        self._seen: Counter[int] = Counter()  # visit → rows
        self._bad: Counter[int] = Counter()
        self._logged_visit: int | None = None
        self._barren = 0
        self._most_barren = min(max(rows, BARREN), BARREN_AT_MOST)

    def used(self, place: Place) -> None:
        """A row goes into a batch."""
        self._barren = 0
        self._seen[place.visit] += 1

    def left_out(self, skipped: Skipped, place: Place, *, shard: int) -> None:
        """A row does not.

        Raises:
            NoTrainingData: too many are broken, or nothing is left.
        """
        self._barren += 1
        if skipped.why is not Skip.HELD_OUT:
            self.skipped[skipped.why.value] += 1
            self._seen[place.visit] += 1
        if skipped.why.bad:
            self._bad[place.visit] += 1
            self._log(skipped, place, shard=shard)
        seen, bad = self._seen[place.visit], self._bad[place.visit]
        if seen >= ENOUGH and bad > MOST_BAD * seen:
            raise self._error(f"{bad} of {seen} rows of dataset {self._dataset!r} are broken", seen=seen, bad=bad)
        if self._barren >= self._most_barren:
            raise self._error(f"none of {self._barren} rows of dataset {self._dataset!r} can be used")

    def _log(self, skipped: Skipped, place: Place, *, shard: int) -> None:
        """Name a broken row the first time round; later visits find the same ones."""
        if self._logged_visit is None:
            self._logged_visit = place.visit
        if place.visit <= self._logged_visit:
            log.warning("row left out", row=skipped.id, shard=shard, why=skipped.why.value, detail=skipped.detail)

    def _error(self, message: str, **details: int) -> NoTrainingData:
        why = ", ".join(f"{reason}: {rows}" for reason, rows in self.skipped.most_common()) or "all are held out"
        return NoTrainingData(
            f"{message} ({why})",
            hint="freeze the dataset again, or change max_tokens or holdout, whichever the reasons point at",
            dataset=self._dataset,
            **details,
        )

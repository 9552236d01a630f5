"""Counting skipped rows: broken ones end a run when they are many, and so does a dataset that has no usable row."""

import pytest

from trainer.data.order import RowPlace
from trainer.data.prepare import SkippedRow
from trainer.data.skips import ENOUGH, ROWS_WITHOUT_USE, SkipCounter
from trainer.data.targets import SkipReason
from trainer.errors import NoTrainingData

LONG = SkippedRow("row", SkipReason.TOO_MANY_TOKENS)
HELD_OUT = SkippedRow("row", SkipReason.HELD_OUT)
BROKEN = SkippedRow("row", SkipReason.DAMAGED)


def skip(counter: SkipCounter, row: SkippedRow, times: int, *, visit: int = 0) -> None:
    for number in range(times):
        counter.count_skipped(row, RowPlace(visit, 0, number), shard=0)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_small_dataset_is_seen_twice_before_it_is_given_up(rows: int) -> None:
    counter = SkipCounter("talks", rows=rows)
    skip(counter, LONG, 2 * rows - 1)
    with pytest.raises(
        NoTrainingData, match=rf"none of {2 * rows} rows .* \(more tokens than max_tokens: {2 * rows}\)"
    ):
        skip(counter, LONG, 1)


def test_one_usable_row_is_enough() -> None:
    """In one visit it may come first and in the next one last: all other rows stand between."""
    counter = SkipCounter("talks", rows=10)
    for visit in range(0, 6, 2):
        counter.count_used(RowPlace(visit, 0, 0))
        skip(counter, LONG, 9, visit=visit)
        skip(counter, LONG, 9, visit=visit + 1)
        counter.count_used(RowPlace(visit + 1, 0, 0))


def test_of_a_large_dataset_ten_thousand_rows_are_enough() -> None:
    counter = SkipCounter("talks", rows=10**9)
    skip(counter, HELD_OUT, ROWS_WITHOUT_USE - 1)
    with pytest.raises(NoTrainingData, match="all are held out"):
        skip(counter, HELD_OUT, 1)
    assert not counter.skipped


def test_one_row_in_twenty_may_be_broken_of_one_visit() -> None:
    counter = SkipCounter("talks", rows=10**6)
    for number in range(ENOUGH):
        counter.count_used(RowPlace(0, 0, number))
    skip(counter, BROKEN, 10)
    with pytest.raises(NoTrainingData, match=r"11 of 211 rows .* are broken \(damaged audio: 11\)") as caught:
        skip(counter, BROKEN, 1)
    assert caught.value.details == {"dataset": "talks", "seen": 211, "bad": 11}

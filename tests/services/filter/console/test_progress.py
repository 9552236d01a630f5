"""How far a batch is: shares that sum to 100 %, and the audio that is left, for statuses of every kind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.cli.show import ledger_table
from k2d.documents import BatchStatus, ChunkCounts, Jobs, Ledger, LedgerSeconds, RecordingCounts
from k2d.schema import BatchState
from services.filter.console.progress import BAR, ledger_bar, progress_of, rounded_shares, share_of

SECONDS = st.floats(0, 1e7)


def seconds(*values: float) -> LedgerSeconds:
    accepted, salvaged, rejected, quarantined, silence = values
    return LedgerSeconds(
        input=sum(values), accepted=accepted, salvaged=salvaged, rejected=rejected, quarantined=quarantined,
        silence=silence,
    )  # fmt: skip


def status(*, done: int, total: int, input_s: float, **jobs: Any) -> BatchStatus:
    counts = RecordingCounts(total=total, labeled=done, quarantined=0, pending=total - done)
    ledger = Ledger(
        batch="b_1", name="b", policy="evidence", seconds=seconds(input_s, 0, 0, 0, 0),
        chunks=ChunkCounts(accepted=0, salvaged=0, rejected=0), recordings=counts, wall_s=0.0,
    )  # fmt: skip
    known = {"jobs_queued": 0, "jobs_running": 1, "jobs_failed": 0, "seconds_in_flight": 0.0}
    return BatchStatus(
        id="b_1", name="b", created_at="", recordings=total, teacher="", validator="", language="",
        state=BatchState.DONE if done == total else BatchState.RUNNING, ledger=ledger, jobs=Jobs(**known | jobs),
        quarantined=[], quarantined_total=0,
    )  # fmt: skip


@given(values=st.tuples(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS), pending=st.none() | SECONDS)
def test_the_bar_always_sums_to_100_per_cent(values: tuple[float, ...], pending: float | None) -> None:
    parts = ledger_bar(seconds(*values), pending)
    assert sum(part.tenths for part in parts) == 1000
    assert sum(part.width for part in parts) == pytest.approx(BAR)
    at = 0.0
    for part in parts:
        assert part.start == pytest.approx(at)
        at += part.width


def test_a_share_of_several_parts_is_the_sum_of_what_is_shown() -> None:
    parts = ledger_bar(seconds(1, 1, 1, 0, 0), 0.0)
    assert [part.share for part in parts[:3]] == ["33.4 %", "33.3 %", "33.3 %"]
    assert share_of(*parts[:2]) == "66.7 %"
    assert share_of(*parts[1:3]) == "66.6 %"  # 66.7 % by itself


def test_what_no_chunk_covers_has_the_word_that_the_command_has_for_it() -> None:
    parts = ledger_bar(seconds(1, 0, 0, 0, 3), 0.0)
    assert (
        [part.name for part in parts if part.tenths == 750]
        == ["no label"]
        == [
            cell
            for cell in ledger_table(status(done=1, total=1, input_s=1.0).ledger).columns[0].cells
            if "label" in str(cell)
        ]
    )


def test_largest_remainders_get_the_rest() -> None:
    assert rounded_shares([1, 1, 1], 100) == [34, 33, 33]
    assert rounded_shares([0, 2, 1], 1000) == [0, 667, 333]


def test_a_batch_of_which_nothing_is_known_is_pending() -> None:
    progress = progress_of(status(done=0, total=3, input_s=0.0))
    assert (progress.total_s, progress.real_time) == (None, None)
    assert [(part.name, part.share) for part in progress.bar if part.tenths] == [("pending", "100.0 %")]


def test_lengths_of_headers_count_before_averages() -> None:
    assert progress_of(status(done=1, total=3, input_s=60.0)).total_s == 180.0
    assert progress_of(status(done=1, total=3, input_s=60.0, audio_s=400.0)).total_s == 400.0
    assert progress_of(status(done=3, total=3, input_s=60.0, audio_s=400.0)).total_s == 60.0

"""Groups: one recording's fault is not its neighbours'."""

import asyncio

import pytest

from k2d.documents import BatchOptions
from k2d.errors import StoreError
from k2d.labeling.group import AttemptsInMemory, RecordingGroup, RecordingsFailed
from k2d.labeling.request import make_batch
from k2d.schema import Outcome, QuarantineReason, RecordingResult, Source
from k2d.settings import Settings


class FaultyLabeler:
    """Fails as it is told to; notes how many recordings were in flight beside each."""

    def __init__(self, n: int, faults: dict[int, BaseException] | None = None) -> None:
        sources = [Source(f"{i}.wav", f"lake://uploads/{i}", str(i)) for i in range(n)]
        self.batch = make_batch(sources, BatchOptions(), Settings(_env_file=None))
        self.faults = faults or {}
        self.in_flight: set[int] = set()
        self.company: dict[int, int] = {}

    def known_duration_s(self, source: Source) -> float:
        return 7.5

    async def run(self, position: int) -> RecordingResult:
        self.in_flight.add(position)
        await asyncio.sleep(0.01)
        self.company[position] = len(self.in_flight)
        try:
            if position in self.faults:
                raise self.faults[position]
            return RecordingResult(position, f"{position}.wav", Outcome.LABELED, 1.0)
        finally:
            self.in_flight.discard(position)


def run(labeler, attempts, positions, **options):
    results = []
    group = RecordingGroup(labeler=labeler, attempts=attempts, on_result=results.append, concurrency=4, **options)
    try:
        asyncio.run(group.run(positions))
    finally:
        run.results = {result.position: result for result in results}
    return run.results


def test_many_in_flight_up_to_the_limit():
    labeler = FaultyLabeler(12)
    assert set(run(labeler, AttemptsInMemory(), range(12))) == set(range(12))
    assert 1 < max(labeler.company.values()) <= 4


def test_an_unexpected_error_leaves_the_others_done_and_is_retried_alone_then_set_aside():
    labeler, attempts = FaultyLabeler(6, {2: ValueError("odd")}), AttemptsInMemory()
    for _ in range(3):
        with pytest.raises(RecordingsFailed, match="ValueError: odd"):
            run(labeler, attempts, range(6))
        assert set(run.results) == {0, 1, 3, 4, 5}
    assert labeler.company[2] == 1
    result = run(labeler, attempts, [2])[2]
    assert (result.outcome, result.reason) == (Outcome.QUARANTINED, QuarantineReason.FAILED)
    assert "2.wav: ValueError: odd" in result.detail
    assert result.duration_s == 7.5


def test_what_took_a_worker_down_is_tried_alone_then_set_aside():
    labeler, attempts = FaultyLabeler(4), AttemptsInMemory()
    attempts.begin(1)  # a worker died with 1 and 3 in hand
    attempts.begin(3)
    run(labeler, attempts, range(4))
    assert labeler.company[1] == labeler.company[3] == 1
    for _ in range(3):
        attempts.begin(0)
    result = run(labeler, attempts, [0])[0]
    assert result.reason == QuarantineReason.CRASHES_WORKER
    assert f"`k2d retry {labeler.batch.name}` tries it again" in result.detail  # a person killed it, perhaps


def test_a_fault_of_the_store_stops_the_group_and_blames_no_recording():
    labeler, attempts = FaultyLabeler(8, {0: StoreError("disk full")}), AttemptsInMemory()
    with pytest.raises(StoreError, match="disk full"):
        run(labeler, attempts, range(8))
    assert attempts.starts == {}


def test_stop_begins_nothing_new():
    labeler = FaultyLabeler(8)
    done = run(labeler, AttemptsInMemory(), range(8), should_stop=lambda: len(labeler.company) >= 2)
    assert len(done) < 8

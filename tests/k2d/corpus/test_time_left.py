"""The audio and the time that are left of a batch: never nothing while a recording is unfinished."""

from pathlib import Path

import pytest
from factories import finished_batch
from hypothesis import given
from hypothesis import strategies as st

from k2d.corpus import views
from k2d.corpus.time_left import LEAST_S, SPEED_S, RunSpeed, pending_audio_s, time_left_s
from k2d.documents import Jobs
from k2d.store import Lake

SECONDS = st.floats(0, 1e7)


def test_headers_count_before_averages() -> None:
    assert pending_audio_s(finished=1, pending=2, finished_s=60.0, audio_s=None) == 120.0
    assert pending_audio_s(finished=1, pending=2, finished_s=60.0, audio_s=400.0) == 340.0
    assert pending_audio_s(finished=1, pending=2, finished_s=60.0, audio_s=50.0) == 120.0  # headers that are wrong
    assert pending_audio_s(finished=3, pending=0, finished_s=60.0, audio_s=400.0) == 0.0
    assert pending_audio_s(finished=0, pending=3, finished_s=0.0, audio_s=None) is None
    assert pending_audio_s(finished=1, pending=3, finished_s=0.0, audio_s=None) is None  # only one that is broken


def test_the_speed_is_of_the_latest_work_and_of_nothing_else() -> None:
    speed = RunSpeed()
    for now in (0.0, 90.0):  # models are loaded, and what was there already goes by
        speed.measure(now, 0.0)
    assert speed.times_real_time is None
    speed.measure(90.2, 1.0)
    assert speed.times_real_time == pytest.approx(5.0)
    speed.measure(100.0, 40.0)
    assert speed.times_real_time == pytest.approx(4.0)
    for second in range(1, 2000):
        speed.measure(100.0 + second, 40.0 + 2 * second)
    assert speed.times_real_time == pytest.approx(2.0)
    assert len(speed._measured) <= SPEED_S + 2


def test_what_is_labeled_counts_half_until_it_is_validated() -> None:
    # 240 s of 300 s are unfinished, of which 80 s are labeled
    left_s = time_left_s(audio_s=300.0, labeled_s=140.0, validated_s=60.0, times_real_time=4.0)
    assert left_s == pytest.approx((240.0 - 40.0) / 4.0)
    assert time_left_s(audio_s=300.0, labeled_s=140.0, validated_s=60.0, times_real_time=None) is None
    assert time_left_s(audio_s=None, labeled_s=140.0, validated_s=60.0, times_real_time=4.0) is None


@given(audio_s=SECONDS, labeled_s=SECONDS, validated_s=SECONDS, speed=st.floats(0, 1e5))
def test_the_time_left_is_never_nothing(audio_s: float, labeled_s: float, validated_s: float, speed: float) -> None:
    left_s = time_left_s(audio_s=audio_s, labeled_s=labeled_s, validated_s=validated_s, times_real_time=speed)
    assert left_s is None or left_s >= LEAST_S


def test_a_batch_whose_last_recordings_are_validated_has_time_left(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    batch = finished_batch(lake, recordings=3)
    done_s = views.ledger(lake, batch).seconds.input
    lake.batches.delete_result(batch.id, 2)
    jobs = Jobs(jobs_queued=0, jobs_running=1, jobs_failed=0, seconds_in_flight=done_s, times_real_time=1000.0)
    assert views.status(lake, batch, jobs=jobs).eta_s == LEAST_S
    no_worker = jobs.model_copy(update={"jobs_running": 0, "jobs_queued": 1})
    assert views.status(lake, batch, jobs=no_worker).eta_s is None

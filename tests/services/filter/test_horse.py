"""The work horse: jobs share one, what happens to it costs at most the job in hand, and when it is replaced."""

import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from places import EXAMPLES
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from weights import base

from k2d.documents import BatchOptions
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState
from k2d.settings import RETRY_S, Settings
from services.filter import jobs
from services.filter.horse import HorseLimits, resident_mb
from services.filter.queue import CORPUS, JobRequest, WorkQueue
from services.filter.worker import Worker, WorkerIntervals
from services.local.redis_server import free_port
from services.local.stack import Stack

pytestmark = pytest.mark.integration

QUICK = WorkerIntervals(heartbeat_s=1, grace_s=2, maintenance_s=1, idle_ttl_s=16)


@pytest.fixture
def queue(redis_url: str) -> WorkQueue:
    queue = WorkQueue(Settings(redis_url=redis_url, _env_file=None))
    queue.redis.flushall()
    return queue


class Corpus:
    """Jobs whose work is given here instead of a corpus, and the notes that they leave."""

    def __init__(self, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue, self._monkeypatch = queue, monkeypatch

    def work(
        self,
        *steps: Callable[[], Any],
        limits: HorseLimits | None = None,
        worker: type[Worker] = Worker,
        timeout_s: int | None = None,
    ) -> None:
        """Run a job for each step, in their order, by a worker in this process, which ends then."""

        def index_part(batch: str, number: int) -> None:
            self.queue.redis.rpush("pids", os.getpid())
            self.queue.redis.rpush("notes", repr(steps[number]()))

        self._monkeypatch.setattr(jobs, "index_part", index_part)
        requests = [JobRequest("index_part", ["b", number], slot=f"{number}") for number in range(len(steps))]
        self.queue.enqueue_many(CORPUS, requests)
        if timeout_s is not None:
            for number in range(len(steps)):
                job = self.job(number)
                job.timeout = timeout_s
                job.save()
        worker(self.queue.redis, QUICK, horse_limits=limits or HorseLimits()).work(burst=True, logging_level="WARNING")

    def job(self, number: int) -> Job:
        job_id = self.queue.redis.get(f"k2d:slot:{number}").decode()
        return Job.fetch(job_id, connection=self.queue.redis, serializer=JSONSerializer)

    @property
    def pids(self) -> list[int]:
        """Of the process that began each job."""
        return [int(pid) for pid in self.queue.redis.lrange("pids", 0, -1)]

    @property
    def horses(self) -> list[int]:
        """Of each job, which horse that was: 0 for the first."""
        order = list(dict.fromkeys(self.pids))
        return [order.index(pid) for pid in self.pids]

    @property
    def notes(self) -> list[str]:
        """What the steps returned."""
        return [note.decode() for note in self.queue.redis.lrange("notes", 0, -1)]

    def has_failed_once(self, number: int) -> bool:
        """Whether a job waits for its second attempt; else it succeeded at the first one."""
        job = self.job(number)
        status, left = job.get_status(), job.retries_left
        if (status, left) == (JobStatus.FINISHED, len(RETRY_S)):
            return False
        assert (status, left) == (JobStatus.SCHEDULED, len(RETRY_S) - 1)
        return True


@pytest.fixture
def corpus(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    return Corpus(queue, monkeypatch)


def nothing() -> None:
    """A job that succeeds."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ZeroDivisionError("a bug")


def test_jobs_share_a_horse_which_ends_with_the_worker(corpus: Corpus) -> None:
    corpus.work(nothing, nothing, nothing)
    assert corpus.horses == [0, 0, 0]
    assert corpus.pids[0] != os.getpid()
    assert not psutil.pid_exists(corpus.pids[0])
    assert [corpus.has_failed_once(number) for number in range(3)] == [False] * 3
    assert corpus.queue.started(CORPUS) == 0


def test_a_killed_horse_costs_the_job_in_hand_one_attempt(corpus: Corpus) -> None:
    corpus.work(nothing, die, nothing, nothing)
    assert corpus.horses == [0, 0, 1, 1]
    assert [corpus.has_failed_once(number) for number in range(4)] == [False, True, False, False]


def test_a_job_that_raised_ends_the_horse(corpus: Corpus) -> None:
    corpus.work(nothing, fail, nothing)
    assert corpus.horses == [0, 0, 1]
    assert [corpus.has_failed_once(number) for number in range(3)] == [False, True, False]


def test_a_horse_does_a_number_of_jobs(corpus: Corpus) -> None:
    corpus.work(*[nothing] * 5, limits=HorseLimits(jobs=2))
    assert corpus.horses == [0, 0, 1, 1, 2]
    assert not any(corpus.has_failed_once(number) for number in range(5))


def test_a_horse_that_has_grown_ends(corpus: Corpus) -> None:
    held: list[mmap.mmap] = []

    def grow() -> None:
        before = resident_mb()
        held.append(mmap.mmap(-1, 200 * 2**20))  # not of the memory that earlier tests freed and malloc keeps
        held[0].write(b"x" * len(held[0]))
        assert resident_mb() - before > 150

    corpus.work(nothing, grow, nothing, limits=HorseLimits(grown_mb=100))
    assert corpus.horses == [0, 0, 1]
    assert not any(corpus.has_failed_once(number) for number in range(3))


def test_memory_of_models_is_no_growth(corpus: Corpus) -> None:
    class Weights:
        """A model of 200 MB."""

        def __init__(self) -> None:
            self.content = b"x" * 200 * 2**20

        def close(self) -> None:
            self.content = b""

    def load() -> int:
        job = jobs.get_current_job()
        models = job.models  # type: ignore[union-attr]
        models.give_back(models.open("a", key=(), load=Weights))
        return models.loads

    corpus.work(nothing, load, load, nothing, limits=HorseLimits(grown_mb=100))
    assert corpus.horses == [0, 0, 0, 0]
    assert corpus.notes == ["None", "1", "1", "None"]


def test_a_horse_that_died_between_jobs_costs_nothing(corpus: Corpus) -> None:
    class Shot(Worker):
        def execute_job(self, job: Job, queue: Queue) -> None:
            if self._horse is not None:
                os.kill(self._horse.pid, signal.SIGKILL)
                os.waitid(os.P_PID, self._horse.pid, os.WEXITED | os.WNOWAIT)
            super().execute_job(job, queue)

    corpus.work(nothing, nothing, worker=Shot)
    assert corpus.horses == [0, 1]
    assert not any(corpus.has_failed_once(number) for number in range(2))


def test_a_horse_without_a_job_for_long_ends(corpus: Corpus) -> None:
    class Patient(Worker):
        def execute_job(self, job: Job, queue: Queue) -> None:
            self.run_maintenance_tasks()  # as an idle worker does
            super().execute_job(job, queue)

    corpus.work(nothing, nothing, worker=Patient)
    corpus.work(nothing, nothing, worker=Patient, limits=HorseLimits(idle_s=-1))
    assert corpus.horses == [0, 0, 1, 2]


def test_a_job_that_takes_too_long_is_stopped_and_ends_the_horse(corpus: Corpus) -> None:
    corpus.work(nothing, lambda: time.sleep(600), nothing, timeout_s=2)
    assert corpus.horses == [0, 0, 1]
    assert [corpus.has_failed_once(number) for number in range(3)] == [False, True, False]


def test_a_job_that_cannot_be_stopped_is_killed_with_its_horse(corpus: Corpus) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(600)

    class Hasty(Worker):
        """Its jobs began an hour ago."""

        def fork_work_horse(self, job: Job, queue: Queue) -> None:
            super().fork_work_horse(job, queue)
            self._job_started_at -= 3600

    corpus.work(nothing, block, nothing, timeout_s=30, worker=Hasty)
    assert corpus.horses == [0, 0, 1]
    assert [corpus.has_failed_once(number) for number in range(3)] == [False, True, False]


def test_nothing_of_a_job_is_left_for_the_next(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2D_STORE", "before")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def surroundings() -> tuple[Any, ...]:
        bound = structlog.contextvars.get_contextvars()
        return os.environ["K2D_STORE"], "K2D_TEACHER" in os.environ, os.getcwd(), bound

    def change() -> None:
        os.environ |= {"K2D_STORE": "after", "K2D_TEACHER": "x"}
        os.chdir("elsewhere")
        structlog.contextvars.bind_contextvars(batch="b")
        random.seed(1)

    corpus.work(change, surroundings, lambda: random.random(), change, lambda: random.random())
    assert corpus.horses == [0] * 5
    _, seen, first, _, second = corpus.notes
    assert seen == repr(("before", False, str(tmp_path), {}))
    assert first != second


def test_a_horse_keeps_no_connection_of_a_job(corpus: Corpus) -> None:
    def connect() -> int:
        WorkQueue(corpus.queue.settings).ping()
        return psutil.Process().num_fds()

    corpus.work(*[connect] * 12)
    assert corpus.horses == [0] * 12
    counts = list(map(int, corpus.notes))
    assert max(counts[6:]) <= max(counts[:6])


# ---- real models, and a worker as a process ------------------------------------------------------------------------

PATIENCE_S = 200  # whatever is waited for comes well before


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.1)


def horses(worker: int) -> list[psutil.Process]:
    """The horses of a worker, and the decoders below them. Its scheduler is of its own process group."""
    below = [process for process in psutil.Process(worker).children() if os.getpgid(process.pid) == process.pid]
    return [*below, *(decoder for horse in below for decoder in horse.children(recursive=True))]


def are_gone(processes: list[psutil.Process]) -> bool:
    with suppress(psutil.NoSuchProcess):
        return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)
    return False  # one has just ended; look again


@pytest.mark.timeout(600)
def test_models_are_loaded_once_and_stops_and_kills_reach_a_later_job(tmp_path: Path) -> None:
    base()
    log = tmp_path / "log"
    quick = {"concurrency": 1, "beam_size": 1, "rescore": False}
    settings = Settings(store=str(tmp_path / "lake"), port=free_port(), **quick, _env_file=None)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(QUICK).items()]
    with Stack(settings, log_file=log, worker_options=options) as stack:
        client = stack.client()
        child = next(child for child in stack.children if child.name == "worker-0")

        def is_labeling(more_than: int) -> bool:
            status = client.status("second", DEFAULT)
            labeled = status.ledger.recordings.labeled
            return labeled > more_than and status.jobs is not None and status.jobs.jobs_running == 1

        # a plan and a group of each batch: four jobs in one horse
        client.label([str(EXAMPLES / "cs-reverb.flac")], BatchOptions(name="first"), wait=True)
        assert child.process is not None
        first = horses(child.process.pid)
        client.label([str(path) for path in EXAMPLES.glob("cs-clean-*")], BatchOptions(name="second"))
        wait_for(lambda: is_labeling(more_than=0), "labeling")
        processes = horses(child.process.pid)
        assert processes[0] == first[0]
        assert log.read_text().count("engine ready") == 1

        # SIGTERM: what is in flight is done, the rest of the group is put back, and the horse ends
        child.process.terminate()
        assert child.process.wait(PATIENCE_S) == 0
        wait_for(lambda: are_gone(processes), "the end of the horse")
        status = client.status("second", DEFAULT)
        assert status.jobs is not None
        assert (status.jobs.jobs_queued, status.jobs.jobs_running) == (1, 0)
        assert status.ledger.recordings.pending > 0
        labeled = status.ledger.recordings.labeled

        # kill -9 while the horse works, and while it waits
        child.spawn()
        wait_for(lambda: is_labeling(more_than=labeled), "labeling")
        for is_idle in (False, True):
            if is_idle:
                wait_for(lambda: client.status("second", DEFAULT).state is BatchState.DONE, "the batch")
            processes = horses(child.process.pid)
            assert processes
            child.process.kill()
            child.process.wait()
            wait_for(partial(are_gone, processes), "the end of the horse")
            child.spawn()
    assert "Traceback" not in log.read_text()

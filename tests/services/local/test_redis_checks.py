"""`k2d doctor` and a Redis that is not what jobs need: each is a server that runs with that setting."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs
from typer.testing import CliRunner

from k2d.cli.base import app
from k2d.errors import K2DError, ModelNotFetched, QueueError
from k2d.settings import Settings
from services.commands import doctor
from services.filter.redis_url import check, connect, queue_error, shown
from services.local.redis_server import find_binary, free_port

pytestmark = pytest.mark.integration

PASSWORD = "s3#c/r@t?:%x"
ENCODED = "s3%23c%2Fr%40t%3F%3A%25x"

Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers with settings; returns their ports."""
    processes = []

    def serve(**settings: str) -> int:
        port = free_port()
        folder = tmp_path / str(port)
        folder.mkdir()
        options = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "", "appendonly": "yes"}
        options |= {name.replace("_", "-"): value for name, value in settings.items()}
        lines = [f"{name} {value or chr(34) * 2}" for name, value in options.items()]
        (folder / "conf").write_text("\n".join(lines) + "\n")
        processes.append(subprocess.Popen([find_binary(), folder / "conf"], stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while True:
            try:
                Redis(port=port, retry=None).ping()
                return port
            except RedisError as error:
                if "connect" not in str(error).lower():
                    return port  # it answers, and wants a password
                assert time.monotonic() < deadline
                time.sleep(0.05)

    yield serve
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, dict[str, object]]]:
    """Runs `k2d doctor --json` with an address; returns its findings by check."""
    monkeypatch.chdir(tmp_path)

    def run(url: str) -> dict[str, dict[str, object]]:
        monkeypatch.setenv("K2D_REDIS_URL", url)
        monkeypatch.setattr(doctor, "CHECKS", [entry for entry in doctor.CHECKS if entry[0] == "Redis"])
        result = CliRunner().invoke(app, ["doctor", "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert PASSWORD not in result.output
        assert ENCODED not in result.output
        return {row["check"]: row for row in json.loads(result.stdout) if row["check"].startswith("Redis")}

    return run


def broken(findings: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: row["seen"] for name, row in findings.items() if not row["ok"]}


def test_a_server_as_it_should_be(serve: Serve, run) -> None:
    findings = run(f"redis://127.0.0.1:{serve()}/0")
    assert broken(findings) == {}
    assert len(findings) == 6


def test_one_that_evicts_and_keeps_nothing(serve: Serve, run) -> None:
    port = serve(maxmemory="100mb", maxmemory_policy="allkeys-lru", appendonly="no")
    found = run(f"redis://127.0.0.1:{port}/0")
    assert set(broken(found)) == {"Redis: eviction", "Redis: persistence"}
    assert "allkeys-lru" in str(found["Redis: eviction"]["seen"])
    assert found["Redis: eviction"]["state"] == "broken"
    assert found["Redis: persistence"]["state"] == "absent"


def test_a_replica(serve: Serve, run) -> None:
    primary = serve()
    found = broken(run(f"redis://127.0.0.1:{serve(replicaof=f'127.0.0.1 {primary}')}/0"))
    assert f"replica of 127.0.0.1:{primary}" in str(found["Redis: one server"])
    assert "replica" in str(found["Redis: writable"])


def test_a_cluster(serve: Serve, run) -> None:
    found = broken(run(f"redis://127.0.0.1:{serve(cluster_enabled='yes', cluster_port=str(free_port()))}/0"))
    assert "cluster" in str(found["Redis: one server"])


def test_one_that_is_full(serve: Serve, run) -> None:
    found = broken(run(f"redis://127.0.0.1:{serve(maxmemory='1')}/0"))
    assert "maxmemory" in str(found["Redis: writable"])


def test_a_user_who_may_not_do_all(serve: Serve, run) -> None:
    port = serve()
    rights = {"keys": ["rq:*"], "commands": ["+@all", "-eval"]}
    Redis(port=port).acl_setuser("few", enabled=True, passwords=[f"+{PASSWORD}"], **rights)
    found = run(f"redis://few:{ENCODED}@127.0.0.1:{port}/0")
    seen = str(found["Redis: permissions"]["seen"])
    assert "user few may not: " in seen
    for refused in ("keys like rqh:*", "keys like k2d:*", "EVAL", "SUBSCRIBE"):
        assert refused in seen
    assert "keys like rq:*" not in seen
    assert "HSET" not in seen


def test_the_rights_that_the_advice_names_are_enough(serve: Serve, run) -> None:
    port = serve()
    Redis(port=port).execute_command("ACL", "SETUSER", "few", "on", "nopass", "+@all", "~rq:*")
    advice = str(run(f"redis://few:x@127.0.0.1:{port}/0")["Redis: permissions"]["advice"])
    rights = advice.partition("ACL SETUSER NAME ")[2].split()
    Redis(port=port).execute_command("ACL", "SETUSER", "jobs", "on", "nopass", *rights)
    found = run(f"redis://jobs:x@127.0.0.1:{port}/0")
    assert found["Redis: permissions"]["ok"], found["Redis: permissions"]["seen"]


@pytest.mark.parametrize("url", ["redis://:{}@127.0.0.1:{}/0", "redis://default:{}@127.0.0.1:{}"])
def test_a_password_with_special_characters_is_encoded_or_refused_with_how_to(serve: Serve, run, url: str) -> None:
    port = serve(requirepass=f'"{PASSWORD}"')
    assert broken(run(url.format(ENCODED, port))) == {}
    found = run(url.format(PASSWORD, port))
    assert set(found) == {"Redis"}
    assert "%23" in str(found["Redis"]["advice"])
    wrong = run(url.format("another", port))
    assert "refuses the user or the password" in str(wrong["Redis"]["seen"])


@pytest.mark.parametrize(
    "url",
    [
        "redis://:a#b@host:6379/0",
        "redis://:a/b@host:6379/0",
        "redis://:a?b@host:6379/0",
        "redis://:1/b@host:6379/0",
        "redis://:/@host:6379/0",
        "redis://:a@b:c/d@host:6379/0",
        "redis://user:#@host",
        "redis://[::1/0",
        "redis://host:port/0",
        "redis://host:99999999/0",
        "redis://host/zero",
        "http://host",
        "host:6379",
        "",
        "redis://host?colour=blue",
        "redis://host?socket_timeout=soon",
    ],
)
def test_an_address_that_cannot_be_read_is_one_sentence_without_its_parts(url: str) -> None:
    with pytest.raises(QueueError) as caught:
        connect(Settings(redis_url=url, _env_file=None))
    assert caught.value.hint
    assert caught.value.__cause__ is None
    assert "a#b" not in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize(
    "url", ["redis://:p%23w@h/0", "rediss://u:p@h:1/15", "unix:///a/b?db=1", "redis://", "redis://[::1]:5/0"]
)
def test_addresses_that_can_be_read(url: str) -> None:
    check(url)
    assert "p" not in shown(url).partition("://")[2].replace("a/b", "")


def test_errors_name_no_setting_that_nobody_set() -> None:
    from redis.exceptions import ConnectionError

    def hint(**settings: str) -> str:
        return queue_error(ConnectionError("refused"), Settings(**settings, _env_file=None)).hint or ""

    assert "K2D_REDIS_URL" not in hint()
    assert "K2D_REDIS_URL" not in hint(redis_url="unix:///tmp/k2d-redis-abc/socket?db=0")
    assert "K2D_REDIS_URL" in hint(redis_url="redis://elsewhere:1/0")


def test_no_check_takes_the_others_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Settings) -> str:
        raise ZeroDivisionError("a secret")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "CHECKS", (("odd", False, fail), ("Python", True, lambda _: "3")))
    with capture_logs():
        result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "ZeroDivisionError" in result.stdout
    assert "a secret" not in result.stdout
    assert "works    Python" in result.stdout


def test_not_fetched_yet_is_not_broken(tmp_path: Path) -> None:
    def needs(reference: str, **settings: object) -> doctor.Finding:
        loaded = Settings(teacher=reference, cache=tmp_path / "cache", _env_file=None, **settings)
        return doctor._run_check("teacher", True, doctor._teacher, loaded)

    for reference in ("packaged:whisper-base", "nobody/nothing"):
        assert needs(reference).state == "to fetch"
        assert needs(reference, allow_downloads=False).state == "broken"
    assert needs("/nowhere").state == "broken"
    folder = tmp_path / "model"
    folder.mkdir()
    assert needs(str(folder)).state == "broken"
    assert issubclass(ModelNotFetched, K2DError)
    shutil.rmtree(folder)

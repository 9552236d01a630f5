"""What a killed `k2d up` left behind is found by its record, and nothing else is ever stopped."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.local import run_record
from services.local.run_record import RUN_VARIABLE, RunRecord, clear, orphans, running

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes that wait, and ends them."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str = "", **variables: str) -> "subprocess.Popen[str]":
        code = f"{code}\nprint('ready', flush=True)\ninput()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def abandon(record: RunRecord) -> None:
    """As the kernel does with the record of a run that was killed."""
    path = record._path
    noted = json.loads(path.read_text())
    record._file.close()
    path.write_text(json.dumps(noted | {"up": 2**22 + 1, "started": "0"}))


def test_a_run_that_lives_has_no_orphans(tmp_path: Path, start: Start) -> None:
    record = RunRecord(tmp_path)
    record.add("api", start().pid, ["api"])
    assert orphans(tmp_path) == []
    assert running(tmp_path) == os.getpid()
    record.close()
    assert list(tmp_path.iterdir()) == []
    assert running(tmp_path) is None


def test_processes_of_a_killed_run_are_named_and_stopped(tmp_path: Path, start: Start) -> None:
    record = RunRecord(tmp_path)
    noted, inherited = start(), start(**{RUN_VARIABLE: record.id})  # a scheduler is in no record
    stranger = start(**{RUN_VARIABLE: "another run"})
    record.add("worker-0", noted.pid, ["python", "-m", "services.filter.worker"])
    abandon(record)
    assert running(tmp_path) is None
    found = orphans(tmp_path)
    assert {orphan.process.pid for orphan in found} == {noted.pid, inherited.pid}
    assert f"worker-0 (pid {noted.pid}: python -m services.filter.worker)" in map(str, found)
    clear(tmp_path)
    assert noted.wait(5) == -15
    assert inherited.wait(5) == -15
    assert stranger.poll() is None
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_got_the_id_of_another_one_is_never_stopped(tmp_path: Path, start: Start) -> None:
    record, stranger = RunRecord(tmp_path), start()
    record.add("api", stranger.pid, ["api"])
    record._processes["api"]["started"] = "12345"  # the API started at another time than this process
    record._write()
    abandon(record)
    clear(tmp_path)
    assert stranger.poll() is None


def test_a_record_that_was_cut_off_still_names_the_run(tmp_path: Path, start: Start) -> None:
    """A full disk: the name of the file is all that is left."""
    record = RunRecord(tmp_path)
    orphan = start(**{RUN_VARIABLE: record.id})
    record._file.close()
    record._path.write_text("")
    assert [found.process.pid for found in orphans(tmp_path)] == [orphan.pid]


@pytest.mark.parametrize("text", ["[]", "{}", '{"up": "x", "processes": [1]}', '{"processes": {"api": {"pid": "1"}}}'])
def test_records_of_any_content_harm_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "0123.json").write_text(text)
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_redis_is_stopped_last_and_what_ignores_sigterm_is_killed(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "STOP_S", 0.2)
    record = RunRecord(tmp_path)
    stubborn = start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    redis, worker = start(), start()
    for name, process in ((run_record.REDIS, redis), ("worker-0", worker), ("api", stubborn)):
        record.add(name, process.pid, [name])
    abandon(record)
    assert [orphan.name for orphan in orphans(tmp_path)] == ["worker-0", "api", "redis"]
    clear(tmp_path)
    assert (stubborn.wait(5), worker.wait(5), redis.wait(5)) == (-9, -15, -15)
    assert psutil.pid_exists(os.getpid())


def test_a_run_that_stops_leaves_nothing_of_its_own(tmp_path: Path, start: Start) -> None:
    record = RunRecord(tmp_path)
    horse, redis = start(**{RUN_VARIABLE: record.id}), start(**{RUN_VARIABLE: record.id})
    stranger = start()
    record.stop_rest(but=redis.pid)
    assert horse.wait(5) == -15
    assert (redis.poll(), stranger.poll()) == (None, None)
    record.close()

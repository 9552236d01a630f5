"""Heartbeats: who is at work on a batch is known while it works, on a folder and in a bucket, and no longer."""

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from buckets import OPTIONS, new_bucket

from k2d.processes import machine, start_of
from k2d.store import Lake
from k2d.store.heartbeats import FOLDER, STALE_S, Heartbeat
from k2d.store.parquet import dumps

ID = "b_0123456789abcdef"


@pytest.fixture(params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "folder":
        return Lake(str(tmp_path / "lake"))
    s3 = request.getfixturevalue("s3")
    return Lake(f"s3://{new_bucket(s3)}", endpoint_url=s3, **OPTIONS)


def put(lake: Lake, *, pid: int, process: str | None, of_machine: str) -> str:
    path = f"{FOLDER}/{ID}~{pid}.json"
    beat = Heartbeat("gpu1", pid, "k2d label", "2026-11-30T12:00:00+00:00", of_machine, process)
    lake.files.write(path, dumps(asdict(beat)))
    return path


def test_a_process_is_seen_while_it_works(lake: Lake) -> None:
    assert lake.heartbeats.of(ID) == []
    with lake.heartbeats.beating(ID):
        (beat,) = lake.heartbeats.of(ID)
        assert (beat.pid, beat.machine) == (os.getpid(), machine())
        assert lake.heartbeats.of("b_fedcba9876543210") == []
    assert lake.heartbeats.of(ID) == []
    assert lake.files.listing("") == []


def test_one_that_was_killed_is_not_at_work(lake: Lake) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    put(lake, pid=process.pid, process=start_of(process.pid), of_machine=machine())
    put(lake, pid=os.getpid(), process="another one that had this id", of_machine=machine())
    assert [beat.pid for beat in lake.heartbeats.of(ID)] == [process.pid]
    process.kill()
    while start_of(process.pid) is not None:  # before anybody waits for it
        time.sleep(0.01)
    assert lake.heartbeats.of(ID) == []
    process.communicate()


def test_one_of_another_machine_counts_until_it_is_silent_whatever_the_clocks_say(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(lake, pid=1, process="1", of_machine="another")
    lake.files.write(f"{FOLDER}/{ID}~cut-off.json", b"{")
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
    assert [beat.pid for beat in lake.heartbeats.of(ID)] == [1]
    monkeypatch.undo()
    if lake.files.local:
        old = time.time() - STALE_S - 1
        os.utime(lake.files.full(path), (old, old))
        assert lake.heartbeats.of(ID) == []
        os.utime(lake.files.full(path), (1.0, 1.0))
        assert lake.sweep() == 1
        assert len(lake.files.listing(FOLDER)) == 1


def test_a_store_that_takes_none_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_bytes(b"a file in place of the folder")
    lake = Lake(str(tmp_path))
    with lake.heartbeats.beating(ID):
        assert lake.heartbeats.of(ID) == []

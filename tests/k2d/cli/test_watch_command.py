"""`k2d watch`: files are taken once, when they have stopped changing; an API that is gone costs nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from k2d.cli.watch import Arrivals, label_arrivals
from k2d.errors import StoreError


class Service:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.fails = False

    def label(self, paths: list[str], options: Any, *, add: bool, below: list[str]) -> Any:
        assert add
        assert below
        if self.fails:
            raise StoreError("the disk is full")
        self.given.append([Path(path).name for path in paths])
        return type("Status", (), {"recordings": len(paths)})


def test_a_file_is_taken_once_and_only_when_it_has_stopped_growing(tmp_path: Path) -> None:
    service, arrivals = Service(), Arrivals([str(tmp_path)])
    growing = tmp_path / "a.wav"

    def look() -> int:
        return label_arrivals(service, arrivals, "talks")  # type: ignore[arg-type]

    (tmp_path / "empty.wav").write_bytes(b"")  # a recorder has opened it
    growing.write_bytes(b"1")
    assert look() == 0
    growing.write_bytes(b"12")
    assert look() == 0
    assert look() == 1
    assert look() == 0
    (tmp_path / "b.wav").write_bytes(b"1")
    growing.write_bytes(b"123")  # and a file that is replaced is one more
    look()
    assert look() == 2
    assert service.given == [["a.wav"], ["a.wav", "b.wav"]]
    growing.unlink()
    assert look() == 0


def test_what_could_not_be_given_is_given_again(tmp_path: Path) -> None:
    service, arrivals = Service(), Arrivals([str(tmp_path)])
    (tmp_path / "a.wav").write_bytes(b"1")
    arrivals.look()
    service.fails = True
    with pytest.raises(StoreError):
        label_arrivals(service, arrivals, "talks")  # type: ignore[arg-type]
    service.fails = False
    assert label_arrivals(service, arrivals, "talks") == 1  # type: ignore[arg-type]


@pytest.mark.integration
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    command = [sys.executable, "-m", "k2d.cli", "watch", "in", "--batch", "talks", "--embedded"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"K2D_STORE": str(tmp_path / "lake"), "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    assert "watching in" in run.stderr.readline()
    time.sleep(1.0)  # it looks, then waits
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "Traceback" in err) == (130, False), err
    assert "run the same command again" in err

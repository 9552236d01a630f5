"""The command line in this process, over a store of its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import finished_batch
from lakes import copy

from k2d.cli import main
from k2d.client import Client
from k2d.schema import Batch
from k2d.store import Lake

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def k2d(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], without_waits: None
) -> Run:
    """Run `k2d` in an empty folder with a fresh store; returns exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_STORE", str(tmp_path / "lake"))
    monkeypatch.setattr(Client, "is_up", lambda _: False)  # whatever else runs on this machine

    def run(*arguments: object, **environment: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["k2d", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A finished batch, `lectures`."""
    lake = Lake(str(tmp_path_factory.mktemp("finished") / "lake"))
    finished_batch(lake)
    return lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """The store that `k2d` uses."""
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def batch(finished: Lake, lake: Lake) -> Batch:
    """`lectures`, in the store that `k2d` uses."""
    copy(finished, Path(lake.files.root))
    return lake.batches.get("lectures")

"""Checkpoints survive a full disk, and a run does not start where it will not fit."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from places import ROOT

from k2d.errors import NotFound, StoreError
from trainer.run.checkpoints import POSITION, Checkpoints, RunPosition, need_space, replace_folder


def test_too_small_a_disk_is_named_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"checkpoints and students need 1000000000\.0 GB"):
        need_space(tmp_path, 10**18)


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    with pytest.raises(NotFound, match="no checkpoint"):
        checkpoints.latest()
    for name, content in (("step-00000002", '{"step": 2, "recipe": "r"}'), ("step-00000004", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / POSITION).write_text(content)
    (tmp_path / "step-00000006").mkdir()  # without a position
    (tmp_path / ".step-00000008.tmp").mkdir()
    assert [path.name for path in checkpoints.all()] == ["step-00000002", "step-00000004"]
    with pytest.raises(StoreError, match=r"step-00000004/position\.json cannot be read"):
        checkpoints.latest()
    (tmp_path / "step-00000004" / POSITION).unlink()
    assert checkpoints.latest()[1] == RunPosition(2, "r")


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    staged, final = tmp_path / "staged", tmp_path / "final"
    for content in ("first", "second"):
        staged.mkdir()
        (staged / "file").write_text(content)
        replace_folder(staged, final)
        assert (final / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [final]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk: the system refuses the write in the same way."""
    script = """
import resource, signal, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from trainer.run.checkpoints import Checkpoints, RunPosition
from k2d.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
accelerator = Accelerator()
accelerator.prepare(torch.nn.Linear(256, 256))
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
checkpoints.save(accelerator, RunPosition(1, "r"))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    checkpoints.save(accelerator, RunPosition(2, "r"))
except StoreError as error:
    print(error.message, "|", error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert "the checkpoint of step 2 could not be written" in done.stdout, done.stderr
    assert "whole checkpoints: step-00000001" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert Checkpoints(tmp_path, keep=2).latest()[1] == RunPosition(1, "r")

"""The launch scripts: what they would run is parsed by torchrun's own parser and by the CLI; nothing is started."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from places import ROOT

from k2d.cli.base import app as cli
from trainer.commands import train  # noqa: F401 — registers the command
from trainer.options import PAPER, load_recipe

LAUNCH = ROOT / "deploy" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
SHOW = '#!/bin/sh\nprintf "%s\\n" "$@"\n'


def started(folder: Path, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with commands in front of PATH that only print what they are given."""
    for name in ("torchrun", "srun"):
        (folder / name).write_text(SHOW)
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", **variables}
    command = ["sh", str(LAUNCH / script), *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def understood(done: subprocess.CompletedProcess[str]) -> tuple[Any, dict[str, Any]]:
    """The command line as torchrun reads it, and the rest as `k2d train` does."""
    run = pytest.importorskip("torch.distributed.run")
    assert done.returncode == 0, done.stderr
    launcher = run.get_args_parser().parse_args(done.stdout.splitlines())
    assert (launcher.module, launcher.training_script) == (True, "trainer")
    command = typer.main.get_command(cli).commands["train"]  # type: ignore[attr-defined]
    return launcher, command.make_context("train", launcher.training_script_args).params


def test_the_paper_s_recipe_as_a_file_is_the_preset() -> None:
    assert load_recipe(str(LAUNCH / "paper.yaml")) == PAPER


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix_and_stop_at_the_first_error(script: Path) -> None:
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    text = script.read_text("utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    assert not re.search(r"\[\[|\bfunction\b|<<<|\blocal\b|\$\{\w+\[", text)  # bash's alone


def test_one_host_starts_a_process_for_each_gpu(tmp_path: Path) -> None:
    done = started(tmp_path, "one-host.sh", "lectures", "/runs/a b", "--set", "steps=20000", GPUS="4")
    launcher, given = understood(done)
    assert (launcher.standalone, launcher.nproc_per_node) == (True, "4")
    assert (given["dataset"], str(given["run"]), given["resume"]) == ("lectures", "/runs/a b", True)
    assert given["change"] == ["steps=20000"]
    assert load_recipe(given["recipe"]) == PAPER
    mine = understood(started(tmp_path, "one-host.sh", "d", "r", GPUS="1", RECIPE="default"))[1]
    assert mine["recipe"] == "default"


def test_several_hosts_meet_at_the_head(tmp_path: Path) -> None:
    done = started(tmp_path, "several-hosts.sh", "d", "/runs/r", HEAD="node0:29500", HOSTS="2", GPUS="8", JOB="7")
    launcher, given = understood(done)
    assert (launcher.nnodes, launcher.nproc_per_node) == ("2", "8")
    assert (launcher.rdzv_backend, launcher.rdzv_endpoint, launcher.rdzv_id) == ("c10d", "node0:29500", "7")
    assert launcher.max_restarts > 0
    assert given["resume"] is True  # a restart goes on instead of failing
    for missing in ("HEAD", "HOSTS"):
        variables = {"HEAD": "node0:29500", "HOSTS": "2", "GPUS": "8"}
        del variables[missing]
        assert missing in started(tmp_path, "several-hosts.sh", "d", "r", **variables).stderr


@pytest.mark.parametrize("script", ["one-host.sh", "several-hosts.sh"])
def test_without_a_dataset_they_say_how_they_are_used(tmp_path: Path, script: str) -> None:
    done = started(tmp_path, script, "lectures", GPUS="1", HEAD="h:1", HOSTS="1")
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert done.stdout == ""


def test_slurm_hands_its_hosts_over(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'gpu07\\ngpu08\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    slurm = {"SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    (tmp_path / "torchrun").write_text(SHOW)
    for name in ("srun", "torchrun"):
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "91"} | slurm
    command = ["sh", str(LAUNCH / "slurm.sh"), "lectures", "/runs/r"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    launcher, given = understood(done)
    assert (launcher.rdzv_endpoint, launcher.nnodes, launcher.rdzv_id) == ("gpu07:29500", "2", "91")
    assert given["dataset"] == "lectures"


def test_the_table_of_costs_adds_up() -> None:
    """hours = steps × seconds / 3600; GPU hours = hours × GPUs; chunks a second and GPU = 256 / seconds / GPUs."""
    text = (LAUNCH / "one-host.sh").read_text("utf-8")
    rows = re.findall(r"^#.*?(\d\.\d\d) +(\d+) +(\d+) +(\d+)$", text, re.MULTILINE)
    assert len(rows) == 5
    for (seconds, chunks, hours, gpu_hours), gpus in zip(rows, (4, 4, 4, 4, 8), strict=True):
        assert float(hours) == pytest.approx(120_000 * float(seconds) / 3600, abs=0.6)
        assert float(gpu_hours) == pytest.approx(gpus * 120_000 * float(seconds) / 3600, abs=0.6)
        assert float(chunks) == pytest.approx(256 / float(seconds) / gpus, abs=0.6)

"""Whole runs of a tiny teacher: killed and resumed, in one process and in two, and what goes wrong in them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch
from frozen_sets import NAME, change, frozen
from places import ROOT
from row_processes import row_processes
from tiny import tiny_teacher
from weights import cache

from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest, Conflict
from k2d.settings import Settings, load
from k2d.store import Lake
from k2d.whisper.load import open_engine
from trainer.errors import NoTrainingData, TrainingDiverged
from trainer.model.student import load_teacher
from trainer.options import Recipe
from trainer.run.checkpoints import Checkpoints
from trainer.run.loop import RunOutcome, train
from trainer.run.runs import METRICS, Run

MEASURED = {"wall_s", "waited_s"}  # all else in a line of the curve is computed
STEPS: dict[str, Any] = {
    "steps": 6,
    "batch": 8,
    "micro_batch": 2,
    "lanes": 2,
    "warmup_steps": 2,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,
    "validate_every": 3,
    "holdout": 0.2,
    "validation_rows": 2,
    "threads": 1,
}


@pytest.fixture(scope="module")
def straight(dataset: FrozenDataset, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    outcome = start(dataset, folder, teacher)
    assert outcome == RunOutcome(6, True, outcome.best_mer, folder / "student")
    return folder


def settings() -> Settings:
    return load(cache=str(cache()))


def start(dataset: FrozenDataset, folder: Path, teacher: Path, *, resume: bool = False, **changes: Any) -> RunOutcome:
    recipe = Recipe(**{**STEPS, "teacher": str(teacher), **changes})
    before = torch.get_num_threads()
    try:
        return train(dataset, recipe, folder, settings=settings(), resume=resume)
    finally:
        torch.set_num_threads(before)


def launch(
    dataset: FrozenDataset, folder: Path, teacher: Path, *, processes: int = 1, more: tuple[str, ...] = ()
) -> Any:
    """`python -m trainer` for the same run, as one process or several."""
    values = {**STEPS, "teacher": str(teacher)}
    changes = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    store = Path(dataset._lake.datasets.shard_path(NAME, 0)).parents[3]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "trainer", NAME, "--out", str(folder), *changes, *more],
        cwd=ROOT,
        env={**os.environ, "K2D_STORE": str(store), "K2D_CACHE": str(cache()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def curve(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in Run(folder).lines(METRICS)]


def test_a_run_is_published_as_it_goes_and_as_it_fails(
    dataset: FrozenDataset, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "watched"))
    recipe = Recipe(**{**STEPS, "teacher": str(teacher), "steps": 2, "validate_every": 2})
    train(dataset, recipe, tmp_path / "first", settings=settings(), publish_to=lake)
    run = lake.runs.record("first")
    assert (run.state, run.step, run.dataset) == ("done", 2, NAME)
    assert run.mer is not None
    assert lake.runs.curves("first").training["step"] == [1, 2]
    with monkeypatch.context() as broken:
        broken.setattr("trainer.run.loop._Trainer._validate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(dataset, recipe, tmp_path / "second", settings=settings(), publish_to=lake)
    assert (lake.runs.record("second").state, lake.runs.record("second").error) == (
        "failed",
        "ZeroDivisionError: division by zero",
    )
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(Conflict, match="another run named 'first'"):
        train(dataset, recipe, tmp_path / "elsewhere" / "first", settings=settings(), publish_to=lake)
    assert not (tmp_path / "elsewhere" / "first").exists()


# ---- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_run_learns_and_records_it(straight: Path) -> None:
    lines = curve(straight)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["learning_rate"] == pytest.approx(5e-4)
    for line in lines:
        assert line["loss"] == pytest.approx(0.8 * line["ce"] + line["kl"])
        assert line["tokens"] > 0
    assert [path.name for path in Checkpoints(straight / "checkpoints", keep=2).all()] == [
        "step-00000004",
        "step-00000006",
    ]
    about = json.loads((straight / "run.json").read_text())
    assert about["finished"]
    assert about["dataset"]["name"] == NAME
    assert about["dataset"]["digest"]
    page = (straight / "report.html").read_text("utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    assert (straight / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((straight / "tensorboard").iterdir())


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
def test_the_student_opens_in_both_engines(straight: Path, engine: str, tmp_path: Path) -> None:
    opened = open_engine(
        str(straight / "student"),
        engine=engine,
        device="cpu",
        compute_type="float32",
        threads=1,
        cache=tmp_path,
        allow_downloads=False,
    )
    try:
        assert opened.model.digest
    finally:
        opened.close()


# ---- killed, stopped, resumed ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("short_texts")
def test_a_killed_run_is_resumed_to_the_same_curve_to_the_last_digit(
    straight: Path, dataset: FrozenDataset, teacher: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    process = launch(dataset, folder, teacher)
    deadline = time.monotonic() + 120
    while len(Run(folder).lines(METRICS)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = len(curve(folder))
    assert 3 <= done < 6, process.stdout.read()
    assert start(dataset, folder, teacher, resume=True).finished
    assert curve(folder) == curve(straight)


@pytest.mark.usefixtures("short_texts")
def test_sigterm_stops_after_the_current_step_with_a_checkpoint(
    straight: Path, dataset: FrozenDataset, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stopped"
    append = Run.append

    def append_then_signal(self: Run, name: str, line: dict[str, Any]) -> None:
        append(self, name, line)
        if name == METRICS and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "append", append_then_signal)
        outcome = start(dataset, folder, teacher)
    assert not outcome.finished
    assert outcome.step in (3, 4)  # requested during step 3: known when step 4 counts, at the latest
    assert Checkpoints(folder / "checkpoints", keep=9).latest()[1].step == outcome.step
    assert start(dataset, folder, teacher, resume=True).finished
    assert curve(folder) == curve(straight)


@pytest.mark.slow
@pytest.mark.usefixtures("short_texts")
def test_ctrl_c_in_a_terminal_ends_a_run_with_a_checkpoint_and_without_processes(
    dataset: FrozenDataset, teacher: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    more = ("--set", "worker_kind=processes", "--set", "steps=100000")
    process = launch(dataset, folder, teacher, more=more)
    try:
        deadline = time.monotonic() + 120
        while not Run(folder).lines(METRICS) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = row_processes(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert len(workers) == 2, output
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert Checkpoints(folder / "checkpoints", keep=9).latest()[1].step == len(curve(folder))
    assert "Traceback" not in output


def test_another_recipe_does_not_resume_a_run(straight: Path, dataset: FrozenDataset, teacher: Path) -> None:
    with pytest.raises(Conflict, match="holds a run"):
        start(dataset, straight, teacher)
    with pytest.raises(BadRequest, match=r"temperature was 2.0, is 3.0"):
        start(dataset, straight, teacher, resume=True, temperature=3.0)
    assert start(dataset, straight, teacher, resume=True, workers=1).step == 6  # how it runs may change


# ---- two processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", pytest.param("fsdp", marks=pytest.mark.nightly)])
def test_two_processes_learn_what_one_does(
    straight: Path, dataset: FrozenDataset, teacher: Path, tmp_path: Path, sharding: str
) -> None:
    folder = tmp_path / "two"
    process = launch(dataset, folder, teacher, processes=2, more=("--set", f"sharding={sharding}"))
    try:
        output, _ = process.communicate(timeout=150)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the launcher's children as well
    assert process.returncode == 0, output
    one, two = curve(straight), curve(folder)
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "ce", "kl", "gradient_norm"):
            assert b[name] == pytest.approx(a[name], rel=2e-4), (a["step"], name)
        assert {k: a[k] for k in ("step", "rows", "tokens", "audio_s")} == {
            k: b[k] for k in ("step", "rows", "tokens", "audio_s")
        }
    best = [json.loads((f / "run.json").read_text())["best_mer"] for f in (straight, folder)]
    assert best[0] == pytest.approx(best[1], rel=0.05)


# ---- options that change how it runs, not what it learns -------------------------------------------------------------


@pytest.mark.usefixtures("short_texts")
@pytest.mark.parametrize(
    "changes",
    [
        {"keep_encoded_gib": 0.5},
        {"gradient_checkpointing": True},
        {"micro_batch": 8},
        {"vocabulary_chunk_mib": 1},
        {"worker_kind": "processes"},
    ],
    ids=str,
)
def test_the_curve_does_not_depend_on_how_it_runs(
    straight: Path, dataset: FrozenDataset, teacher: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    start(dataset, tmp_path / "run", teacher, steps=2, **changes)
    lines = curve(tmp_path / "run")
    assert len(lines) == 2
    for a, b in zip(curve(straight), lines, strict=False):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-4)


@pytest.mark.usefixtures("short_texts")
def test_a_trained_encoder_differs_from_its_teachers(dataset: FrozenDataset, teacher: Path, tmp_path: Path) -> None:
    outcome = start(dataset, tmp_path / "run", teacher, steps=2, freeze_encoder=False, encoder_layers=1)
    assert outcome.finished
    student, original = load_teacher(tmp_path / "run" / "student"), load_teacher(teacher)
    assert not torch.equal(student.model.encoder.conv1.weight, original.model.encoder.conv1.weight)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_texts")
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    dataset: FrozenDataset, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match="is not finite; rows in the batch: rec_") as caught:
        start(dataset, tmp_path / "run", teacher, learning_rate=1e30, warmup_steps=0, checkpoint_every=1)
    kept = Checkpoints(tmp_path / "run" / "checkpoints", keep=2).all()
    assert kept
    assert kept[-1].name in (caught.value.hint or "")
    assert caught.value.details["rows"]


def test_too_many_layers_are_refused_before_anything_is_written(
    dataset: FrozenDataset, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match="the teacher has 4 layers, not 9"):
        start(dataset, tmp_path / "run", teacher, decoder_layers=9)
    assert not (tmp_path / "run").exists()


def test_a_student_of_another_vocabulary_is_refused(dataset: FrozenDataset, teacher: Path, tmp_path: Path) -> None:
    other = tiny_teacher(tmp_path / "other", vocab_size=51_866)
    with pytest.raises(BadRequest, match="their probabilities cannot be compared"):
        start(dataset, tmp_path / "run", teacher, student=str(other))


def test_a_small_dataset_without_texts_is_refused(teacher: Path, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    frozen(lake, recordings=1, rows=3, shard_bytes=10**9)

    def erase(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["text"] = " "
            for segment in row["segments"]:
                segment["text"] = ""

    change(lake, 0, erase)
    with pytest.raises(NoTrainingData, match="none of 6 rows"):
        start(FrozenDataset(lake, NAME), tmp_path / "run", teacher, holdout=0.0)

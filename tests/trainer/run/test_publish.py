"""Publishing runs: curves of bounded size, states, names that are taken, and a store that cannot be written."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from k2d.errors import BadRequest, Conflict, StoreError
from k2d.store import Lake
from k2d.store.runs import PublishedRun
from trainer.options import Recipe
from trainer.run.curve import TrainingCurve
from trainer.run.publish import PUBLISH_S, RunPublisher
from trainer.run.runs import METRICS, VALIDATION, Run

RECIPE = Recipe(steps=10)


def line(step: int, loss: float = 4.0) -> dict[str, Any]:
    measured = {"loss": loss, "ce": 3.0, "kl": 1.0, "learning_rate": 1e-4, "gradient_norm": 1.0}
    return {"step": step, **measured, "tokens": 100, "wall_s": 2.0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "first")
    run.start(RECIPE, resume=False)
    run.describe(started_at="2026-11-22T10:00:00+00:00", dataset={"name": "talks", "seconds": 7200.0})
    return run


@given(losses=st.lists(st.floats(0, 10), min_size=1, max_size=300), most=st.integers(2, 20))
def test_a_curve_keeps_the_mean_of_all_its_steps(losses: list[float], most: int) -> None:
    curve = TrainingCurve(("loss",), most=most)
    for step, loss in enumerate(losses, 1):
        curve.add(step, {"loss": loss})
    columns = curve.columns()
    assert len(columns["loss"]) == len(columns["step"]) <= most
    assert columns["step"] == sorted(set(columns["step"]))
    assert columns["step"][-1] == len(losses)
    counts = [b - a for a, b in zip([0.0, *columns["step"]], columns["step"], strict=False)]
    assert all(count == curve.stride for count in counts[:-1])
    weighted = sum(value * count for value, count in zip(columns["loss"], counts, strict=True))
    assert weighted == pytest.approx(sum(losses), abs=1e-4 * len(losses))


def test_a_run_is_published_while_it_goes_on(lake: Lake, run: Run) -> None:
    clock = Clock()
    publisher = RunPublisher(lake, run, RECIPE, clock)
    publisher.begin(0)
    assert (lake.runs.record("first").state, lake.runs.record("first").dataset_hours) == ("running", 2.0)
    publisher.step(line(1))
    assert lake.runs.record("first").step == 0  # it was published a moment ago
    clock.now += PUBLISH_S
    publisher.step(line(2, loss=3.0))
    assert (lake.runs.record("first").step, lake.runs.record("first").loss) == (2, 3.0)
    assert lake.runs.curves("first").training["loss"] == [4.0, 3.0]
    publisher.validation({"step": 2, "mer": 0.5, "rows": 3})
    publisher.validation({"step": 4, "mer": 0.25, "rows": 3})
    publisher.validation({"step": 6, "mer": 0.75, "rows": 3})
    publisher.end("done")
    record = lake.runs.record("first")
    assert (record.state, record.mer, record.best_mer, record.best_step) == ("done", 0.75, 0.25, 4)
    assert lake.runs.curves("first").validation == {"step": [2, 4, 6], "mer": [0.5, 0.25, 0.75]}


def test_a_resumed_run_has_the_curve_of_before(lake: Lake, run: Run) -> None:
    RunPublisher(lake, run, RECIPE).begin(0)
    run.append(METRICS, line(1))
    run.append(VALIDATION, {"step": 1, "mer": 0.5, "rows": 3})
    publisher = RunPublisher(lake, run, RECIPE)
    publisher.begin(1)
    record = lake.runs.record("first")
    assert (record.step, record.best_mer, lake.runs.curves("first").training["step"]) == (1, 0.5, [1])


def test_a_run_that_fails_says_why(lake: Lake, run: Run) -> None:
    publisher = RunPublisher(lake, run, RECIPE)
    publisher.begin(0)
    publisher.end("failed", StoreError("the disk is full"))
    assert (lake.runs.record("first").state, lake.runs.record("first").error) == ("failed", "the disk is full")


def test_a_name_belongs_to_one_run(lake: Lake, run: Run, tmp_path: Path) -> None:
    RunPublisher(lake, run, RECIPE).begin(0)
    with pytest.raises(Conflict, match="another run named 'first'"):
        RunPublisher(lake, Run(tmp_path / "elsewhere" / "first"), RECIPE)


def test_a_folder_whose_name_no_run_can_have_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        RunPublisher(lake, Run(tmp_path / "<b>x"), RECIPE)


def test_training_goes_on_when_the_store_cannot_be_written(
    lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    publisher = RunPublisher(lake, run, RECIPE, clock)
    publisher.begin(0)

    def full(_: PublishedRun) -> None:
        raise StoreError("the store is full")

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(lake.runs, "put", full)
        for step in (1, 2):
            clock.now += PUBLISH_S
            publisher.step(line(step))
    assert [entry["event"] for entry in logs] == ["the run cannot be published now; training goes on"]
    publisher.end("done")
    assert (lake.runs.record("first").state, lake.runs.record("first").step) == ("done", 2)

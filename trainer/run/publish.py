"""Puts a run's state and curves into the store while it goes on, so that others watch it (`k2d train --publish`)."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from k2d.errors import K2DError
from k2d.labeling.request import check_name
from k2d.store import Lake
from k2d.store.runs import PublishedRun, RunCurves, RunState, named_twice
from trainer.options import Recipe
from trainer.run.curve import TrainingCurve
from trainer.run.runs import METRICS, VALIDATION, Run

log = structlog.get_logger()

PUBLISH_S: Final = 10.0  # at most so often; chosen: a person sees a curve grow, an object store gets few writes
MEASURED: Final = ("loss", "ce", "kl", "learning_rate", "gradient_norm", "tokens_per_s")
PACE: Final = 0.1  # weight of a new step in the running mean of a step's seconds


class RunPublisher:
    """Publishes one run under the name of its folder.

        publisher = RunPublisher(Lake("data"), Run(Path("runs/first")), recipe)
        publisher.begin(0)
        publisher.step(line)
        publisher.end("done")

    Whoever trains loses nothing to a store that cannot be written for a while: only `begin` raises.
    """

    def __init__(self, lake: Lake, run: Run, recipe: Recipe, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Raises:
            BadRequest: the folder's name cannot be that of a run.
            Conflict: the store has another run of this name.
        """
        self.name = run.folder.resolve().name
        check_name(self.name)
        if self.name in lake.runs.names() and lake.runs.record(self.name).run_id != run.description().get("run_id"):
            raise named_twice(self.name)
        self._lake, self._run, self._recipe, self._clock = lake, run, recipe, clock
        self._curve = TrainingCurve(MEASURED)
        self._validation: dict[str, list[float]] = {"step": [], "mer": []}
        self._record: PublishedRun | None = None
        self._published_at = 0.0
        self._is_failing = False

    def begin(self, step: int) -> None:
        """Take the name in the store, with what the run's folder already has.

        Raises:
            Conflict: the store has another run of this name.
            StoreError: the store cannot be written.
        """
        about = self._run.description()
        if "run_id" not in about:
            self._run.describe(run_id=uuid.uuid4().hex)
            about = self._run.description()
        for line in self._run.lines(METRICS):
            self._count(line)
        for line in self._run.lines(VALIDATION):
            self._count_validation(line)
        dataset = about.get("dataset", {})
        seconds = dataset.get("seconds")
        self._record = PublishedRun(
            name=self.name,
            run_id=about["run_id"],
            state="running",
            started_at=about.get("started_at") or _now(),
            updated_at=_now(),
            step=step,
            steps=self._recipe.steps,
            dataset=dataset.get("name", ""),
            dataset_digest=dataset.get("digest", ""),
            dataset_hours=None if seconds is None else round(seconds / 3600, 4),
            teacher=self._recipe.teacher,
            student=about.get("student", []),
            recipe=self._recipe.model_dump(mode="json"),
            machine=about.get("machine", {}) | {"processes": about.get("processes", 1)},
            k2d_version=about.get("k2d_version", ""),
            best_mer=self._best()[0],
            best_step=self._best()[1],
        )
        self._put()

    def step(self, line: dict[str, Any]) -> None:
        """Count a step; publish if the last time is PUBLISH_S ago."""
        self._count(line)
        if self._record is None:
            return
        pace = self._record.step_s
        step_s = line["wall_s"] if pace is None else pace + PACE * (line["wall_s"] - pace)
        self._update(step=line["step"], step_s=round(step_s, 4), loss=line["loss"])
        if self._clock() - self._published_at >= PUBLISH_S:
            self._publish()

    def validation(self, line: dict[str, Any]) -> None:
        """Count a validation, and publish it."""
        self._count_validation(line)
        best_mer, best_step = self._best()
        self._update(mer=line["mer"], best_mer=best_mer, best_step=best_step)
        self._publish()

    def end(self, state: RunState, error: BaseException | None = None) -> None:
        """Publish how the run ended."""
        message = error.message if isinstance(error, K2DError) else f"{type(error).__name__}: {error}"
        self._update(state=state, error=message[:2000] if error is not None else None)
        self._publish()

    def _count(self, line: dict[str, Any]) -> None:
        rate = line["tokens"] / max(line["wall_s"], 1e-9)
        self._curve.add(line["step"], {**line, "tokens_per_s": rate})

    def _count_validation(self, line: dict[str, Any]) -> None:
        for name, values in self._validation.items():
            values.append(float(line[name]))

    def _best(self) -> tuple[float | None, int | None]:
        mers = self._validation["mer"]
        if not mers:
            return None, None
        place = mers.index(min(mers))
        return mers[place], int(self._validation["step"][place])

    def _update(self, **changes: Any) -> None:
        if self._record is not None:
            self._record = self._record.model_copy(update=changes | {"updated_at": _now()})

    def _publish(self) -> None:
        """Write both documents; where that fails, say so once and go on."""
        try:
            self._put()
            self._is_failing = False
        except K2DError as error:
            if not self._is_failing:
                log.warning("the run cannot be published now; training goes on", error=error.message)
            self._is_failing = True

    def _put(self) -> None:
        if self._record is None:
            return
        self._published_at = self._clock()
        self._lake.runs.put(self._record)
        training = self._curve.columns()
        self._lake.runs.put_curves(
            self.name, RunCurves(stride=self._curve.stride, training=training, validation=self._validation)
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The training loop: a recipe and a dataset become a student. Read it from top to bottom; one step is in step.py.

What a step computes is a function of the recipe, the dataset and the step's number; the number of processes only
decides which of them computes what. So a run that was killed and resumed ends as if nothing had happened.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
from threadpoolctl import ThreadpoolController

from k2d.datasets.read import FrozenDataset
from k2d.settings import Settings
from k2d.store import Lake
from k2d.wording import counted
from trainer.data.batch import MicroBatch
from trainer.data.stream import TrainingData
from trainer.model import student as students
from trainer.model.flops import chunk_flops
from trainer.model.setup import open_accelerator, open_models
from trainer.options import Recipe
from trainer.run.checkpoints import Checkpoints, RunPosition, need_space
from trainer.run.estimate import FLOAT32, STATES, Estimate, measure
from trainer.run.publish import RunPublisher
from trainer.run.recorder import Recorder
from trainer.run.runs import BEST, LAST, Run, provenance
from trainer.run.step import StepResult, TrainingStep
from trainer.run.student_writer import StudentWriter
from trainer.run.validation import ValidationItem, items_of, validate

LOOK_AHEAD: Final = 8  # steps in which a row to measure with is looked for
STUDENTS: Final = 3  # on the disk: the best, the last, and one while it is written


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a call of `train` ended."""

    step: int  # done
    finished: bool  # all of the recipe's steps
    best_mer: float | None
    student: Path | None  # None after a dry run


def train(
    dataset: FrozenDataset,
    recipe: Recipe,
    folder: Path,
    *,
    settings: Settings,
    resume: bool = False,
    dry_run: bool = False,
    publish_to: Lake | None = None,
) -> RunOutcome:
    """Distil a student from a frozen dataset into `folder`; every process of a launch calls this.

    SIGINT and SIGTERM end it after the current step, with a checkpoint. `dry_run` prints the estimate and stops.
    `publish_to`: the store that gets the run's state and curves while it goes on, under the folder's name.

        train(FrozenDataset(Lake("store"), "talks"), Recipe(steps=5000), Path("runs/first"), settings=load())

    Raises:
        BadRequest: the recipe does not fit the teacher, the dataset or the run in the folder.
        Conflict: the folder holds a run, and `resume` is false; or the store has another run of this name.
        NoTrainingData: nothing can be learned from.
        TrainingDiverged: the loss is NaN or infinite; the last checkpoint stays.
        StoreError: the dataset cannot be read or the disk is full; the last checkpoint stays.
        ModelError: the teacher cannot be loaded.
    """
    # beside a GPU one thread: more would compete with those that prepare rows
    threads = recipe.threads or (1 if torch.cuda.is_available() else 0)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    # numpy's matrix products would each start as many threads as there are cores, in every thread that prepares rows:
    # on 16 cores a step took three times as long
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        publisher = RunPublisher(publish_to, Run(folder), recipe) if publish_to is not None else None
        trainer = _Trainer(dataset, recipe, Run(folder), settings, publisher)
        try:
            return trainer.run(resume=resume, dry_run=dry_run)
        except BaseException as error:
            trainer.recorder.fail(error)
            raise
        finally:
            trainer.close()


class _Trainer:
    """One run in one process."""

    def __init__(
        self, dataset: FrozenDataset, recipe: Recipe, run: Run, settings: Settings, publisher: RunPublisher | None
    ) -> None:
        self.recipe, self.run_folder, self.settings = recipe, run, settings
        self.accelerator, self.precision = open_accelerator(recipe)
        self.device: torch.device = self.accelerator.device
        self.processes: int = self.accelerator.num_processes
        self.main: bool = self.accelerator.is_main_process
        self.models = open_models(recipe, settings)
        self.data = TrainingData(
            dataset,
            recipe,
            vocabulary=self.models.vocabulary,
            mels=self.models.mels,
            rank=self.accelerator.process_index,
            world=self.processes,
            beside_gpu=self.device.type == "cuda",
        )
        self.size_table = students.compare_sizes(self.models.teacher, self.models.student, self.models.layers)
        self.recorder = Recorder(run, recipe, active=self.main, publisher=publisher)
        self.checkpoints = Checkpoints(run.checkpoints, keep=recipe.keep_checkpoints)
        self.position = RunPosition(0, recipe.key)
        self.stop = StopRequest()
        self.step = TrainingStep(self.models, recipe, self.accelerator, self.checkpoints)
        self.students = StudentWriter(self.accelerator, self.models, recipe, run)

    def run(self, *, resume: bool, dry_run: bool) -> RunOutcome:
        """Estimate, claim the folder, make all steps, save the student, write the report."""
        if self.main and not dry_run:
            self._need_space()
        self.recorder.announce(self.size_table, self._estimate(), self._choices())
        if dry_run:
            return RunOutcome(0, False, None, None)
        self._claim(resume=resume)
        items = items_of(self.data, self.recipe, self.settings) if self.main else []
        with catch_signals(self.stop):
            self._loop(items)
        finished = self.position.step >= self.recipe.steps
        folder = self.students.save(self.step.model, LAST)
        if self.main:
            self.run_folder.describe(
                finished=finished,
                steps_done=self.position.step,
                best_mer=self.position.best_mer,
                best_step=self.position.best_step,
                skipped_rows=dict(self.data.skipped),
            )
            self.recorder.end(finished=finished)
            self.recorder.report()
        return RunOutcome(self.position.step, finished, self.position.best_mer, folder)

    def close(self) -> None:
        """Stop reading data, and close trackers and the group of processes."""
        self.data.close()
        self.recorder.close()
        if self.processes > 1:
            self.accelerator.end_training()

    def _loop(self, items: Sequence[ValidationItem]) -> None:
        """Make the steps that are left."""
        recipe = self.recipe
        if self.position.step >= recipe.steps:
            return
        needs_features = self.step.encoder_cache.is_missing if recipe.keep_encoded_gib else None
        stream = self.data.steps(self.position.step, needs_features=needs_features)
        started = time.perf_counter()
        for number, micro_batches in enumerate(stream, start=self.position.step + 1):
            waited_s = time.perf_counter() - started
            result = self.step.run(number, micro_batches, stop=self.stop.requested)
            wall_s = time.perf_counter() - started
            self.recorder.step(self._line(number, result, wall_s=wall_s, waited_s=waited_s))
            self.position = replace(self.position, step=number)
            last = number == recipe.steps or result.stop
            if number % recipe.validate_every == 0 or last:
                self._validate(items)
            if number % recipe.checkpoint_every == 0 or last:
                self.checkpoints.save(self.accelerator, self.position)
            if last:
                return
            started = time.perf_counter()

    def _line(self, number: int, result: StepResult, *, wall_s: float, waited_s: float) -> dict[str, Any]:
        """A step's line in metrics.jsonl."""
        measured = {name: value for name, value in asdict(result).items() if name != "stop"}
        epoch = round(number * self.recipe.batch / self.data.rows, 4)
        return {"step": number, **measured, "epoch": epoch, "wall_s": round(wall_s, 4), "waited_s": round(waited_s, 4)}

    def _validate(self, items: Sequence[ValidationItem]) -> None:
        """Transcribe in the first process while the others wait; save the student if it is the best so far."""
        student = self.students.whole(self.step.model)
        if self.main and items:
            frozen = self.recipe.freeze_encoder
            decoder = student.model.decoder.to(self.device)
            encoder = student.model.encoder if frozen else student.model.encoder.to(self.device)
            with self.accelerator.autocast():
                result = validate(
                    items,
                    encode=self.step.encode if frozen else lambda features: encoder(features).last_hidden_state,
                    decoder=decoder,
                    language=self.recipe.language,
                    vocabulary=self.models.vocabulary,
                    device=self.device,
                )
            step = self.position.step
            self.recorder.validation({"step": step, "mer": result.mer, "rows": result.rows})
            if self.position.best_mer is None or result.mer < self.position.best_mer:
                self.position = replace(self.position, best_mer=result.mer, best_step=step)
        # only the first process knows; the others take part in saving
        is_best = torch.tensor([float(self.position.best_step == self.position.step)])
        if self.step.sum_over_processes(is_best).item() > 0:
            self.students.save(self.step.model, BEST)

    # ---- before the first step ---------------------------------------------------------------------------------------

    def _need_space(self) -> None:
        """Room for checkpoints (weights and two moments), one more while it is written, and for students."""
        checkpoint = FLOAT32 * (STATES - 1) * self.step.sizes["trained"]  # a gradient is not saved
        student = FLOAT32 * self.step.sizes["student"]
        need_space(self.run_folder.folder, (self.recipe.keep_checkpoints + 1) * checkpoint + STUDENTS * student)

    def _estimate(self) -> Estimate:
        """Time one micro-batch and extrapolate."""
        recipe, micro_batches = self.recipe, self._first_step()
        micro = micro_batches[len(micro_batches) // 2]  # of a middle length: the first are the longest
        flops = chunk_flops(
            self.models.teacher.config,
            self.models.student.config,
            tokens=micro.inputs.shape[1],
            frozen_encoder=recipe.freeze_encoder,
        )
        estimate = measure(
            lambda: self.step.measure(micro),
            longest=lambda: self.step.measure(micro_batches[0]),
            parameters=self.step.sizes,
            rows=len(micro.ids),
            flops_per_chunk=flops.total,
            steps=recipe.steps,
            batch=recipe.batch,
            world=self.processes,
            dataset_rows=self.data.rows,
            keeps_encoded=bool(recipe.keep_encoded_gib),
            device=self.device,
        )
        self.accelerator.wait_for_everyone()
        return estimate

    def _first_step(self) -> list[MicroBatch]:
        """Micro-batches to measure with: those of this process's first step that is not empty."""
        stream = self.data.steps(0)
        try:
            first = next((step for step in islice(stream, LOOK_AHEAD) if step), None)
        finally:
            stream.close()
        return first or [self.step.empty_micro_batch()]

    def _choices(self) -> str:
        """What the software chose by itself, and why."""
        encoder = "frozen, one pass for teacher and student" if self.recipe.freeze_encoder else "trained"
        return (
            f"device {self.device}, {counted(self.processes, 'process', 'processes')}, {self.precision}, "
            f"encoder {encoder}; rows prepared by {self.data.workers}; {self._validated_on()}; "
            f"dataset {self.data.manifest.name}: {counted(self.data.rows, 'row')}, {self.data.seconds / 3600:.2f} h"
        )

    def _validated_on(self) -> str:
        if self.recipe.validate_on is not None:
            return f"validated on {self.recipe.validate_on}"
        if not self.recipe.holdout:
            return "validated on nothing: set holdout or validate_on"
        return f"{self.recipe.holdout:.0%} of recordings held out to validate on"

    def _claim(self, *, resume: bool) -> None:
        """Take the folder, and load its last checkpoint if that was asked for and there is one."""
        if self.main:
            self.run_folder.start(self.recipe, resume=resume)
        self.accelerator.wait_for_everyone()
        if resume and self.checkpoints.all():
            folder, self.position = self.checkpoints.latest()
            self.accelerator.load_state(str(folder))
        if self.main:
            self.run_folder.rewind(self.position.step)
            if not self.position.step:
                self.run_folder.describe(
                    **provenance(self.data.manifest),
                    recipe_key=self.recipe.key,
                    teacher={"reference": self.recipe.teacher, "digest": self.models.resolved.digest},
                    student=self.size_table,
                    processes=self.processes,
                )
        self.recorder.begin(self.position.step)


# ---- Ctrl-C and SIGTERM ----------------------------------------------------------------------------------------------


class StopRequest:
    """Whether this process was asked to stop after the current step."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def catch_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a stop request; a second one of a kind ends the process as usual."""
    before: dict[int, Any] = {}

    def request(number: int, _: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, request)
    except ValueError:  # only the main thread may set handlers: in another one the caller decides when to stop
        pass
    try:
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)

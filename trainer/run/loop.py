"""The training loop: a recipe and a dataset become a student. Read it from top to bottom.

What a step computes is a function of the recipe, the dataset and the step's number; the number of processes only
decides who computes what. So a run that was killed goes on as if nothing had happened.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from threadpoolctl import ThreadpoolController

from k2d.datasets.read import FrozenDataset
from k2d.settings import Settings
from k2d.whisper.features import FRAMES
from trainer.data.batch import IGNORED, MicroBatch
from trainer.data.encoded import Encoded, stacked
from trainer.data.stream import TrainingData
from trainer.errors import NoTrainingData, TrainingDiverged
from trainer.model import student as students
from trainer.model.distiller import Distiller, LossParts
from trainer.model.flops import chunk_flops
from trainer.model.setup import Models, kernels, open_accelerator, open_models
from trainer.options import Recipe
from trainer.run.checkpoints import Checkpoints, Position, need_space
from trainer.run.estimate import FLOAT32, STATES, Estimate, measure, synchronise
from trainer.run.keeper import Keeper
from trainer.run.recorder import Recorder
from trainer.run.runs import BEST, LAST, Run, provenance
from trainer.run.schedule import learning_rate
from trainer.run.stopping import Stop, listening
from trainer.run.validation import Item, items_of, validate

BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's, as the paper's scripts have them (method.md, section 4)
LOOK_AHEAD = 8  # steps to look through for a row to measure with
SHOWN = 8  # rows named in an error


@dataclass(frozen=True, slots=True)
class Outcome:
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
) -> Outcome:
    """Distil a student from a frozen dataset into `folder`; every process of a launch calls this.

    SIGINT and SIGTERM end it after the step in hand, with a checkpoint. `dry_run` prints the estimate and stops.

    Raises:
        BadRequest: the recipe does not fit the teacher, the dataset or the run that is there.
        Conflict: the folder holds a run, and `resume` is false.
        NoTrainingData: nothing can be learned from.
        TrainingDiverged: the loss is no number; the last checkpoint stays.
        StoreError: the dataset cannot be read or the disk is full; the last checkpoint stays.
        ModelError: the teacher cannot be had.
    """
    threads = recipe.threads or (1 if torch.cuda.is_available() else 0)  # beside a GPU more would only be in the way
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    # numpy's matrix products would each start as many threads as there are cores, in every thread that prepares rows:
    # on 16 cores a step took three times as long
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        trainer = _Trainer(dataset, recipe, Run(folder), settings)
        try:
            return trainer.run(resume=resume, dry_run=dry_run)
        finally:
            trainer.close()


class _Trainer:
    """One run in one process."""

    def __init__(self, dataset: FrozenDataset, recipe: Recipe, run: Run, settings: Settings) -> None:
        self.recipe, self.run_folder, self.settings = recipe, run, settings
        self.accelerator, self.precision = open_accelerator(recipe)
        self.device: torch.device = self.accelerator.device
        self.processes: int = self.accelerator.num_processes
        self.main: bool = self.accelerator.is_main_process
        self.models: Models = open_models(recipe, settings)
        self.data = TrainingData(
            dataset,
            recipe,
            vocabulary=self.models.vocabulary,
            mels=self.models.mels,
            rank=self.accelerator.process_index,
            world=self.processes,
        )
        self.distiller = Distiller(self.models.teacher, self.models.student, recipe, self.models.vocabulary)
        self.table = students.table(self.models.teacher, self.models.student, self.models.layers)
        self.recorder = Recorder(run, recipe, active=self.main)
        self.checkpoints = Checkpoints(run.checkpoints, keep=recipe.keep_checkpoints)
        self.position = Position(0, recipe.key)
        self.stop = Stop()
        self._wrap()

    def _wrap(self) -> None:
        """Move everything to where it runs, and wrap what is trained for several processes."""
        self.distiller.train()
        half = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        self.distiller.place(self.device, dtype=half, compiled=self.recipe.compile)
        trained = [p for p in self.distiller.parameters() if p.requires_grad]
        self.sizes = {
            "teacher": students.sizes(self.models.teacher).total,
            "student": students.sizes(self.models.student).total,
            "trained": sum(p.numel() for p in trained),
        }
        optimizer = torch.optim.AdamW(
            trained,
            lr=self.recipe.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            weight_decay=self.recipe.weight_decay,
            **kernels(self.device),
        )
        self.model, self.optimizer = self.accelerator.prepare(self.distiller, optimizer)
        self.encoded = Encoded(self._encode, device=self.device, limit_gib=self.recipe.keep_encoded_gib)
        self.keeper = Keeper(self.accelerator, self.models, self.recipe, self.run_folder)

    # ---- one run ---------------------------------------------------------------------------------------------------

    def run(self, *, resume: bool, dry_run: bool) -> Outcome:
        """All of it, in order."""
        if self.main and not dry_run:
            self._need_space()
        self.recorder.announce(self.table, self._estimate(), self._chosen())
        if dry_run:
            return Outcome(0, False, None, None)
        self._claim(resume=resume)
        items = items_of(self.data, self.recipe, self.settings) if self.main else []
        with listening(self.stop):
            self._steps(items)
        finished = self.position.step >= self.recipe.steps
        folder = self.keeper.save(self.model, LAST)
        if self.main:
            self.run_folder.describe(
                finished=finished,
                steps_done=self.position.step,
                best_mer=self.position.best_mer,
                best_step=self.position.best_step,
                skipped_rows=dict(self.data.skipped),
            )
            self.recorder.report()
        return Outcome(self.position.step, finished, self.position.best_mer, folder)

    def close(self) -> None:
        self.data.close()
        self.recorder.close()
        if self.processes > 1:
            self.accelerator.end_training()

    def _chosen(self) -> str:
        """What the software chose by itself, and why."""
        encoder = "frozen, one pass for teacher and student" if self.recipe.freeze_encoder else "trained"
        return (
            f"device {self.device}, {self.processes} process(es), {self.precision}, encoder {encoder}; "
            f"dataset {self.data.manifest.name}: {self.data.rows} rows, {self.data.seconds / 3600:.2f} h"
        )

    def _need_space(self) -> None:
        """Room for checkpoints (weights and two moments), one more while it is written, and for students."""
        checkpoint = FLOAT32 * (STATES - 1) * self.sizes["trained"]
        student = FLOAT32 * self.sizes["student"]
        need_space(self.run_folder.folder, (self.recipe.keep_checkpoints + 1) * checkpoint + 3 * student)

    def _claim(self, *, resume: bool) -> None:
        """Take the folder, and go on from its last checkpoint if that was asked for and there is one."""
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
                    student=self.table,
                    processes=self.processes,
                )
        self.recorder.begin(self.position.step)

    def _steps(self, items: Sequence[Item]) -> None:
        recipe = self.recipe
        if self.position.step >= recipe.steps:
            return
        stream = self.data.steps(self.position.step, wanted=self.encoded.missing if recipe.keep_encoded_gib else None)
        began = time.perf_counter()
        fruitless = 0  # rows asked for in a row that gave nothing
        for step, micro_batches in enumerate(stream, start=self.position.step + 1):
            waited = time.perf_counter() - began
            line, asked_to_stop = self._step(step, micro_batches)
            line |= {"wall_s": round(time.perf_counter() - began, 4), "waited_s": round(waited, 4)}
            fruitless = 0 if line["rows"] else fruitless + recipe.batch
            if fruitless >= self.data.rows:
                raise self._nothing_learned()
            self.recorder.step(line)
            self.position = replace(self.position, step=step)
            last = step == recipe.steps or asked_to_stop
            if step % recipe.validate_every == 0 or last:
                self._validate(items)
            if step % recipe.checkpoint_every == 0 or last:
                self.checkpoints.save(self.accelerator, self.position)
            if last:
                return
            began = time.perf_counter()

    # ---- one step --------------------------------------------------------------------------------------------------

    def _step(self, step: int, micro_batches: list[MicroBatch]) -> tuple[dict[str, Any], bool]:
        """Forward, backward, update; the step's line of the curve, and whether somebody asked to stop."""
        total, asked_to_stop = self._counted(micro_batches)
        # every process must take part in the exchange of gradients, even one without a row
        work = micro_batches or [self._nothing()]
        normaliser = max(total["weight"], 1e-9)
        found = []
        for index, micro in enumerate(work):
            with nullcontext() if index == len(work) - 1 else self.accelerator.no_sync(self.model):
                # gradients are averaged over processes, so each divides by its share of the whole
                parts = self._forward(micro, normaliser=normaliser / self.processes)
                self.accelerator.backward(parts.loss)
            found.append(torch.stack([parts.ce, parts.kl]))
        norm = self._clipped()
        sums = torch.stack(found).cpu().double()  # only here: asking earlier would wait for the device each time
        ce, kl = (self._sum(sums.sum(dim=0)) / normaliser).tolist()
        loss = self.recipe.ce_weight * ce + self.recipe.kl_weight * kl
        if not math.isfinite(loss + norm):
            bad = [row for micro, its in zip(work, sums, strict=True) if not its.isfinite().all() for row in micro.ids]
            raise self._diverged(step, bad or [row for micro in micro_batches for row in micro.ids])
        rate = learning_rate(self.recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        line = {
            "step": step,
            "loss": loss,
            "ce": ce,
            "kl": kl,
            "learning_rate": rate,
            "gradient_norm": norm,
            "rows": round(total["rows"]),
            "tokens": round(total["tokens"]),
            "audio_s": round(total["seconds"], 3),
            "epoch": round(step * self.recipe.batch / self.data.rows, 4),
        }
        return line, asked_to_stop

    def _forward(self, micro: MicroBatch, *, normaliser: float, encoded: torch.Tensor | None = None) -> LossParts:
        inputs, targets, weights = map(torch.from_numpy, (micro.inputs, micro.targets, micro.weights))
        inputs = inputs.to(self.device, non_blocking=True)
        features = None
        if not self.recipe.freeze_encoder:
            features = stacked(micro.features, device=self.device)
        elif encoded is None:
            encoded = self.encoded(micro.ids, micro.features)
        parts: LossParts = self.model(features, inputs, targets, weights, normaliser=normaliser, encoded=encoded)
        return parts

    def _encode(self, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self.accelerator.autocast():
            return self.distiller.encode(features)

    def _clipped(self) -> float:
        """Clip the gradient; its norm before that."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _counted(self, micro_batches: list[MicroBatch]) -> tuple[dict[str, float], bool]:
        """What the whole step counts over all processes, and whether one of them was asked to stop."""
        own = [
            sum(float((micro.weights[:, None] * (micro.targets != IGNORED)).sum()) for micro in micro_batches),
            float(sum(micro.tokens for micro in micro_batches)),
            float(sum(len(micro.ids) for micro in micro_batches)),
            sum(micro.seconds for micro in micro_batches),
            float(self.stop.asked),
        ]
        weight, tokens, rows, seconds, stop = self._sum(torch.tensor(own, dtype=torch.float64)).tolist()
        return {"weight": weight, "tokens": tokens, "rows": rows, "seconds": seconds}, stop > 0

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up over processes."""
        if self.processes == 1:
            return values
        summed: torch.Tensor = self.accelerator.reduce(values.to(self.device), "sum").cpu()
        return summed

    def _nothing(self) -> MicroBatch:
        """A micro-batch that weighs nothing, for a process whose rows were all left out."""
        vocabulary = self.models.vocabulary
        return MicroBatch(
            ids=("nothing",),
            features=(np.zeros((self.models.mels, FRAMES), dtype=np.float32),),
            inputs=np.array([[vocabulary.sot, vocabulary.transcribe]]),
            targets=np.array([[IGNORED, vocabulary.eot]]),
            weights=np.zeros(1, dtype=np.float32),
            seconds=0.0,
        )

    def _diverged(self, step: int, rows: list[str]) -> TrainingDiverged:
        everywhere = sorted(set(gather_object(rows)) if self.processes > 1 else rows)
        kept = [path.name for path in self.checkpoints.all()]
        more = f" and {len(everywhere) - SHOWN} more" if len(everywhere) > SHOWN else ""
        return TrainingDiverged(
            f"the loss of step {step} is no number; rows in the batch: {', '.join(everywhere[:SHOWN])}{more}",
            hint=f"last good checkpoint: {kept[-1] if kept else 'none yet'}; try a lower learning_rate or float32",
            step=step,
            rows=everywhere,
        )

    def _nothing_learned(self) -> NoTrainingData:
        why = ", ".join(f"{reason} {count}" for reason, count in self.data.skipped.most_common())
        return NoTrainingData(
            f"no row of dataset {self.data.manifest.name!r} can be learned from: {why or 'all are held out'}",
            hint="look at its texts (`k2d export`), or freeze another",
        )

    # ---- what is kept and said -------------------------------------------------------------------------------------

    def _validate(self, items: Sequence[Item]) -> None:
        """Transcribe on the first process while the others wait; keep the best student."""
        student = self.keeper.student(self.model)
        if self.main and items:
            frozen = self.recipe.freeze_encoder
            decoder = student.model.decoder.to(self.device)
            own = student.model.encoder if frozen else student.model.encoder.to(self.device)
            with self.accelerator.autocast():
                result = validate(
                    items,
                    encode=self._encode if frozen else lambda features: own(features).last_hidden_state,
                    decoder=decoder,
                    language=self.recipe.language,
                    vocabulary=self.models.vocabulary,
                    device=self.device,
                )
            step = self.position.step
            self.recorder.validation({"step": step, "mer": result.mer, "rows": result.rows})
            if self.position.best_mer is None or result.mer < self.position.best_mer:
                self.position = replace(self.position, best_mer=result.mer, best_step=step)
        improved = self._sum(torch.tensor([float(self.position.best_step == self.position.step)]))
        if improved.item() > 0:
            self.keeper.save(self.model, BEST)

    def _estimate(self) -> Estimate:
        """Time one micro-batch; nothing is learned from it."""
        recipe, micro = self.recipe, self._first()

        def learn() -> tuple[float, float]:
            started = time.perf_counter()
            heard = self.encoded(micro.ids, micro.features) if recipe.freeze_encoder else None
            synchronise(self.device)
            encoded = time.perf_counter()
            parts = self._forward(micro, normaliser=max(1.0, float(micro.tokens)), encoded=heard)
            self.accelerator.backward(parts.loss)
            self.optimizer.zero_grad(set_to_none=True)
            synchronise(self.device)
            return encoded - started, time.perf_counter() - encoded

        flops = chunk_flops(
            self.models.teacher.config,
            self.models.student.config,
            tokens=micro.inputs.shape[1],
            frozen_encoder=recipe.freeze_encoder,
        )
        estimate = measure(
            learn,
            parameters=self.sizes,
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

    def _first(self) -> MicroBatch:
        """A micro-batch to measure with: the first one of this process that is not empty."""
        stream = self.data.steps(0)
        try:
            found = next((step for step in islice(stream, LOOK_AHEAD) if step), None)
        finally:
            stream.close()
        return found[0] if found else self._nothing()

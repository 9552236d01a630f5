"""One optimiser step: forward, backward, clip, update. Read it from top to bottom.

A step's batch is cut into micro-batches over processes and time. Gradients add up over micro-batches and are averaged
over processes, and every loss is divided by the weighted number of targets of the whole batch, so how the batch is cut
changes rounding only. Shapes: B rows of one micro-batch, T positions.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from accelerate.utils import gather_object

from k2d.whisper.features import FRAMES
from trainer.data.batch import IGNORED, MicroBatch
from trainer.data.encoder_cache import EncoderCache, stack_features
from trainer.errors import TrainingDiverged
from trainer.model import student as students
from trainer.model.distiller import Distiller, LossParts
from trainer.model.setup import TeacherAndStudent, adamw_kernels
from trainer.options import Recipe
from trainer.run.checkpoints import Checkpoints

# AdamW's, as the paper's scripts have them (docs/method.md, section 4)
BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8
LEAST_WEIGHT: Final = 1e-9  # of a batch, so that one in which every row weighs nothing divides by something
MOST_NAMED: Final = 8  # rows in an error message


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step's line of the curve, and whether any process was asked to stop."""

    loss: float  # ce and kl weighted, means over the batch's targets
    ce: float
    kl: float  # with T²
    learning_rate: float
    gradient_norm: float  # before clipping
    rows: int  # after skipping, over all processes
    tokens: int  # targets
    audio_s: float
    stop: bool


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of a step, counted from 1: linear warm-up, then constant, or linear to 0 after the last step.

    learning_rate(Recipe(learning_rate=1e-4, warmup_steps=50), 25)  # 5e-5
    """
    if step <= recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    left = (recipe.steps - step + 1) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * max(0.0, left)


class TrainingStep:
    """Teacher, student and optimiser where they run, wrapped for the processes of the launch."""

    def __init__(self, models: TeacherAndStudent, recipe: Recipe, accelerator: Any, checkpoints: Checkpoints) -> None:
        self._models, self._recipe = models, recipe
        self._accelerator, self._checkpoints = accelerator, checkpoints
        self._device: torch.device = accelerator.device
        self._processes: int = accelerator.num_processes
        self._distiller = Distiller(models.teacher, models.student, recipe, models.vocabulary)
        self._distiller.train()
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        self._distiller.place(self._device, dtype=dtype, compiled=recipe.compile)
        trained = [p for p in self._distiller.parameters() if p.requires_grad]
        self.sizes = {
            "teacher": students.count_parameters(models.teacher).total,
            "student": students.count_parameters(models.student).total,
            "trained": sum(p.numel() for p in trained),
        }
        optimizer = torch.optim.AdamW(
            trained,
            lr=recipe.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            weight_decay=recipe.weight_decay,
            **adamw_kernels(self._device),
        )
        self.model, self.optimizer = accelerator.prepare(self._distiller, optimizer)
        self.encoder_cache = EncoderCache(self.encode, device=self._device, limit_gib=recipe.keep_encoded_gib)

    def run(self, number: int, micro_batches: list[MicroBatch], *, stop: bool) -> StepResult:
        """Make step `number`, counted from 1, with this process's micro-batches; every process calls this.

        Args:
            stop: whether this process was asked to stop; the result says whether any was.

        Raises:
            TrainingDiverged: the loss or the gradient is NaN or infinite. Weights are as before the step.
        """
        weight, tokens, rows, audio_s, stops = self._batch_totals(micro_batches, stop=stop)
        normaliser = max(weight, LEAST_WEIGHT)
        # every process takes part in the exchange of gradients, even one whose rows were all skipped
        work = micro_batches or [self.empty_micro_batch()]
        parts = []
        for index, micro in enumerate(work):
            last = index == len(work) - 1
            # gradients are exchanged once, after the last micro-batch
            with nullcontext() if last else self._accelerator.no_sync(self.model):
                # and averaged over processes, so each process divides by its share of the whole
                loss, ce, kl = self.forward(micro, normaliser=normaliser / self._processes)  # scalars
                self._accelerator.backward(loss)
            parts.append(torch.stack([ce, kl]))
        norm = self._clip_gradient()
        sums = torch.stack(parts).cpu().double()  # (micro-batches, 2); read here: each read waits for the device
        ce, kl = (self.sum_over_processes(sums.sum(dim=0)) / normaliser).tolist()
        loss = self._recipe.ce_weight * ce + self._recipe.kl_weight * kl
        if not math.isfinite(loss + norm):
            # the rows of micro-batches whose loss is not finite; all of them where only the gradient is not
            suspects = [micro for micro, its in zip(work, sums, strict=True) if not its.isfinite().all()]
            raise self._divergence(number, [row for micro in suspects or micro_batches for row in micro.ids])
        rate = learning_rate(self._recipe, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, ce, kl, rate, norm, round(rows), round(tokens), round(audio_s, 3), stops > 0)

    def forward(self, micro: MicroBatch, *, normaliser: float, encoded: torch.Tensor | None = None) -> LossParts:
        """The loss of one micro-batch; `encoded` (B, 1500, width) where the frozen encoder has run already."""
        # inputs and targets (B, T), weights (B,); the latter two stay on the CPU (`Distiller.forward`)
        inputs, targets, weights = map(torch.from_numpy, (micro.inputs, micro.targets, micro.weights))
        inputs = inputs.to(self._device, non_blocking=True)
        features = None
        if not self._recipe.freeze_encoder:
            features = stack_features(micro.features, device=self._device)  # (B, mels, 3000)
        elif encoded is None:
            encoded = self.encoder_cache(micro.ids, micro.features)  # (B, 1500, width)
        parts: LossParts = self.model(features, inputs, targets, weights, normaliser=normaliser, encoded=encoded)
        return parts

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The frozen encoder's output (B, 1500, width) for features (B, mels, 3000)."""
        with torch.no_grad(), self._accelerator.autocast():
            return self._distiller.encode(features)

    def measure(self, micro: MicroBatch) -> tuple[float, float]:
        """Seconds that one micro-batch takes in the encoder, and in the decoders forward and backward.

        Nothing is learned from it.
        """
        started = time.perf_counter()
        encoded = self.encoder_cache(micro.ids, micro.features) if self._recipe.freeze_encoder else None
        self._wait_for_device()
        encoded_at = time.perf_counter()
        parts = self.forward(micro, normaliser=max(1.0, float(micro.tokens)), encoded=encoded)
        self._accelerator.backward(parts.loss)
        self.optimizer.zero_grad(set_to_none=True)
        self._wait_for_device()
        return encoded_at - started, time.perf_counter() - encoded_at

    def empty_micro_batch(self) -> MicroBatch:
        """A micro-batch of one row of weight 0, for a process whose rows were all skipped."""
        vocabulary = self._models.vocabulary
        return MicroBatch(
            ids=("nothing",),
            features=(np.zeros((self._models.mels, FRAMES), dtype=np.float32),),
            inputs=np.array([[vocabulary.sot, vocabulary.transcribe]]),
            targets=np.array([[IGNORED, vocabulary.eot]]),
            weights=np.zeros(1, dtype=np.float32),
            seconds=0.0,
        )

    def sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of every process's values, on the CPU."""
        if self._processes == 1:
            return values
        summed: torch.Tensor = self._accelerator.reduce(values.to(self._device), "sum").cpu()
        return summed

    def _batch_totals(self, micro_batches: list[MicroBatch], *, stop: bool) -> list[float]:
        """Over all processes: weighted targets, targets, rows, seconds of audio, processes that were asked to stop."""
        own = [
            sum(float((micro.weights[:, None] * (micro.targets != IGNORED)).sum()) for micro in micro_batches),
            float(sum(micro.tokens for micro in micro_batches)),
            float(sum(len(micro.ids) for micro in micro_batches)),
            sum(micro.seconds for micro in micro_batches),
            float(stop),
        ]
        totals: list[float] = self.sum_over_processes(torch.tensor(own, dtype=torch.float64)).tolist()
        return totals

    def _clip_gradient(self) -> float:
        """Clip the gradient to the recipe's norm; returns its norm before that."""
        norm = self._accelerator.clip_grad_norm_(self.model.parameters(), self._recipe.clip)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # sharded with FSDP

    def _divergence(self, number: int, own_rows: list[str]) -> TrainingDiverged:
        """The error, with the rows of all processes."""
        rows = sorted(set(gather_object(own_rows)) if self._processes > 1 else own_rows)
        more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
        kept = [path.name for path in self._checkpoints.all()]
        return TrainingDiverged(
            f"the loss of step {number} is not finite; rows in the batch: {', '.join(rows[:MOST_NAMED])}{more}",
            hint=f"last good checkpoint: {kept[-1] if kept else 'none yet'}; try a lower learning_rate or float32",
            step=number,
            rows=rows,
        )

    def _wait_for_device(self) -> None:
        """Wait until a GPU has done all its work, so that a clock means something."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

"""What a run will cost, measured before it starts: one micro-batch there and back, on this machine."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.model.flops import peak_of

FLOAT32 = 4  # bytes; weights, gradients and both of AdamW's moments are kept in it
STATES = 4  # of each trained parameter: itself, its gradient, two moments


@dataclass(frozen=True, slots=True)
class Estimate:
    """A forecast and what it rests on."""

    parameters: dict[str, int]  # teacher, student, trained
    weights_bytes: int  # teacher, and the student's trained parameters with gradients and moments
    peak_bytes: int  # measured, with everything in it
    encode_s: float  # one micro-batch through the encoder
    learn_s: float  # the same through the decoders, there and back
    step_s: float
    total_s: float
    chunks_per_s: float  # over all processes
    flops_per_chunk: float
    utilisation: float | None  # share of the devices' peak; None where that is unknown
    basis: str

    def lines(self) -> list[tuple[str, str]]:
        """For a person: what, and how much."""
        millions = {name: f"{count / 1e6:.1f} M" for name, count in self.parameters.items()}
        return [
            (
                "parameters",
                f"teacher {millions['teacher']}, student {millions['student']}, trained {millions['trained']}",
            ),
            (
                "memory",
                f"{self.weights_bytes / 1e9:.2f} GB of weights, gradients and moments; "
                f"{self.peak_bytes / 1e9:.2f} GB at peak, measured",
            ),
            ("a step", f"{self.step_s:.2f} s, {self.chunks_per_s:.2f} chunks/s"),
            ("in all", _duration(self.total_s)),
            (
                "arithmetic",
                f"{self.flops_per_chunk / 1e12:.3f} TFLOP a chunk, "
                f"{self.flops_per_chunk * self.chunks_per_s / 1e12:.2f} TFLOP/s"
                + (f", {self.utilisation:.0%} of the peak" if self.utilisation is not None else ""),
            ),
            ("basis", self.basis),
        ]


def measure(
    learn: Callable[[], tuple[float, float]],
    *,
    parameters: dict[str, int],
    rows: int,
    flops_per_chunk: float,
    steps: int,
    batch: int,
    world: int,
    dataset_rows: int,
    keeps_encoded: bool,
    device: torch.device,
) -> Estimate:
    """Time `learn` (one micro-batch of `rows`: seconds of encoder, seconds of the rest) and extrapolate."""
    cuda = device.type == "cuda"
    if cuda:
        learn()  # the first pass chooses kernels
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    encode_s, learn_s = learn()
    spent = time.perf_counter() - started
    a_step = batch / world / rows  # micro-batches of this size
    step_s = a_step * (learn_s if keeps_encoded else encode_s + learn_s)
    once = dataset_rows / rows / world * encode_s if keeps_encoded else 0.0
    peak = torch.cuda.max_memory_allocated(device) if cuda else _resident()
    chunks_per_s = batch / step_s
    ceiling = peak_of(torch.cuda.get_device_name(device)) if cuda else None
    basis = (
        f"one micro-batch of {rows} rows on {world} process(es), {spent:.1f} s; validation and checkpoints not counted"
    )
    if keeps_encoded:
        basis += f"; the encoder once for each of {dataset_rows} rows, then from memory"
    return Estimate(
        parameters=parameters,
        weights_bytes=FLOAT32 * (parameters["teacher"] + STATES * parameters["trained"]),
        peak_bytes=peak,
        encode_s=encode_s,
        learn_s=learn_s,
        step_s=step_s,
        total_s=steps * step_s + once,
        chunks_per_s=chunks_per_s,
        flops_per_chunk=flops_per_chunk,
        utilisation=flops_per_chunk * chunks_per_s / (world * ceiling) if ceiling else None,
        basis=basis,
    )


def synchronise(device: Any) -> None:
    """Wait for a GPU to be done, so that a clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

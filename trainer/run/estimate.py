"""What a run will cost, measured before it starts: one micro-batch forward and backward, on this machine."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from k2d.wording import counted
from trainer.model.flops import peak_of

FLOAT32: Final = 4  # bytes; weights, gradients and both of AdamW's moments are kept in it
STATES: Final = 4  # of each trained parameter: itself, its gradient, two moments


@dataclass(frozen=True, slots=True)
class Estimate:
    """A forecast and what it is based on."""

    parameters: dict[str, int]  # teacher, student, trained
    weights_bytes: int  # the teacher, and the student's trained parameters with gradients and moments
    peak_bytes: int  # measured, activations included
    encode_s: float  # one micro-batch through the encoder
    learn_s: float  # the same through the decoders, forward and backward
    step_s: float
    total_s: float
    epochs: float  # how often each row is learned from
    chunks_per_s: float  # over all processes
    flops_per_chunk: float
    utilisation: float | None  # share of the devices' peak; None where that is unknown
    basis: str

    def lines(self) -> list[tuple[str, str]]:
        """For a person: name and value."""
        millions = {name: f"{count / 1e6:.1f} M" for name, count in self.parameters.items()}
        of_peak = f", {self.utilisation:.0%} of the peak" if self.utilisation is not None else ""
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
            ("in all", f"{_duration(self.total_s)}; each row {self.epochs:.3g} times (epochs)"),
            (
                "arithmetic",
                f"{self.flops_per_chunk / 1e12:.3f} TFLOP a chunk, "
                f"{self.flops_per_chunk * self.chunks_per_s / 1e12:.2f} TFLOP/s{of_peak}",
            ),
            ("basis", self.basis),
        ]


def measure(
    learn: Callable[[], tuple[float, float]],
    *,
    longest: Callable[[], object],
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
    """Time one micro-batch and extrapolate to the run.

    Args:
        learn: runs a micro-batch of `rows`; returns seconds of the encoder, and of the decoders.
        longest: runs the longest micro-batch of a step, whose memory counts on a GPU.
        batch: rows a step, over `world` processes.
        dataset_rows: of the dataset.
        keeps_encoded: each of `dataset_rows` is encoded once and then read from memory.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        longest()
        learn()  # its first pass chooses kernels
    started = time.perf_counter()
    encode_s, learn_s = learn()
    spent_s = time.perf_counter() - started
    micro_batches = batch / world / rows  # that each process makes in a step; a share of one for a smaller one
    step_s = micro_batches * (learn_s if keeps_encoded else encode_s + learn_s)
    encode_once_s = dataset_rows / rows / world * encode_s if keeps_encoded else 0.0
    peak_bytes = torch.cuda.max_memory_allocated(device) if cuda else _resident_bytes()
    chunks_per_s = batch / step_s
    peak_flops = peak_of(torch.cuda.get_device_name(device)) if cuda else None
    basis = (
        f"one micro-batch of {counted(rows, 'row')} on {counted(world, 'process', 'processes')}, {spent_s:.1f} s; "
        "validation and checkpoints not counted"
    )
    if keeps_encoded:
        basis += f"; the encoder once for each of {counted(dataset_rows, 'row')}, then from memory"
    return Estimate(
        parameters=parameters,
        weights_bytes=FLOAT32 * (parameters["teacher"] + STATES * parameters["trained"]),
        peak_bytes=peak_bytes,
        encode_s=encode_s,
        learn_s=learn_s,
        step_s=step_s,
        total_s=steps * step_s + encode_once_s,
        epochs=steps * batch / dataset_rows,
        chunks_per_s=chunks_per_s,
        flops_per_chunk=flops_per_chunk,
        utilisation=flops_per_chunk * chunks_per_s / (world * peak_flops) if peak_flops else None,
        basis=basis,
    )


def _resident_bytes() -> int:
    """The most memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    """Seconds up to two minutes, minutes up to two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

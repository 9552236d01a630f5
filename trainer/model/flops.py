"""How many floating-point operations a chunk costs: those of the matrix products, a multiply-add counted as two."""

from dataclasses import dataclass
from typing import Any, Final

# dense bf16 peak in FLOP/s, from NVIDIA's data sheets (SXM), by what torch calls the device
PEAKS: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
BACKWARD: Final = 2  # a backward pass costs twice its forward pass: gradients of inputs and of weights


@dataclass(frozen=True, slots=True)
class ChunkFlops:
    """Operations for one 30 s chunk in one training step."""

    encoder: float  # once, for teacher and student
    teacher: float  # its decoder, forward
    student: float  # its decoder, forward and backward; and its encoder, if that is trained

    @property
    def total(self) -> float:
        return self.encoder + self.teacher + self.student


def chunk_flops(teacher: Any, student: Any, *, tokens: int, frozen_encoder: bool = True) -> ChunkFlops:
    """Operations for one chunk of `tokens` decoder positions; `teacher` and `student` are Whisper configurations.

    chunk_flops(teacher.config, student.config, tokens=150).total  # about 3e12 for large-v2
    """
    trained = 0.0 if frozen_encoder else encoder_flops(student) * (1 + BACKWARD)
    return ChunkFlops(
        encoder=encoder_flops(teacher),
        teacher=decoder_flops(teacher, tokens=tokens),
        student=decoder_flops(student, tokens=tokens) * (1 + BACKWARD) + trained,
    )


def encoder_flops(config: Any) -> float:
    """The encoder over 30 s, forward."""
    frames, width, inner = config.max_source_positions, config.d_model, config.encoder_ffn_dim
    kernel = 3  # of both convolutions; the first runs at twice the frames
    convolutions = 2 * kernel * width * (2 * frames * config.num_mel_bins + frames * width)
    # per layer: query, key, value and output projections, two of the inner layer; then attention's two products
    layer = 2 * frames * (4 * width**2 + 2 * width * inner) + 4 * frames**2 * width
    return float(convolutions + config.encoder_layers * layer)


def decoder_flops(config: Any, *, tokens: int) -> float:
    """The decoder over `tokens` positions at once, forward, with its output over the vocabulary."""
    frames, width, inner = config.max_source_positions, config.d_model, config.decoder_ffn_dim
    own = 2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens**2 * width
    cross = 2 * (2 * frames + 2 * tokens) * width**2 + 4 * tokens * frames * width
    return float(config.decoder_layers * (own + cross) + 2 * tokens * width * config.vocab_size)


def peak_of(device_name: str) -> float | None:
    """A device's dense bf16 peak in FLOP/s, where it is known."""
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)

"""What a run starts with: processes and precision; teacher, student and vocabulary."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

from k2d.errors import BadRequest
from k2d.settings import Settings
from k2d.whisper.resolve import ResolvedModel, resolve
from k2d.whisper.vocabulary import Vocabulary
from trainer.model import student as students
from trainer.options import Recipe

PATIENCE: Final = timedelta(hours=2)  # how long processes wait for the first one while it validates


@dataclass(slots=True, eq=False)
class TeacherAndStudent:
    """Teacher and student in float32 on the CPU, with what belongs to them."""

    resolved: ResolvedModel  # the teacher's folder
    vocabulary: Vocabulary
    teacher: Any
    student: Any
    layers: students.LayerMap | None  # None: the recipe names a student that exists already

    @property
    def mels(self) -> int:
        return int(self.teacher.config.num_mel_bins)


def open_models(recipe: Recipe, settings: Settings) -> TeacherAndStudent:
    """Load the teacher; cut the student from it, or load the one that the recipe names.

    Raises:
        ModelError: one of them cannot be found or loaded.
        BadRequest: the two do not go together, or more layers are asked for than there are.
    """
    resolved = _resolve(recipe.teacher, settings)
    teacher = students.load_teacher(resolved.path)
    size: dict[str, Any] = {"decoder_layers": recipe.decoder_layers, "encoder_layers": recipe.encoder_layers}
    if recipe.student is None:
        layers = students.layer_map(teacher.config, **size)
        student = students.cut_student(teacher, **size)
    else:
        layers = None
        student = students.load_teacher(_resolve(recipe.student, settings).path)
        _check_pair(teacher, student)
    return TeacherAndStudent(resolved, Vocabulary(resolved.path / "tokenizer.json"), teacher, student, layers)


def open_accelerator(recipe: Recipe) -> tuple[Any, str]:
    """An `Accelerator` with processes, device and precision as launched; and which precision it is, and why."""
    cuda = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and cuda)
    why = "as set" if recipe.precision != "auto" else "CUDA supports it" if cuda else "no CUDA with bf16"
    accelerator = Accelerator(
        # without this, a process that torchrun started without a GPU takes itself for the only one
        cpu=not torch.cuda.is_available() and "LOCAL_RANK" in os.environ,
        mixed_precision="bf16" if bf16 else "no",
        fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2) if recipe.sharding == "fsdp" else None,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    return accelerator, f"precision {'bf16' if bf16 else 'float32'} ({why})"


def adamw_kernels(device: torch.device) -> dict[str, bool]:
    """How AdamW steps: in one fused kernel on a GPU; on a CPU one tensor at a time, which needs less memory."""
    return {"fused": True} if device.type == "cuda" else {"foreach": False}


def _resolve(reference: str, settings: Settings) -> ResolvedModel:
    return resolve(reference, engine="transformers", cache=settings.cache, allow_downloads=settings.allow_downloads)


def _check_pair(teacher: Any, student: Any) -> None:
    students.check_vocabulary(teacher, student)
    if student.config.num_mel_bins != teacher.config.num_mel_bins:
        raise BadRequest(
            f"the student takes {student.config.num_mel_bins} mel bands, the teacher {teacher.config.num_mel_bins}",
            hint="take a student that was cut from a teacher of this kind",
        )

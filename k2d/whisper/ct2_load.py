"""Loads a CTranslate2 Whisper with the mixed zh/en row, and chooses its device and precision."""

import io
import json
import mmap
import os
from pathlib import Path
from typing import Any, Final

import ctranslate2

from k2d.errors import ModelError
from k2d.whisper import ct2_file, prompts
from k2d.whisper.engine import PRECISION_HINT
from k2d.whisper.vocabulary import Vocabulary

# what CTranslate2 reads beside the weights
SIDE_FILES: Final = ("config.json", "vocabulary.json", "vocabulary.txt", "preprocessor_config.json")


def choose_device(setting: str) -> tuple[str, str]:
    """The device for a setting ("auto", "cpu" or "cuda"), and why."""
    if setting != "auto":
        return setting, "as set"
    devices = ctranslate2.get_cuda_device_count()
    return ("cuda", f"{devices} found") if devices else ("cpu", "no CUDA device")


def choose_compute_type(setting: str, device: str) -> tuple[str, str]:
    """The precision for a setting ("auto" or one that CTranslate2 knows) on a device, and why."""
    if setting != "auto":
        return setting, "as set"
    return (
        ("float16", "usual on CUDA") if device == "cuda" else ("int8", "fastest on a CPU, and reproducible bit for bit")
    )


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(folder: Path, *, vocabulary: Vocabulary, device: str, compute_type: str, threads: int) -> Any:
    """Load the model with the mixed row added (not to an English-only one), through memory; the folder is not changed.

    Raises:
        ModelError: the files are damaged, or the precision or device is not available.
    """
    file = folder / "model.bin"
    sources = tuple(vocabulary.languages[code] for code in prompts.MIXED_CODES)
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            try:
                weights = (
                    ct2_file.with_mixed_row(view, file=file, sources=sources, target=vocabulary.sot_lm)
                    if vocabulary.is_multilingual
                    else io.BytesIO(view)
                )
            finally:
                view.release()
        files = {name: (folder / name).read_bytes() for name in SIDE_FILES if (folder / name).is_file()}
        files["config.json"] = _config(files.get("config.json", b"{}"))
        model = ctranslate2.models.Whisper(
            str(folder),
            device=device,
            compute_type=compute_type,
            intra_threads=threads,
            files={"model.bin": weights, **files},
        )
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}", hint=PRECISION_HINT) from error
    if model.is_multilingual != vocabulary.is_multilingual:
        raise ModelError(f"{folder} has the tokenizer of another model", hint="fetch the model again")
    return model


def _config(text: bytes) -> bytes:
    """The model's configuration with an alignment head that exists in every model.

    `score` uses CTranslate2's `align` without its alignment. It refuses models without alignment heads, and with heads
    in layers that a distilled model no longer has it writes out of bounds.
    """
    return json.dumps(json.loads(text) | {"alignment_heads": [[0, 0]]}).encode()

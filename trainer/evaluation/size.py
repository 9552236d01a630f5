"""How large a model is, read from its files without loading it."""

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2d.errors import ModelError
from k2d.inference.address import is_address, plain
from k2d.settings import Settings
from k2d.whisper import ct2_file
from k2d.whisper.resolve import CT2_WEIGHTS, resolve, weight_files

SCALE: Final = "_scale"  # ending of a quantised tensor's scale, which is not a parameter of the model


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Of the files that the engine loads."""

    parameters: int
    disk_mb: float  # megabytes (10^6)


def size_of(reference: str, settings: Settings) -> ModelSize | None:
    """Count a model's parameters and bytes, in the form the engine loads; None for one behind a server.

        size_of("packaged:whisper-base", load())  # ModelSize(parameters=72593920, disk_mb=145.2)

    Raises:
        ModelError: it cannot be found, or its file is damaged.
    """
    if is_address(reference):
        return None
    resolved = resolve(
        plain(reference), engine=settings.engine, cache=settings.cache, allow_downloads=settings.allow_downloads
    )
    files = weight_files(resolved.path)
    return ModelSize(sum(map(_parameters, files)), sum(file.stat().st_size for file in files) / 1e6)


def _parameters(file: Path) -> int:
    if file.name == CT2_WEIGHTS:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            buffer = memoryview(data)
            try:
                tensors = ct2_file.tensors(buffer, file=file).values()
            finally:
                buffer.release()
        return sum(math.prod(tensor.shape) for tensor in tensors if tensor.shape and not tensor.name.endswith(SCALE))
    try:
        with file.open("rb") as handle:  # safetensors: length of the header, then the header as JSON
            header = json.loads(handle.read(struct.unpack("<Q", handle.read(8))[0]))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is damaged: {error}", hint="fetch or convert the model again") from error

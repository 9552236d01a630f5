"""Loads a model into memory with one of the engines.

To add an engine: add its name to `k2d.schema.EngineName`, an entry to ENGINES, and a module with the class.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from k2d.errors import ModelError, install_hint
from k2d.schema import EngineName
from k2d.whisper.engine import Engine
from k2d.whisper.resolve import ResolvedModel, resolve


class EngineClass(Protocol):
    """The constructor of an engine."""

    def __call__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> Engine: ...


@dataclass(frozen=True, slots=True)
class EngineKind:
    """Where an engine's class is, and which packages its module needs."""

    module: str
    class_name: str
    packages: tuple[str, ...]
    extra: str  # the extra of k2d that installs them


ENGINES: Final[Mapping[EngineName, EngineKind]] = {
    EngineName.CTRANSLATE2: EngineKind(
        "k2d.whisper.ct2_engine", "CTranslate2Engine", ("ctranslate2", "tokenizers"), extra="ct2"
    ),
    EngineName.TRANSFORMERS: EngineKind(
        "k2d.whisper.torch_engine", "TransformersEngine", ("tokenizers", "torch", "transformers"), extra="torch"
    ),
}


def open_engine(
    reference: str,
    *,
    engine: str,
    device: str,
    compute_type: str,
    threads: int,
    cache: Path,
    allow_downloads: bool,
) -> Engine:
    """Find, fetch or convert the model that `reference` names, and load it.

        engine = open_engine(
            "packaged:whisper-base", engine="ctranslate2", device="cpu", compute_type="int8", threads=0,
            cache=Path("~/.cache/k2d").expanduser(), allow_downloads=True,
        )
        [result] = engine.transcribe([Window(samples)], DecodeOptions())  # samples: int16, 16 kHz, shape (n,), ≤ 30 s

    Args:
        reference: as for `k2d.whisper.resolve.resolve`.
        engine: "ctranslate2" or "transformers".
        device: "auto", "cpu" or "cuda".
        compute_type: "auto", or a precision the engine supports ("int8", "float16", "bfloat16", "float32" …).
        threads: CPU threads; 0 means all cores.
        cache: folder for downloaded and converted models.
        allow_downloads: whether a missing model may be downloaded.

    Raises:
        ModelError: the model cannot be found, fetched, verified or loaded, or the engine's extra is not installed.
    """
    make = _engine_class(engine)
    resolved = resolve(reference, engine=engine, cache=cache, allow_downloads=allow_downloads)
    return make(resolved, device=device, compute_type=compute_type, threads=threads)


def _engine_class(engine: str) -> EngineClass:
    if engine not in ENGINES:
        raise ModelError(f"unknown engine {engine!r}", hint=f"engines are: {', '.join(ENGINES)}")
    kind = ENGINES[EngineName(engine)]
    try:
        for package in kind.packages:
            importlib.import_module(package)
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed", hint=install_hint(kind.extra)) from error
    engine_class: EngineClass = getattr(importlib.import_module(kind.module), kind.class_name)
    return engine_class

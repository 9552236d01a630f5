"""Loads a model into memory with the engine that the settings name.

To add an engine: its name in `k2d.schema.EngineName`, its entry in ENGINES, and a module with the class.
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
    """How an engine is made of a resolved model."""

    def __call__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> Engine: ...


@dataclass(frozen=True, slots=True)
class EngineKind:
    """Where an engine's class is, and what must be installed before its module can be imported."""

    module: str
    class_name: str
    packages: tuple[str, ...]
    extra: str  # of k2d, that installs them


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
    """Find, fetch or convert the model `reference` names, and load it.

        open_engine("packaged:whisper-base", engine="ctranslate2", device="cpu", compute_type="int8", threads=0,
                    cache=Path("~/.cache/k2d").expanduser(), allow_downloads=True)

    Args:
        engine: "ctranslate2" or "transformers".
        device: "auto", "cpu" or "cuda".
        compute_type: "auto" or a precision the engine knows.
        threads: CPU threads; 0: all cores.

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
    found: EngineClass = getattr(importlib.import_module(kind.module), kind.class_name)
    return found

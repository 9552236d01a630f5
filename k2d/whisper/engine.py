"""The protocol of an engine: weights in memory that turn windows into text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

ANOTHER_KIND: Final = "K2D_COMPUTE_TYPE and K2D_DEVICE choose how the model runs"  # the hint when a device refuses it
Encoding = npt.NDArray[np.float16]  # what an encoder makes of audio: one row for each 20 ms


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


@contextmanager
def model_errors(reference: str, *, is_open: bool) -> Iterator[None]:
    """Turn what an engine's library raises into a ModelError.

    Raises:
        ModelError: the engine was closed; or the library raised RuntimeError, as CTranslate2 and torch do when memory
            runs out or a device is lost.
    """
    if not is_open:
        raise ModelError(f"{reference} was closed", hint="open it again")
    try:
        yield
    except RuntimeError as error:
        raise ModelError(f"{reference} failed while decoding: {error}", hint=ANOTHER_KIND) from error

"""The engine protocol, and the one place that picks an implementation."""

from collections.abc import Sequence
from typing import Protocol

from k2d.schema import DecodeOptions, ModelInfo, Window, WindowResult


class Engine(Protocol):
    """Weights in memory. Blocking; one call at a time. The result for a window depends on that window and the
    options alone: not on its neighbours in the batch, nor on what was decoded before."""

    @property
    def model(self) -> ModelInfo: ...

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        """Decode each window; results in the order of `windows`. Temperature fallback happens inside.

        Raises:
            BadRequest: an unknown language or task, more than 30 s of audio, a prompt token outside the vocabulary.
        """
        ...

    def close(self) -> None:
        """Free the weights."""
        ...

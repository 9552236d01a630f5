"""The protocols of a transcriber: the same for a model in this process and behind HTTP or Triton."""

from typing import Protocol

from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult


class Transcriber(Protocol):
    """A model that transcribes windows. Calls may run concurrently; the implementation batches them."""

    @property
    def model(self) -> ModelInfo: ...

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        """Decode one window of at most 30 s.

        Raises:
            BadRequest: the model cannot decode this window with these options.
            ModelError: the model failed, or cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Release the model; waiting calls fail with ModelError."""
        ...


class ScoringTranscriber(Transcriber, Protocol):
    """A transcriber that also computes forced log-probabilities, as validators need."""

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        """Compute the forced log-probabilities of `text` for the window, without decoding.

        Raises:
            BadRequest: as `transcribe`, or the text is longer than the context or contains a special token.
            ModelError: as `transcribe`.
        """
        ...

"""The protocol every inference client keeps: in process, HTTP or Triton, the caller sees no difference."""

from typing import Protocol

from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult


class Transcriber(Protocol):
    """A model somewhere. Calls may run concurrently; whoever is behind it batches them."""

    @property
    def model(self) -> ModelInfo: ...

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        """Decode one window of at most 30 s.

        Raises:
            BadRequest: the window or the options make no sense to this model.
            ModelError: the model failed, or cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Let go of the model; calls still waiting fail with ModelError."""
        ...


class ScoringTranscriber(Transcriber, Protocol):
    """A transcriber that also says how likely it finds a given text: what a validator needs."""

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        """How likely the model finds `text` for the window: teacher-forced, without decoding.

        Raises:
            BadRequest: as `transcribe`, or the text is longer than the context or spells a special token.
            ModelError: as `transcribe`.
        """
        ...

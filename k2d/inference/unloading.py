"""An engine whose weights may be put away while nobody needs them, and come back with the next call."""

from collections.abc import Callable, Sequence

import structlog

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper.engine import Encoding, Engine

log = structlog.get_logger()


class UnloadableEngine:
    """An Engine over one that `open_` loads. Checking windows needs no weights, so it goes on while they are away."""

    def __init__(self, open_: Callable[[], Engine]) -> None:
        self._open = open_
        self._engine = open_()
        self.loaded = True

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
        self._engine.check(window, options, text)

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        return self._awake().transcribe(windows, options)

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        return self._awake().score(windows, texts, options)

    def encode(self, windows: Sequence[Window]) -> Encoding:
        return self._awake().encode(windows)

    def unload(self) -> None:
        """Free the weights until the next call."""
        if self.loaded:
            self._engine.close()
            self.loaded = False
            log.info("weights put away", model=self.model.reference)

    def close(self) -> None:
        self._engine.close()
        self.loaded = False

    def _awake(self) -> Engine:
        """The engine with its weights.

        Raises:
            ModelError: they cannot be loaded any more, or are others than before.
        """
        if not self.loaded:
            engine = self._open()
            if engine.model.fingerprint != self.model.fingerprint:
                engine.close()
                raise ModelError(
                    f"{self.model.reference} has other weights than when this server started", hint="start it again"
                )
            self._engine = engine
            self.loaded = True
        return self._engine

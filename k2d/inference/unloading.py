"""An engine that unloads its weights when idle and loads them again at the next call."""

from collections.abc import Callable, Sequence

import structlog

from k2d.errors import ModelError
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper.engine import Encoding, Engine

log = structlog.get_logger()


class UnloadableEngine:
    """An Engine that can be unloaded; `open_` loads the engine it wraps. `check` works while it is unloaded.

    engine = UnloadableEngine(lambda: engine_of("packaged:whisper-base", settings))
    engine.unload()
    engine.transcribe([window], DecodeOptions())  # loads the weights again
    """

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
        return self._loaded_engine().transcribe(windows, options)

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        return self._loaded_engine().score(windows, texts, options)

    def encode(self, windows: Sequence[Window]) -> Encoding:
        return self._loaded_engine().encode(windows)

    def unload(self) -> None:
        """Free the weights until the next call."""
        if self.loaded:
            self._engine.close()
            self.loaded = False
            log.info("model unloaded", model=self.model.reference)

    def close(self) -> None:
        self._engine.close()
        self.loaded = False

    def _loaded_engine(self) -> Engine:
        """Return the engine; load it first if it is unloaded.

        Raises:
            ModelError: the weights cannot be loaded, or have changed since the start.
        """
        if not self.loaded:
            engine = self._open()
            if engine.model.fingerprint != self.model.fingerprint:
                engine.close()
                raise ModelError(
                    f"the weights of {self.model.reference} have changed since this server started", hint="restart it"
                )
            self._engine = engine
            self.loaded = True
        return self._engine

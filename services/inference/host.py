"""One model behind one server: it is being loaded, ready, or failed and why."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Final, cast

import structlog
from fastapi import Depends, Request

from k2d.errors import BadRequest, K2DError, ModelError
from k2d.inference import golden, wire
from k2d.inference.address import is_address, plain
from k2d.inference.batcher import MicroBatcher
from k2d.inference.open import engine_of
from k2d.inference.unloading import UnloadableEngine
from k2d.schema import ModelInfo
from k2d.settings import Settings
from k2d.validators import PERTURBED, served
from services.inference import batch_metrics
from services.inference.admission import Admission

log = structlog.get_logger()

TEACHER: Final = "teacher"
VALIDATOR: Final = "validator"
DRAIN_S: Final = 30  # after SIGTERM, what is in flight gets to finish


class NotReady(ModelError):
    """The weights are being loaded, or the server is stopping."""

    code = "not_ready"


def reference_for(role: str, settings: Settings) -> str:
    """The model that a server of this role serves.

        reference_for("teacher", load(teacher="local:openai/whisper-base"))  -> "openai/whisper-base"

    Raises:
        BadRequest: the setting names servers, or the fallback that needs no server.
    """
    name = f"K2D_{role.upper()}"
    reference = plain(settings.teacher if role == TEACHER else served(settings.validator))
    if is_address(reference):
        raise BadRequest(
            f"{name}={reference} is an address: a server needs a model",
            hint=f"for example {name}=openai/whisper-large-v2",
        )
    if reference == PERTURBED:
        raise BadRequest(
            f"{name}={PERTURBED} needs no server: it is the teacher's model on perturbed audio",
            hint=f"set {name} to a second model, or start no validator",
        )
    return reference


class Host:
    """Loads the model in the background, so that health checks are answered meanwhile.

    `on_failure` is called when it cannot be loaded, or fails to transcribe the golden clips: the process must then end.

        host = Host("teacher", load(), on_failure=stop)
        host.start()
        await host.batcher.transcribe(window, DecodeOptions())
    """

    def __init__(self, role: str, settings: Settings, on_failure: Callable[[], None]) -> None:
        self.role, self.settings = role, settings
        self.reference = reference_for(role, settings)
        self.admission = Admission(settings.max_waiting, retry_after_s=lambda: self.batcher.retry_after_s)
        self.golden = ""  # what the model transcribed of the golden clips
        self.failure: K2DError | None = None
        self._on_failure = on_failure
        self._engine: UnloadableEngine | None = None
        self._batcher: MicroBatcher | None = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def batcher(self) -> MicroBatcher:
        """The micro-batcher over the loaded model.

        Raises:
            NotReady: the model is not loaded, or could not be.
        """
        if self._batcher is None:
            if self.failure is not None:
                raise NotReady(f"{self.reference} cannot be served: {self.failure.message}", hint=self.failure.hint)
            raise NotReady(f"{self.reference} is being loaded", hint="ask again; /readyz says when", retry_after_s=2)
        return self._batcher

    @property
    def model(self) -> ModelInfo:
        return self.batcher.model

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory now."""
        return self._batcher is not None and self._engine is not None and self._engine.loaded

    @property
    def waiting(self) -> int:
        """Windows that wait for the engine."""
        return self._batcher.waiting if self._batcher is not None else 0

    def start(self) -> None:
        """Begin to load the model; returns at once."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Fail the windows that wait, let the engine's current batch end, free the weights."""
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading
        if self._batcher is not None:
            await self._batcher.close()

    async def _load(self) -> None:
        try:
            engine = await asyncio.to_thread(UnloadableEngine, lambda: engine_of(self.reference, self.settings))
            self.golden = await asyncio.to_thread(golden.check, engine, must_match=self.settings.golden == "on")
        except K2DError as error:
            self.failure = error
            log.error("model cannot be served", role=self.role, error=error.message, hint=error.hint)
            self._on_failure()
            return
        self._engine = engine
        self._batcher = MicroBatcher(
            engine,
            batch_size=self.settings.batch_size,
            linger_s=self.settings.linger_s,
            max_waiting=self.settings.max_waiting,
            observer=batch_metrics.BatchMetrics(),
            idle_s=self.settings.idle_unload_s,
            on_idle=engine.unload,
        )
        model = engine.model
        batch_metrics.MODEL.labels(model.reference, model.fingerprint, model.device).set(1)
        log.info("ready", role=self.role, model=model.reference, fingerprint=model.fingerprint, golden=self.golden)

    def describe(self) -> dict[str, object]:
        """The model, its fingerprint, and how this server runs it.

        Raises:
            NotReady: as `batcher`.
        """
        return wire.describe(self.model, batch_size=self.settings.batch_size, golden=self.golden)


def _host(request: Request) -> Host:
    return cast(Host, request.app.state.host)


InHost = Annotated[Host, Depends(_host)]

"""Opens the transcriber of a reference: a model in this process, or the servers that have it."""

import asyncio
from functools import partial

from k2d.errors import ModelError, install_hint
from k2d.inference.address import GRPC, is_address, plain, scheme, split
from k2d.inference.batcher import MicroBatcher
from k2d.inference.endpoint import Endpoint
from k2d.inference.model_cache import ModelCache
from k2d.inference.remote import connect
from k2d.inference.transcriber import ScoringTranscriber
from k2d.settings import Settings
from k2d.whisper.engine import Engine
from k2d.whisper.load import open_engine
from k2d.whisper.resolve import resolve


async def open_transcriber(
    reference: str, settings: Settings, *, english_only: bool = False, models: ModelCache | None = None
) -> ScoringTranscriber:
    """Load a model into this process, or connect to the servers that have it.

        transcriber = await open_transcriber("packaged:whisper-base", settings)  # or "http://gpu1:8080,http://gpu2:8080"
        result = await transcriber.transcribe(Window(samples), DecodeOptions())  # int16, 16 kHz, shape (n,), ≤ 30 s
        await transcriber.close()

    Args:
        reference: a model (see `k2d.whisper.resolve.resolve`), or an address of servers.
        english_only: whether an English-only Whisper will do.
        models: where a model in this process stays after `close`, and is taken from; None: it is loaded and closed.

    Raises:
        BadRequest: a malformed address.
        ModelError: the model cannot be found, fetched, verified or loaded; no server answers, or two have different
            models.
    """
    if is_address(reference):
        endpoints = [_endpoint(address, settings) for address in split(reference)]
        return await connect(endpoints, timeout_s=settings.server_timeout_s, patience_s=settings.server_patience_s)
    load = engine_of if models is None else partial(_kept_engine, models=models)
    engine = await asyncio.to_thread(load, plain(reference), settings, english_only=english_only)
    close = None if models is None else partial(models.give_back, engine)
    return MicroBatcher(engine, batch_size=settings.batch_size, linger_s=settings.linger_s, close_engine=close)


def engine_of(reference: str, settings: Settings, *, english_only: bool = False) -> Engine:
    """Load a model with engine, device and precision from the settings. Blocking.

    Raises:
        ModelError: as `k2d.whisper.load.open_engine`.
    """
    return open_engine(
        reference,
        engine=settings.engine,
        device=settings.device,
        compute_type=settings.compute_type,
        threads=settings.threads,
        cache=settings.cache,
        allow_downloads=settings.allow_downloads,
        english_only=english_only,
    )


def _kept_engine(reference: str, settings: Settings, *, english_only: bool, models: ModelCache) -> Engine:
    """The engine in memory, unless settings or files have changed since it was loaded; errors as `engine_of`."""
    resolved = resolve(
        reference, engine=settings.engine, cache=settings.cache, allow_downloads=settings.allow_downloads
    )
    return models.open(
        reference,
        key=(
            resolved.digest,
            settings.engine,
            settings.device,
            settings.compute_type,
            settings.threads,
            english_only,
        ),
        load=partial(engine_of, reference, settings, english_only=english_only),
    )


def _endpoint(address: str, settings: Settings) -> Endpoint:
    token = settings.api_token.get_secret_value() if settings.api_token else None
    if scheme(address) not in GRPC:
        # where Triton's stub loads an engine there is no httpx
        from k2d.inference.http_endpoint import HttpEndpoint

        return HttpEndpoint(address, token=token)
    try:
        from k2d.inference.triton_endpoint import TritonEndpoint
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed", hint=install_hint("grpc")) from error
    return TritonEndpoint(address, token=token)

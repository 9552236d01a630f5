"""From settings and a batch to the two transcribers its labels need."""

import asyncio

from k2d.inference.batcher import MicroBatcher
from k2d.inference.transcriber import Transcriber
from k2d.schema import Batch
from k2d.settings import Settings
from k2d.validation import PERTURBED, Validator
from k2d.whisper.engine import open_engine


async def open_transcriber(reference: str, settings: Settings) -> Transcriber:
    """Load a model into this process.

    Raises:
        ModelError: it cannot be found, fetched, verified or loaded.
    """
    engine = await asyncio.to_thread(
        open_engine,
        reference,
        engine=settings.engine,
        device=settings.device,
        compute_type=settings.compute_type,
        threads=settings.threads,
        cache=settings.cache,
        allow_downloads=settings.allow_downloads,
    )
    return MicroBatcher(engine, batch_size=settings.batch_size)


async def open_pair(settings: Settings, batch: Batch) -> tuple[Transcriber, Validator]:
    """Open the batch's teacher and validator; a perturbed validator shares the teacher's weights."""
    teacher = await open_transcriber(batch.teacher, settings)
    perturbed = batch.validator == PERTURBED
    second = teacher if perturbed else await open_transcriber(batch.validator, settings)
    return teacher, Validator(second, perturbed=perturbed, language=batch.options.decode.language)

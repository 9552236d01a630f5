"""An English-only Whisper (`….en`) as a validator: it judges only the English words of labels.

It transcribes every chunk whose label has an English word. What it makes of Mandarin speech means nothing, so the
evidence compares English words only (k2d.filtering.evidence.english), and the label's log-probability is computed only
where the label is in English throughout.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from k2d.filtering.evidence.english import english_share
from k2d.inference.golden import clips
from k2d.inference.open import open_transcriber
from k2d.inference.transcriber import ScoringTranscriber
from k2d.schema import ENGLISH_ONLY, Chunk, DecodeOptions, Hypothesis, ModelInfo, Samples, Window
from k2d.settings import Settings
from k2d.validators.model import ModelValidator
from k2d.validators.protocol import Validator, ValidatorContext
from k2d.whisper.prompts import ENGLISH

VERSION: Final = 1  # of which labels it validates; part of the key of its hypotheses


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Open an English-only Whisper by its name."""
    return EnglishValidator(await context.open_model(name, english_only=True))


async def describe(name: str, settings: Settings) -> str:
    """Load the model and transcribe the English golden clip; returns its text.

    Raises:
        ModelError: the model is not here, or cannot be loaded.
    """
    transcriber = await open_transcriber(
        name, settings.model_copy(update={"allow_downloads": False}), english_only=True
    )
    try:
        clip = next(clip for clip in clips() if clip.language == ENGLISH)
        result = await transcriber.transcribe(Window(clip.samples), EnglishValidator(transcriber).options)
    finally:
        await transcriber.close()
    return f"{name}: transcribes {result.text.strip()!r}"


@dataclass(frozen=True, slots=True)
class EnglishValidator:
    """Transcribes chunks whose label has an English word, on the unchanged audio."""

    transcriber: ScoringTranscriber

    @property
    def name(self) -> str:
        return f"{ENGLISH_ONLY}{self.model.reference}"

    @property
    def model(self) -> ModelInfo:
        return self.transcriber.model

    @property
    def options(self) -> DecodeOptions:
        return self._model.options

    @property
    def key(self) -> tuple[Any, ...]:
        return (ENGLISH_ONLY, VERSION, self._model.key)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        """Whether the label has an English word."""
        return english_share(chunk.text).some

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        throughout = await asyncio.to_thread(english_share, chunk.text)
        return (await self._model.hypothesis(chunk, Window(samples), name=self.name, scored=throughout.throughout),)

    @property
    def _model(self) -> ModelValidator:
        return ModelValidator(self.transcriber, ENGLISH)

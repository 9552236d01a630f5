"""Validators that are a Whisper model: a second model, or the teacher on perturbed audio."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from k2d.errors import BadRequest
from k2d.inference.transcriber import ScoringTranscriber
from k2d.schema import Chunk, DecodeOptions, Hypothesis, ModelInfo, Samples, TextScore, Window
from k2d.validators.names import PERTURBED
from k2d.validators.perturb import PERTURBATIONS, Perturbation, apply
from k2d.validators.protocol import AS_IS, Validator, ValidatorContext, greedy_options, mean_by_segment

# increase it when forced log-probabilities, or their means by segment, are computed differently
SCORE_VERSION: Final = 1


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Open the validator `perturbed` (the teacher on perturbed audio), or a second model by its name."""
    if name == PERTURBED:
        return ModelValidator(context.teacher, context.language, PERTURBATIONS, context.short_context)
    return ModelValidator(await context.open_model(name), context.language, short_context=context.short_context)


@dataclass(frozen=True, slots=True)
class ModelValidator:
    """Transcribes a chunk once for each perturbation, and computes the label's forced log-probabilities for each.

    Without perturbations it gets the audio unchanged; then the model must not be the teacher.
    """

    transcriber: ScoringTranscriber
    language: str
    perturbations: tuple[Perturbation, ...] = ()
    short_context: bool = False

    @property
    def name(self) -> str:
        return f"{'perturbed' if self.perturbations else 'model'}:{self.model.reference}"

    @property
    def model(self) -> ModelInfo:
        return self.transcriber.model

    @property
    def perturbation_names(self) -> tuple[str, ...]:
        return tuple(perturbation.name for perturbation in self.perturbations) or (AS_IS,)

    @property
    def options(self) -> DecodeOptions:
        return greedy_options(self.language, short_context=self.short_context)

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.model.fingerprint, self.perturbation_names, self.options, SCORE_VERSION)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        return True

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        windows = await asyncio.to_thread(self._windows, samples)
        perturbed = zip(self.perturbation_names, windows, strict=True)
        return tuple(
            await asyncio.gather(
                *(self.hypothesis(chunk, window, name=self.name, perturbation=how) for how, window in perturbed)
            )
        )

    async def hypothesis(
        self, chunk: Chunk, window: Window, *, name: str, perturbation: str = AS_IS, scored: bool = True
    ) -> Hypothesis:
        """Transcribe one window of a chunk, and compute the label's forced log-probabilities if `scored`.

        Args:
            name: of the validator that the hypothesis is recorded for.
        """
        result, score = await asyncio.gather(
            self.transcriber.transcribe(window, self.options), self._score(window, chunk.text if scored else "")
        )
        logprobs = score.logprobs if score else ()
        return Hypothesis(
            validator=name,
            perturbation=perturbation,
            text=result.text,
            avg_logprob=result.avg_logprob,
            forced_logprobs=mean_by_segment(logprobs, chunk.segments),
            expected_token_errors=mean_by_segment([1.0 - math.exp(value) for value in logprobs], chunk.segments),
        )

    async def _score(self, window: Window, text: str) -> TextScore | None:
        """The label's forced log-probabilities; None if the model refuses the text.

        The same window is decoded with the same options, so if the model refuses, it is because of the text: it is
        longer than the context (a loop), or contains a special token.
        """
        if not text:
            return None
        try:
            return await self.transcriber.score(window, text, self.options)
        except BadRequest:
            return None

    def _windows(self, samples: Samples) -> list[Window]:
        if not self.perturbations:
            return [Window(samples)]
        return [Window(apply(perturbation, samples)) for perturbation in self.perturbations]

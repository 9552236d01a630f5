"""Listeners that are a model: a second one, or the teacher's own weights on perturbed audio."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k2d.errors import BadRequest
from k2d.inference.transcriber import ScoringTranscriber
from k2d.schema import Chunk, DecodeOptions, ModelInfo, Opinion, Samples, TextScore, Window
from k2d.validators.perturb import View, apply
from k2d.validators.validator import AS_IS, by_segment

SCORE_VERSION = 1  # of how a score is asked for and shared out among segments


@dataclass(frozen=True, slots=True)
class ModelListener:
    """Writes down what it hears, once for each view, and scores the label there, teacher-forced.

    Without perturbations it hears the audio as it is: then the model must not be the teacher.
    """

    transcriber: ScoringTranscriber
    language: str
    perturbations: tuple[View, ...] = ()

    @property
    def name(self) -> str:
        return f"{'perturbed' if self.perturbations else 'model'}:{self.model.reference}"

    @property
    def model(self) -> ModelInfo:
        return self.transcriber.model

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(view.name for view in self.perturbations) or (AS_IS,)

    @property
    def options(self) -> DecodeOptions:
        """One greedy pass, no timestamps, no fallback: a validator that loops is a finding, not a fault to repair."""
        return DecodeOptions(
            language=self.language, temperatures=(0.0,), without_timestamps=True, no_speech_threshold=None
        )

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.model.fingerprint, self.views, self.options, SCORE_VERSION)

    def wants(self, chunk: Chunk, before: Sequence[Opinion]) -> bool:
        return True

    async def hear(
        self, chunk: Chunk, samples: Samples, before: Sequence[Opinion], *, recording_id: str
    ) -> tuple[Opinion, ...]:
        heard = await asyncio.to_thread(self._views, samples)
        views = zip(self.views, heard, strict=True)
        return tuple(await asyncio.gather(*(self._opinion(chunk, view, window) for view, window in views)))

    async def _opinion(self, chunk: Chunk, view: str, window: Window) -> Opinion:
        result, score = await asyncio.gather(
            self.transcriber.transcribe(window, self.options), self._score(window, chunk.text)
        )
        return Opinion(
            listener=self.name,
            view=view,
            text=result.text,
            avg_logprob=result.avg_logprob,
            scores=by_segment(score.logprobs, chunk.segments) if score else (),
            doubts=by_segment([1.0 - math.exp(one) for one in score.logprobs], chunk.segments) if score else (),
        )

    async def _score(self, window: Window, text: str) -> TextScore | None:
        """How likely the model finds the label; None where it cannot say.

        The same window under the same options is decoded beside it, so what is refused here is the text: longer than
        the context (a loop), or spelling a special token.
        """
        if not text:
            return None
        try:
            return await self.transcriber.score(window, text, self.options)
        except BadRequest:
            return None

    def _views(self, samples: Samples) -> list[Window]:
        if not self.perturbations:
            return [Window(samples)]
        return [Window(apply(view, samples)) for view in self.perturbations]

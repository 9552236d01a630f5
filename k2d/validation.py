"""The second opinion: a validator hears each chunk, cut to its label, and the two transcripts are compared."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k2d.distance import compare
from k2d.inference.transcriber import Transcriber
from k2d.perturb import VIEWS, View, apply
from k2d.schema import Chunk, ChunkFacts, DecodeOptions, Samples, Window

PERTURBED = "perturbed"  # the setting that asks for the fallback
AS_IS = "as is"


@dataclass(frozen=True, slots=True)
class Validator:
    """A transcriber that doubts. Without a second model it hears perturbed audio with the teacher's own weights.

    `name` says which of the two it is, in every record: "model:…" or "perturbed:…".
    """

    transcriber: Transcriber
    perturbed: bool
    language: str

    @property
    def name(self) -> str:
        return f"{'perturbed' if self.perturbed else 'model'}:{self.transcriber.model.reference}"

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(view.name for view in VIEWS) if self.perturbed else (AS_IS,)

    @property
    def options(self) -> DecodeOptions:
        """One greedy pass, no timestamps, no fallback: a validator that loops is a finding, not a fault to repair."""
        return DecodeOptions(
            language=self.language, temperatures=(0.0,), without_timestamps=True, no_speech_threshold=None
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """What of the validator goes into the key of its facts."""
        return (self.transcriber.model.fingerprint, self.views, self.options)

    async def doubt(self, chunk: Chunk, samples: Samples, *, facts_key: str, recording_id: str) -> ChunkFacts:
        """Transcribe the chunk's audio (shape (n,), exactly the label's span) in every view and compare."""
        heard = [samples] if not self.perturbed else await asyncio.to_thread(_perturb, VIEWS, samples)
        results = await asyncio.gather(*(self.transcriber.transcribe(Window(view), self.options) for view in heard))
        texts = tuple(result.text for result in results)
        return ChunkFacts(
            id=f"{facts_key}-{chunk.index:05d}",
            recording_id=recording_id,
            index=chunk.index,
            start_s=chunk.start_s,
            end_s=chunk.end_s,
            teacher_text=chunk.text,
            segments=chunk.segments,
            validator=self.name,
            views=self.views,
            validator_texts=texts,
            validator_avg_logprob=sum(result.avg_logprob for result in results) / len(results),
            distances=compare(chunk.text, texts),
        )


def _perturb(views: Sequence[View], samples: Samples) -> list[Samples]:
    return [apply(view, samples) for view in views]

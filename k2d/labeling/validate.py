"""The last stage of a recording's walk: each validator transcribes the chunks, then the evidence is computed.

Hypotheses are stored for each validator by itself, and facts follow from labels and hypotheses alone. So another
validator never makes the others transcribe anything again, and new evidence code costs no model time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from k2d import audio
from k2d.errors import StoreError
from k2d.filtering.evidence import ChunkEvidence, ChunkTexts, weigh_many
from k2d.keys import chunk_id
from k2d.schema import FACTS_VERSION, Chunk, ChunkFacts, Hypothesis, LongformOptions, ModelInfo, Recording
from k2d.store import Lake
from k2d.validators.protocol import Validator, Validators, hypotheses_key

RecordingHypotheses = Mapping[int, tuple[Hypothesis, ...]]  # one validator's on a recording, by the chunk's index


class Validation:
    """Runs a batch's validators over recordings, one after the other or many at once.

    `places` bounds the chunks whose audio is in memory for a validator, over all recordings in flight: what keeps a
    worker small.
    """

    def __init__(self, lake: Lake, validators: Validators, *, places: int) -> None:
        self.lake = lake
        self.validators = validators
        self._places = asyncio.Semaphore(places)

    async def run(
        self, recording: Recording, *, label_key: str, facts_key: str, options: LongformOptions, teacher: ModelInfo
    ) -> None:
        """Let each validator transcribe the recording's chunks, unless it has; then write the facts at `facts_key`.

        Raises:
            NotFound: there are no labels at `label_key`.
            ModelError, StoreError
        """
        before: list[RecordingHypotheses] = []
        keys = [hypotheses_key(label_key, validator) for validator in self.validators]
        for key, validator in zip(keys, self.validators, strict=True):
            if not await asyncio.to_thread(self.lake.hypotheses.has, key):
                await self._validate(recording, validator, before, label_key=label_key, key=key)
            before.append(await asyncio.to_thread(self.lake.hypotheses.read, key))
        meta = {
            "facts_key": facts_key,
            "label_key": label_key,
            "recording": recording,
            "teacher": teacher,
            "validator": self.validators.first.model,
            "validators": self.validators.name,
            "perturbations": list(self.validators.first.perturbation_names),
            "hypotheses": keys,
            "options": options,
            "version": FACTS_VERSION,
        }
        await asyncio.to_thread(self._write_facts, before, meta, options.decode.initial_prompt or "")

    async def _validate(
        self,
        recording: Recording,
        validator: Validator,
        before: Sequence[RecordingHypotheses],
        *,
        label_key: str,
        key: str,
    ) -> None:
        """Let one validator transcribe the chunks it wants, and store its hypotheses in order."""
        wanted = await asyncio.to_thread(self._wanted, label_key, validator, before)
        tasks: dict[int, asyncio.Task[tuple[Hypothesis, ...]]] = {}
        stored = self.lake.labels.read(label_key, audio=True, only=wanted)
        try:
            async with asyncio.TaskGroup() as group:
                while wanted and (row := await asyncio.to_thread(next, stored, None)) is not None:
                    await self._places.acquire()  # given back with the task: a shard that cannot be read costs none
                    task = group.create_task(self._validate_chunk(*row, validator, recording.id, before))
                    task.add_done_callback(lambda _: self._places.release())
                    tasks[row[0].index] = task
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the first fault stopped the others; one is enough to report
        rows = [(index, task.result()) for index, task in tasks.items()]
        meta = {
            "label_key": label_key,
            "recording_id": recording.id,
            "validator": validator.name,
            "validator_key": validator.key,
        }
        await asyncio.to_thread(self.lake.hypotheses.write, key, rows, meta)

    async def _validate_chunk(
        self,
        chunk: Chunk,
        flac: bytes | None,
        validator: Validator,
        recording_id: str,
        before: Sequence[RecordingHypotheses],
    ) -> tuple[Hypothesis, ...]:
        if flac is None:
            raise StoreError(f"label shard has no audio for chunk {chunk.index} of {recording_id}")
        samples = await asyncio.to_thread(audio.decode_flac, flac)
        return await validator.validate(chunk, samples, _of_chunk(chunk, before), recording_id=recording_id)

    def _wanted(self, label_key: str, validator: Validator, before: Sequence[RecordingHypotheses]) -> frozenset[int]:
        """The chunks that this validator validates."""
        chunks = (chunk for chunk, _ in self.lake.labels.read(label_key))
        return frozenset(chunk.index for chunk in chunks if validator.wants(chunk, _of_chunk(chunk, before)))

    def _write_facts(self, said: Sequence[RecordingHypotheses], meta: Mapping[str, Any], prompt: str) -> None:
        chunks = [chunk for chunk, _ in self.lake.labels.read(meta["label_key"])]
        hypotheses = [_of_chunk(chunk, said) for chunk in chunks]
        texts = [ChunkTexts(chunk.segments, own, prompt) for chunk, own in zip(chunks, hypotheses, strict=True)]
        named = {
            "facts_key": meta["facts_key"],
            "recording_id": meta["recording"].id,
            "validators": self.validators.name,
        }
        rows = (facts_of(*row, **named) for row in zip(chunks, hypotheses, weigh_many(texts), strict=True))
        self.lake.facts.write(meta["facts_key"], rows, meta)


def facts_of(
    chunk: Chunk,
    hypotheses: Sequence[Hypothesis],
    evidence: ChunkEvidence,
    *,
    facts_key: str,
    recording_id: str,
    validators: str,
) -> ChunkFacts:
    """The facts of a chunk: its label, the hypotheses of the validators (by their name), and what follows from both."""
    return ChunkFacts(
        id=chunk_id(facts_key, chunk.index),
        recording_id=recording_id,
        index=chunk.index,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        teacher_text=chunk.text,
        segments=chunk.segments,
        validators=validators,
        hypotheses=tuple(hypotheses),
        distances=evidence.distances,
        evidence=evidence.evidence,
        segment_evidence=evidence.segment_evidence,
    )


def _of_chunk(chunk: Chunk, of_validators: Sequence[RecordingHypotheses]) -> tuple[Hypothesis, ...]:
    """The hypotheses of one chunk, validator after validator."""
    return tuple(value for by_chunk in of_validators for value in by_chunk.get(chunk.index, ()))

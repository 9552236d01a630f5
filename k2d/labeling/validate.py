"""Validates a recording: each validator transcribes its chunks, then the facts are computed.

Hypotheses are stored for each validator, and facts depend only on labels and hypotheses. So adding a validator does not
run the others again, and new evidence code runs no model.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k2d import audio
from k2d.errors import StoreError
from k2d.filtering.evidence import ChunkEvidence, ChunkTexts, weigh_many
from k2d.keys import chunk_id, digest
from k2d.labeling.journal import Journal
from k2d.schema import FACTS_VERSION, Chunk, ChunkFacts, Hypothesis, LongformOptions, ModelInfo, Recording
from k2d.store import Lake
from k2d.store.hypotheses import hypothesis, hypothesis_row
from k2d.validators.protocol import Validator, Validators, hypotheses_key
from k2d.version import __version__

RecordingHypotheses = Mapping[int, tuple[Hypothesis, ...]]  # one validator's for a recording, by chunk index


class Validation:
    """Runs a batch's validators over recordings; calls may run concurrently.

    At most `max_chunks` chunks, over all recordings, have their audio in memory at once.
    """

    def __init__(self, lake: Lake, validators: Validators, *, max_chunks: int) -> None:
        self.lake = lake
        self.validators = validators
        self._chunk_slots = asyncio.Semaphore(max_chunks)

    async def run(
        self,
        recording: Recording,
        *,
        label_key: str,
        facts_key: str,
        options: LongformOptions,
        teacher: ModelInfo,
        on_share: Callable[[float, float], None] = lambda _share, _known: None,
    ) -> None:
        """Run each validator whose hypotheses are not stored yet, then write the facts at `facts_key`.

        `on_share` is called with the share of the work that is done, each validator counting the same, and with the
        share that was there already.

        Raises:
            NotFound: there are no labels at `label_key`.
            ModelError: a validator failed.
            StoreError: the lake cannot be read or written.
        """
        before: list[RecordingHypotheses] = []
        known = 0.0  # validators whose hypotheses were there already
        keys = [hypotheses_key(label_key, validator) for validator in self.validators]
        for place, (key, validator) in enumerate(zip(keys, self.validators, strict=True)):
            if await asyncio.to_thread(self.lake.hypotheses.has, key):
                known += 1
            else:

                def of_this(share: float, own: float, place: int = place, known: float = known) -> None:
                    on_share((place + share) / len(keys), (known + own) / len(keys))

                known += await self._validate(
                    recording, validator, before, label_key=label_key, key=key, rest=known == place, on_share=of_this
                )
            on_share((place + 1) / len(keys), known / len(keys))
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
            "k2d_version": __version__,
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
        rest: bool,
        on_share: Callable[[float, float], None],
    ) -> float:
        """Run one validator over the chunks it wants, and store its hypotheses in order; returns the share of its work
        that was there already.

        `rest`: all that the others do was there, so what this one does not want is no work of this run either.
        """
        wanted, chunks = await asyncio.to_thread(self._wanted, label_key, validator, before)
        tasks: dict[int, asyncio.Task[tuple[Hypothesis, ...]]] = {}
        done = known = 0
        counted = chunks if rest else len(wanted)  # whose share one of them has

        def known_share(number: int) -> float:
            return max(0.0, number / len(wanted) - (number - known) / counted)

        def finished(task: asyncio.Task[tuple[Hypothesis, ...]]) -> None:
            nonlocal done
            self._chunk_slots.release()
            if not task.cancelled() and task.exception() is None:
                done += 1
                on_share(done / len(wanted), known_share(done))

        async def hypotheses_of(chunk: Chunk, flac: bytes | None, journal: Journal) -> tuple[Hypothesis, ...]:
            nonlocal known
            question = digest("validate", chunk.index, chunk.start_s, chunk.end_s, chunk.text)
            answer = await journal.recall(
                question,
                lambda: self._validate_chunk(chunk, flac, validator, recording.id, before),
                write=lambda hypotheses: [hypothesis_row(value) for value in hypotheses],
                read=lambda rows: tuple(hypothesis(row) for row in rows),
            )
            known += journal.knows(question)
            return answer

        stored = self.lake.labels.read(label_key, audio=True, only=wanted)
        meta = {
            "label_key": label_key,
            "recording_id": recording.id,
            "validator": validator.name,
            "validator_key": validator.key,
        }
        async with Journal(self.lake.journals, key, recording_id=recording.id) as journal:
            try:
                async with asyncio.TaskGroup() as group:
                    while wanted and (row := await asyncio.to_thread(next, stored, None)) is not None:
                        await self._chunk_slots.acquire()  # which `finished` releases
                        task = group.create_task(hypotheses_of(*row, journal))
                        task.add_done_callback(finished)
                        tasks[row[0].index] = task
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from errors  # the first error stopped the other tasks
            rows = [(index, task.result()) for index, task in tasks.items()]
            await asyncio.to_thread(self.lake.hypotheses.write, key, rows, meta)
        return known_share(len(wanted)) if wanted else float(rest and chunks > 0)

    async def _validate_chunk(
        self,
        chunk: Chunk,
        flac: bytes | None,
        validator: Validator,
        recording_id: str,
        before: Sequence[RecordingHypotheses],
    ) -> tuple[Hypothesis, ...]:
        if flac is None:
            raise StoreError(
                f"the labels of {recording_id} have no audio for chunk {chunk.index}",
                hint="run `k2d forget` with this id, then `k2d resume`, which labels it again",
            )
        samples = await asyncio.to_thread(audio.decode_flac, flac)
        return await validator.validate(chunk, samples, _of_chunk(chunk, before), recording_id=recording_id)

    def _wanted(
        self, label_key: str, validator: Validator, before: Sequence[RecordingHypotheses]
    ) -> tuple[frozenset[int], int]:
        """The indices of the chunks that this validator wants, and how many chunks there are."""
        wanted = {
            chunk.index: validator.wants(chunk, _of_chunk(chunk, before))
            for chunk, _ in self.lake.labels.read(label_key)
        }
        return frozenset(index for index, is_wanted in wanted.items() if is_wanted), len(wanted)

    def _write_facts(self, by_validator: Sequence[RecordingHypotheses], meta: Mapping[str, Any], prompt: str) -> None:
        chunks = [chunk for chunk, _ in self.lake.labels.read(meta["label_key"])]
        hypotheses = [_of_chunk(chunk, by_validator) for chunk in chunks]
        texts = [ChunkTexts(chunk.segments, own, prompt) for chunk, own in zip(chunks, hypotheses, strict=True)]
        names = {
            "facts_key": meta["facts_key"],
            "recording_id": meta["recording"].id,
            "validators": self.validators.name,
        }
        rows = (facts_of(*row, **names) for row in zip(chunks, hypotheses, weigh_many(texts), strict=True))
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
    """The facts of a chunk: its label, the validators' hypotheses, and the evidence from both."""
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

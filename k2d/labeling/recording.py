"""Processes one recording: examine, label, validate, write the facts. A shard at a stage's key means the stage is done.

Used by the worker's job and by the embedded client; independent of Redis and HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, BinaryIO, Final, Self

import structlog

from k2d import audio, sources
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.corpus.time_left import work_done_s
from k2d.errors import AudioError
from k2d.filehash import FileHashes, file_status
from k2d.inference.longform import transcribe
from k2d.inference.transcriber import ScoringTranscriber
from k2d.keys import digest
from k2d.labeling import rescore
from k2d.labeling.hashed_reader import HashedReader, SourceChanged
from k2d.labeling.journal import Journal, JournaledTranscriber
from k2d.labeling.no_label import NoLabelMeter
from k2d.labeling.packer import Packer
from k2d.labeling.quota import HoursQuota
from k2d.labeling.rescore import Rescorer
from k2d.labeling.validate import Validation
from k2d.schema import (
    FACTS_VERSION,
    SAMPLE_RATE_HZ,
    AudioOptions,
    Batch,
    Chunk,
    Outcome,
    QuarantineReason,
    Recording,
    RecordingResult,
    Samples,
    Segment,
    Source,
)
from k2d.settings import Settings
from k2d.store import Examination, Lake
from k2d.validators.protocol import Validators
from k2d.version import __version__

log = structlog.get_logger()

# Increase a stage's version when its code changes what it writes: that gives new keys, and old shards are kept.
EXAMINE_VERSION: Final = 2
LABEL_VERSION: Final = 2
# A missing file may come back, and limits of decoding may be raised: such examinations are not stored.
_NOT_STORED: Final = (QuarantineReason.UNREADABLE, QuarantineReason.CRASHES_WORKER, QuarantineReason.FAILED)


class Stage(StrEnum):
    """A stage of processing a recording."""

    EXAMINE = "examine"
    LABEL = "label"
    VALIDATE = "validate"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one recording in one stage."""

    position: int  # of the recording in its batch
    stage: Stage
    seconds: float  # of the recording that are done in this stage
    duration_s: float  # of the whole recording; 0.0 while it is examined
    known_s: float = 0.0  # of `seconds`, those on which no model had to work in this run

    @property
    def worked_s(self) -> float:
        """Seconds of the recording on which models worked in this stage and run."""
        return max(0.0, self.seconds - self.known_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for a recording to be labeled. Part of the key of its examination."""

    min_s: float
    max_s: float
    silence_peak: float


class Labeler:
    """Labels and validates recordings of a batch.

    async with open_models(settings, batch, lake) as (teacher, validators):
        labeler = Labeler(lake, teacher=teacher, validators=validators, batch=batch, settings=settings)
        result = await labeler.run(0)  # the RecordingResult of batch.sources[0]
    """

    def __init__(
        self,
        lake: Lake,
        *,
        teacher: ScoringTranscriber,
        validators: Validators,
        batch: Batch,
        settings: Settings,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.lake = lake
        self.teacher = teacher
        self.validators = validators
        self.batch = batch
        self.settings = settings
        self.limits = Limits(settings.min_recording_s, settings.max_recording_s, settings.silence_peak)
        self.on_progress = on_progress
        self.clock = SharedClock()
        self._steps: dict[int, dict[Stage, Progress]] = {}  # the latest of each unfinished recording, by position
        self._quota = HoursQuota(lake, batch, settings.max_batch_hours)
        self._hashes = FileHashes(settings.cache)
        self._validation = Validation(lake, validators, max_chunks=max(settings.concurrency, settings.batch_size))

    async def run(self, position: int) -> RecordingResult:
        """Label and validate the source at `position`. Stages whose results are in the lake are not run again.

        A recording that cannot be labeled has a result with outcome "quarantined", and the reason.

        Raises:
            StoreError, ModelError: the cause is not the recording.
        """
        entered = self.clock.enter()
        try:
            result = await self._process(position)
        finally:
            share_s = self.clock.leave(entered)
            steps = self._steps.pop(position, {})
        labeled_s, validated_s = (
            steps[stage].worked_s if stage in steps else 0.0 for stage in (Stage.LABEL, Stage.VALIDATE)
        )
        return replace(result, wall_s=share_s, worked_s=round(work_done_s(labeled_s, validated_s), 3))

    def _report(self, step: Progress) -> None:
        self._steps.setdefault(step.position, {})[step.stage] = step
        self.on_progress(step)

    async def _process(self, position: int) -> RecordingResult:
        source = self.batch.sources[position]
        recording: Recording | None = None
        try:
            try:
                recording = await self._labeled(source, position)
            except SourceChanged:  # between the passes: label what is there now
                log.warning("recording changed while it was read, examined again", recording=source.name)
                recording = await self._labeled(source, position, again=True)
            label_key = self.label_key(recording)
            facts_key = self.facts_key(label_key)
            if not await asyncio.to_thread(self.lake.facts.is_current, facts_key):
                await self._validation.run(
                    recording,
                    label_key=label_key,
                    facts_key=facts_key,
                    options=self.batch.options,
                    teacher=self.teacher.model,
                    on_share=self._on_validated(position, recording.duration_s),
                )
        except AudioError as error:
            if recording is None and error.reason in _NOT_STORED:
                duration_s = await asyncio.to_thread(self.known_duration_s, source)
            else:
                duration_s = _whole_s(recording) if recording else float(error.details.get("duration_s", 0.0))
            return quarantined(position, source, error.reason, error.message, duration_s=duration_s)
        versions, no_label = await asyncio.to_thread(self.lake.provenance, label_key, facts_key)
        return RecordingResult(
            position=position,
            name=source.name,
            outcome=Outcome.LABELED,
            duration_s=_whole_s(recording),
            recording_id=recording.id,
            label_key=label_key,
            facts_key=facts_key,
            reason=recording.quarantine_reason,
            quarantined_s=recording.quarantined_s,
            notes=recording.notes,
            versions=versions,
            no_label=no_label,
        )

    def _on_validated(self, position: int, duration_s: float) -> Callable[[float, float], None]:
        return lambda share, known: self._report(
            Progress(position, Stage.VALIDATE, share * duration_s, duration_s, known * duration_s)
        )

    def known_duration_s(self, source: Source) -> float:
        """The length of a source that cannot be decoded: as it was examined once, else by its header; 0.0 if neither
        is known."""
        examination = self.lake.examinations.get(self.examine_key(source))
        if examination is not None:
            return examination.duration_s if examination.recording is None else _whole_s(examination.recording)
        if source.uri.startswith("https://"):  # opening it downloads it
            return 0.0
        with suppress(AudioError), self._open(source) as file:
            return round(isolated.probe_duration_s(file, limits=DecodeLimits.of(self.settings)) or 0.0, 3)
        return 0.0

    # ---- keys -----------------------------------------------------------------------------------------------------

    def examine_key(self, source: Source, source_key: str | None = None) -> str:
        """`source_key`: that of the file which is there now, where it is another one than when the batch was made."""
        options = self.batch.audio
        choice = () if options == AudioOptions() else (self._channel(source), options.keep_partial)
        return digest("examine", EXAMINE_VERSION, source_key or source.key, self.limits, *choice)

    def label_key(self, recording: Recording) -> str:
        options = self.batch.options
        pauses = ("pauses",) if recording.paused_s else ()  # digital silence is skipped where it was laid open
        rule = (rescore.VERSION,) if options.rescore else ()
        fingerprint = self.teacher.model.fingerprint
        return digest("label", LABEL_VERSION, recording.id, fingerprint, options, *pauses, *rule)

    def facts_key(self, label_key: str) -> str:
        return digest("facts", FACTS_VERSION, label_key, *self.validators.key)

    def _channel(self, source: Source) -> int | None:
        """The channel to label; None for the mix."""
        return self.batch.audio.channel or source.channel

    # ---- stages ---------------------------------------------------------------------------------------------------

    async def _labeled(self, source: Source, position: int, *, again: bool = False) -> Recording:
        """Examine and label the source; returns the recording whose labels are in the lake then.

        Raises:
            SourceChanged: its samples were not the same in both passes.
            AudioError: it cannot be labeled.
        """
        recording = await self._examine(source, position, again=again)
        if not again:
            await asyncio.to_thread(self._quota.take, recording.duration_s)
        label_key = self.label_key(recording)
        if not await asyncio.to_thread(self.lake.labels.has, label_key):
            async with Journal(self.lake.journals, label_key, recording_id=recording.id) as journal:
                await self._label(source, position, recording, label_key, journal)
        return recording

    async def _examine(self, source: Source, position: int, *, again: bool = False) -> Recording:
        """Decode the source once from end to end, and store its identity or why it cannot be labeled.

        `again`: do so even where an examination is stored.

        Raises:
            AudioError: it cannot be labeled.
        """
        examination = None
        if not again and sources.is_marked(source):
            examination = await asyncio.to_thread(self._stored_examination, source)
        if examination is None:
            self._report(Progress(position, Stage.EXAMINE, 0.0, 0.0))
            examination = await asyncio.to_thread(self._examine_and_store, source)
        if examination.recording is None:
            raise AudioError(
                examination.detail or "the recording cannot be used",
                reason=examination.reason or QuarantineReason.UNREADABLE,
                duration_s=examination.duration_s,
            )
        return examination.recording

    def _examine_and_store(self, source: Source) -> Examination:
        """Examine the source now, and store the result if it says something of the file: one that is gone may come
        back, and a decoder that crashed may not do so again."""
        source_key, examination = self._examine_now(source)
        if examination.reason == QuarantineReason.UNREADABLE:
            return self._earlier_examination(source) or examination
        if examination.reason in _NOT_STORED:
            return examination
        self.lake.examinations.put(self.examine_key(source, source_key), examination)
        return examination

    def _earlier_examination(self, source: Source) -> Examination | None:
        """The examination of a file that is gone since, by an earlier version of k2d, if its labels are there: what
        follows from them needs no file."""
        if self.batch.audio != AudioOptions() or source.channel is not None:
            return None  # earlier versions knew no options
        for version in range(EXAMINE_VERSION - 1, 0, -1):
            earlier = self.lake.examinations.get(digest("examine", version, source.key, self.limits))
            if earlier is not None and earlier.recording is not None:
                return earlier if self.lake.labels.has(self.label_key(earlier.recording)) else None
        return None

    def _stored_examination(self, source: Source) -> Examination | None:
        """The examination of what is at the source now; of what was there, if nothing is."""
        source_key = source.key
        if sources.is_file(source):
            with suppress(AudioError, OSError), self._open(source) as file:
                source_key = sources.current_key(source, file, self._hashes)
        return self.lake.examinations.get(self.examine_key(source, source_key))

    def _examine_now(self, source: Source) -> tuple[str, Examination]:
        """Decode the source; returns the key of what was read, and the examination.

        Raises:
            SourceChanged: it was written to meanwhile.
        """
        try:
            with self._open(source) as file:
                if not sources.is_file(source):
                    return source.key, self._examine_file(source, file)
                status = file_status(file)
                source_key = sources.current_key(source, file, self._hashes)
                examination = self._examine_file(source, file)
                if file_status(file) != status:
                    file.seek(0)
                    if sources.current_key(source, file, self._hashes) != source_key:
                        raise SourceChanged(examination.duration_s)
                return source_key, examination
        except SourceChanged:
            raise
        except AudioError as error:
            return source.key, _unusable(error)

    def _examine_file(self, source: Source, file: BinaryIO) -> Examination:
        limits = self.limits
        try:
            recording = isolated.examine(
                file,
                min_s=limits.min_s,
                max_s=limits.max_s,
                silence_peak=limits.silence_peak,
                channel=self._channel(source),
                keep_partial=self.batch.audio.keep_partial,
                name=source.name,
                limits=DecodeLimits.of(self.settings),
            )
        except AudioError as error:
            return _unusable(error)
        return Examination(recording=recording, reason=None, detail=None, duration_s=recording.duration_s)

    async def _label(
        self, source: Source, position: int, recording: Recording, label_key: str, journal: Journal
    ) -> None:
        """Transcribe the recording with the teacher, and write its chunks with their audio, as a stream.

        While the teacher goes on, up to `settings.batch_size` chunks are rescored.

        Raises:
            SourceChanged: the file does not have the samples that were examined. No labels are stored then.
        """
        teacher = JournaledTranscriber(self.teacher, journal)  # another one rescores: it is asked about other audio
        labeled_s = known_s = 0.0

        def report(until_s: float) -> None:
            nonlocal labeled_s, known_s
            known_s += max(0.0, until_s - labeled_s) if teacher.recalled else 0.0
            labeled_s = until_s
            self._report(Progress(position, Stage.LABEL, until_s, recording.duration_s, known_s))

        meta = {
            "label_key": label_key,
            "recording": recording,
            "teacher": teacher.model,
            "options": self.batch.options,
            "version": LABEL_VERSION,
            "k2d_version": __version__,
        }
        second = JournaledTranscriber(self.teacher, journal)
        rescorer = Rescorer(second, self.batch.options.decode) if self.batch.options.rescore else None

        async def finish(chunk: Chunk, samples: Samples) -> tuple[Chunk, bytes]:
            if rescorer is not None:
                chunk = await rescorer.choose(chunk, samples)
            return chunk, await asyncio.to_thread(audio.encode_flac, samples)

        with ExitStack() as stack:
            file = stack.enter_context(await asyncio.to_thread(self._open, source))
            limits = DecodeLimits.of(self.settings)
            samples = stack.enter_context(
                isolated.IsolatedReader(file, recording=recording, name=source.name, limits=limits)
            )
            meter = NoLabelMeter()
            reader = HashedReader(samples, recording, hear=meter.hear)
            writer = stack.enter_context(self.lake.labels.writer(label_key, meta))
            chunks: list[tuple[Chunk, Samples]] = []

            def keep(chunk: Chunk, samples: Samples) -> None:
                meter.cover(chunk)
                chunks.append((chunk, samples))

            cutter = Cutter(reader, keep)
            async with ChunkFinisher(finish, writer.write, at_most=self.settings.batch_size) as finisher:
                segments = transcribe(
                    cutter,
                    teacher,
                    self.batch.options,
                    total_samples=recording.samples,
                    skip_pauses=recording.paused_s > 0,
                )
                async for segment in segments:
                    await asyncio.to_thread(cutter.push, segment)
                    while chunks:
                        await finisher.add(*chunks.pop(0))
                    report(segment.end_s)
                await asyncio.to_thread(cutter.close)
                while chunks:
                    await finisher.add(*chunks.pop(0))
            report(recording.duration_s)
            await asyncio.to_thread(reader.verify)
            writer.add_meta({"no_label": meter.sums(recording.duration_s)})

    def _open(self, source: Source) -> BinaryIO:
        # checked again at every opening, since links may have changed
        allowed = None if self.batch.trusted else self.settings.allowed_sources
        return sources.open_source(source, self.lake.open, allowed=allowed)


def _whole_s(recording: Recording) -> float:
    """The length of a recording, with the part that is quarantined."""
    return round(recording.duration_s + recording.quarantined_s, 3)


def _unusable(error: AudioError) -> Examination:
    duration_s = float(error.details.get("duration_s", 0.0))
    return Examination(recording=None, reason=error.reason, detail=error.message, duration_s=duration_s)


def quarantined(position: int, source: Source, reason: str, detail: str, *, duration_s: float = 0.0) -> RecordingResult:
    """The result of a recording that cannot be labeled."""
    log.warning("recording quarantined", recording=source.name, reason=str(reason), detail=detail)
    return RecordingResult(
        position=position,
        name=source.name,
        outcome=Outcome.QUARANTINED,
        duration_s=duration_s,
        reason=str(reason),
        detail=detail,
    )


class ChunkFinisher:
    """Finishes chunks concurrently, up to `at_most` at once, and writes them in the order in which they were added.

    async with ChunkFinisher(finish, writer.write, at_most=4) as finisher:
        await finisher.add(chunk, samples)  # writes what finish(chunk, samples) returns, now or later

    The block's end waits for all of them; if the block raises, those that are not finished are cancelled.
    """

    def __init__(
        self,
        finish: Callable[[Chunk, Samples], Coroutine[Any, Any, tuple[Chunk, bytes]]],
        write: Callable[[Chunk, bytes], None],
        *,
        at_most: int,
    ) -> None:
        self._finish = finish
        self._write = write
        self._at_most = at_most
        self._tasks: deque[asyncio.Task[tuple[Chunk, bytes]]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def add(self, chunk: Chunk, samples: Samples) -> None:
        """Start finishing a chunk; waits for the oldest if there are too many."""
        self._tasks.append(asyncio.create_task(self._finish(chunk, samples)))
        while len(self._tasks) >= self._at_most or (self._tasks and self._tasks[0].done()):
            await self._write_oldest()

    async def _write_oldest(self) -> None:
        row = await self._tasks[0]
        self._tasks.popleft()
        await asyncio.to_thread(self._write, *row)

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            while self._tasks and error is None:
                await self._write_oldest()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


class Cutter:
    """Reads windows for the teacher, packs its segments into chunks, and hands them on with their audio, in one stream.

    Keeps only the audio of the open chunk and the current window in memory, however long the recording is.
    """

    def __init__(self, reader: audio.SampleReader | HashedReader, write: Callable[[Chunk, Samples], None]) -> None:
        self.reader = reader
        self.write = write
        self.packer = Packer()

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) of the recording. `start` never decreases, so samples before it are dropped."""
        self._write(self.packer.advance(start / SAMPLE_RATE_HZ))
        open_s = self.packer.open_start_s
        self.reader.forget(start if open_s is None else min(start, round(open_s * SAMPLE_RATE_HZ)))
        return self.reader.read(start, stop)

    def push(self, segment: Segment) -> None:
        """Add the next segment; hand on the chunk that it closes."""
        self._write(self.packer.push(segment))

    def close(self) -> None:
        """Hand on the last, partial chunk."""
        self._write(self.packer.close())

    def _write(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            start, stop = (round(t * SAMPLE_RATE_HZ) for t in (chunk.start_s, chunk.end_s))
            self.write(chunk, self.reader.read(start, stop))


class SharedClock:
    """Splits a worker's wall time among the recordings it processes concurrently; the shares add up to it."""

    def __init__(self) -> None:
        self._active = 0
        self._virtual_s = 0.0  # advances by wall time / active recordings: the share of each
        self._advanced_at = time.monotonic()

    def enter(self) -> float:
        """Start a recording; returns the token that `leave` takes."""
        self._advance()
        self._active += 1
        return self._virtual_s

    def leave(self, token: float) -> float:
        """End a recording; returns its share in seconds."""
        self._advance()
        self._active -= 1
        return round(self._virtual_s - token, 3)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._active:
            self._virtual_s += (now - self._advanced_at) / self._active
        self._advanced_at = now

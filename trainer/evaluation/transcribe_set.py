"""Runs one model over a set, as labels are made: utterances in flight together, windows batched across them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from k2d.errors import AudioError
from k2d.inference import golden
from k2d.inference.longform import transcribe
from k2d.inference.transcriber import Transcriber
from k2d.labeling.packer import pack
from k2d.schema import (
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    DecodeOptions,
    LongformOptions,
    ModelInfo,
    QuarantineReason,
    Segment,
    Window,
    WindowResult,
    join_text,
)
from k2d.whisper.fallback import is_silence
from trainer.evaluation.utterances import Excerpt, Utterance

UNLIMITED: Final = 1 << 60  # samples: the reader knows where an utterance ends


@dataclass(frozen=True, slots=True)
class UtteranceTranscript:
    """A model's transcript of one utterance."""

    text: str
    stretches: tuple[str, ...]  # the text in parts of at most 30 s
    seconds: float  # of audio


@dataclass(frozen=True, slots=True)
class TranscriptionSpeed:
    """How fast a set was transcribed: decoding of audio, features, encoder and decoder together."""

    audio_s: float
    wall_s: float
    windows: int
    tokens: int  # of accepted decodings, timestamps and end-of-text included
    retried: int  # windows whose first decoding was not accepted (temperature fallback)

    @property
    def real_time(self) -> float:
        """Seconds of audio transcribed in a second."""
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True, slots=True)
class SetTranscripts:
    """A model's transcripts of a set, by the utterances' names."""

    model: ModelInfo
    transcripts: dict[str, UtteranceTranscript]
    skipped: dict[str, str]  # name → why it could not be transcribed
    speed: TranscriptionSpeed


async def transcribe_set(
    model: Transcriber,
    utterances: Iterator[Utterance],
    options: LongformOptions,
    *,
    long_form: bool,
    at_once: int,
    on_done: Callable[[], None] | None = None,
) -> SetTranscripts:
    """Transcribe every utterance; one that cannot be decoded is skipped, with the reason.

    The clock starts after one golden clip has been transcribed, so that what an engine does once is not counted.

        transcripts = await transcribe_set(model, chosen.utterances(), LongformOptions(), long_form=True, at_once=8)

    Args:
        long_form: the sequential algorithm over windows, as labels are made. False: an utterance is one window, and
            longer ones are skipped.
        at_once: utterances in flight, so that batches form.
        on_done: called after each utterance.

    Raises:
        ModelError: the model failed.
        BadRequest: the set is damaged.
    """
    await model.transcribe(golden.windows()[0][0], options.decode)
    counting = _CountingTranscriber(model)
    transcripts: dict[str, UtteranceTranscript] = {}
    skipped: dict[str, str] = {}
    one_reader = asyncio.Lock()  # the iterator is read by one task at a time

    async def work() -> None:
        while True:
            async with one_reader:
                utterance = await asyncio.to_thread(next, utterances, None)
            if utterance is None:
                return
            name = utterance.reference.name
            try:
                with utterance.open() as excerpt:
                    transcripts[name] = await (_sequential if long_form else _one_window)(counting, excerpt, options)
            except AudioError as error:
                skipped[name] = f"{error.reason}: {error.message}"
            if on_done is not None:
                on_done()

    started = time.monotonic()
    tasks = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one failed, its error is raised and the others end
            task.cancel()
    wall_s = time.monotonic() - started
    speed = TranscriptionSpeed(
        round(sum(transcript.seconds for transcript in transcripts.values()), 3),
        wall_s,
        counting.windows,
        counting.tokens,
        counting.retried,
    )
    return SetTranscripts(model.model, transcripts, skipped, speed)


@dataclass(slots=True)
class _CountingTranscriber:
    """A transcriber that counts windows and tokens."""

    inner: Transcriber
    windows: int = 0
    tokens: int = 0
    retried: int = 0
    model: ModelInfo = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.inner.model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        result = await self.inner.transcribe(window, options)
        self.windows += 1
        self.tokens += len(result.tokens) + 1  # end-of-text
        self.retried += result.temperature > options.temperatures[0]
        return result

    async def close(self) -> None:
        await self.inner.close()


async def _sequential(model: Transcriber, excerpt: Excerpt, options: LongformOptions) -> UtteranceTranscript:
    segments = [segment async for segment in transcribe(excerpt, model, options, total_samples=UNLIMITED)]
    _check(excerpt)
    text = join_text(segment.text for segment in segments)
    return UtteranceTranscript(text, _stretches(segments), excerpt.samples / SAMPLE_RATE_HZ)


async def _one_window(model: Transcriber, excerpt: Excerpt, options: LongformOptions) -> UtteranceTranscript:
    samples = await asyncio.to_thread(excerpt.read, 0, WINDOW_SAMPLES + 1)
    _check(excerpt)
    if len(samples) > WINDOW_SAMPLES:
        raise AudioError(
            "The recording is longer than one window (30 s).",
            reason=QuarantineReason.TOO_LONG,
            hint="evaluate it with --long-form",
        )
    result = await model.transcribe(Window(samples), options.decode)
    text = "" if is_silence(result, options.decode) else result.text.strip()
    return UtteranceTranscript(text, (text,), len(samples) / SAMPLE_RATE_HZ)


def _check(excerpt: Excerpt) -> None:
    if not excerpt.samples:
        raise AudioError(
            "There are no samples where the set says the utterance is.",
            reason=QuarantineReason.TOO_SHORT,
            hint="check its offset and duration",
        )


def _stretches(segments: list[Segment]) -> tuple[str, ...]:
    return tuple(chunk.text for chunk in pack(segments))

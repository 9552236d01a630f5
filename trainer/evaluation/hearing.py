"""Run one model over a set, as labels are made: recordings in flight together, windows batched across them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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

ENDLESS = 1 << 60  # samples: the reader knows where a recording ends


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model made of one utterance."""

    text: str
    stretches: tuple[str, ...]  # the text in parts of at most 30 s
    seconds: float  # of audio


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a set was heard: decoding of audio, features, encoder and decoder together."""

    audio_s: float
    wall_s: float
    windows: int
    tokens: int  # that the decoder wrote and that were accepted, timestamps and end-of-text included
    retried: int  # windows whose first decoding was not accepted (temperature fallback)

    @property
    def real_time(self) -> float:
        """Seconds of audio heard in a second."""
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a model made of a set. Names are the utterances'."""

    model: ModelInfo
    heard: dict[str, Heard]
    set_aside: dict[str, str]  # name → why it could not be heard
    speed: Speed


async def hear(
    model: Transcriber,
    utterances: Iterator[Utterance],
    options: LongformOptions,
    *,
    long_form: bool,
    at_once: int,
    done: Callable[[], None] | None = None,
) -> Hearing:
    """Let a model transcribe every utterance; one that cannot be decoded is set aside, with the reason.

    The clock starts after a warm-up: one golden clip, so that what an engine does once is not counted.

    Args:
        long_form: the sequential algorithm over windows, as labels are made. False: an utterance is one window, and
            longer ones are set aside.
        at_once: utterances in flight, so that batches form.
        done: is called after each utterance.

    Raises:
        ModelError: the model failed.
        BadRequest: the set is damaged.
    """
    await model.transcribe(golden.windows()[0][0], options.decode)
    counted = _Counted(model)
    heard: dict[str, Heard] = {}
    set_aside: dict[str, str] = {}
    turn = asyncio.Lock()

    async def listen() -> None:
        while True:
            async with turn:
                utterance = await asyncio.to_thread(next, utterances, None)
            if utterance is None:
                return
            name = utterance.said.name
            try:
                with utterance.open() as reader:
                    heard[name] = await (_sequential if long_form else _one_window)(counted, reader, options)
            except AudioError as error:
                set_aside[name] = f"{error.reason}: {error.message}"
            if done is not None:
                done()

    started = time.monotonic()
    tasks = [asyncio.create_task(listen()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # the first error is the one to tell
            task.cancel()
    wall_s = time.monotonic() - started
    speed = Speed(
        round(sum(one.seconds for one in heard.values()), 3),
        wall_s,
        counted.windows,
        counted.tokens,
        counted.retried,
    )
    return Hearing(model.model, heard, set_aside, speed)


@dataclass(slots=True)
class _Counted:
    """A transcriber that counts what passes through it."""

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
        self.tokens += len(result.tokens) + 1
        self.retried += result.temperature > options.temperatures[0]
        return result

    async def close(self) -> None:
        await self.inner.close()


async def _sequential(model: Transcriber, reader: Excerpt, options: LongformOptions) -> Heard:
    segments = [segment async for segment in transcribe(reader, model, options, total_samples=ENDLESS)]
    _check(reader)
    return Heard(join_text(segment.text for segment in segments), _stretches(segments), reader.samples / SAMPLE_RATE_HZ)


async def _one_window(model: Transcriber, reader: Excerpt, options: LongformOptions) -> Heard:
    samples = await asyncio.to_thread(reader.read, 0, WINDOW_SAMPLES + 1)
    _check(reader)
    if len(samples) > WINDOW_SAMPLES:
        raise AudioError(
            "The recording is longer than one window (30 s).",
            reason=QuarantineReason.TOO_LONG,
            hint="hear it with --long-form",
        )
    result = await model.transcribe(Window(samples), options.decode)
    text = "" if is_silence(result, options.decode) else result.text.strip()
    return Heard(text, (text,), len(samples) / SAMPLE_RATE_HZ)


def _check(reader: Excerpt) -> None:
    if not reader.samples:
        raise AudioError(
            "There are no samples where the set says the utterance is.",
            reason=QuarantineReason.TOO_SHORT,
            hint="look at its offset and duration",
        )


def _stretches(segments: list[Segment]) -> tuple[str, ...]:
    return tuple(chunk.text for chunk in pack(segments))

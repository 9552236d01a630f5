"""Whisper's sequential algorithm: transcribes a recording of any length window by window.

The rules are those of `transcribe` in openai/whisper and faster-whisper without word timestamps; differences are listed
at `transcribe`. Windows go through a `Transcriber`, which can batch the windows of many recordings.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import numpy as np

from k2d.inference.transcriber import Transcriber
from k2d.inference.voice import VoiceDetector
from k2d.schema import (
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    LongformOptions,
    Piece,
    Samples,
    Segment,
    Window,
    WindowResult,
)
from k2d.whisper.fallback import is_silence

MIN_STEP: Final = SAMPLE_RATE_HZ // 50  # samples by which a window moves forward at least: one timestamp step, 20 ms
MIN_PAUSE: Final = SAMPLE_RATE_HZ // 10  # samples of digital silence that are skipped: the shortest pause laid open
LAST_TOKENS: Final = 223  # of the previous text: half of Whisper's context without the token that opens it


class Reader(Protocol):
    """Source of a recording's samples (`k2d.audio.SampleReader` is one). `start` never decreases from call to call."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) of the recording, shape (n,); fewer past its end."""
        ...


async def transcribe(
    reader: Reader,
    transcriber: Transcriber,
    options: LongformOptions,
    *,
    total_samples: int,
    skip_pauses: bool = False,
    progress: Callable[[float], None] | None = None,
) -> AsyncIterator[Segment]:
    """Transcribe a recording; yields its segments in order of time.

        recording = examine("talk.m4a", min_s=0.1, max_s=86_400.0, silence_peak=0.001)
        with SampleReader("talk.m4a") as reader:
            async for segment in transcribe(reader, transcriber, LongformOptions(), total_samples=recording.samples):
                print(segment.start_s, segment.end_s, segment.text)

    Every segment lies within the recording, has text and a positive length, and starts at or after the end of the
    previous one.

    Differences from openai/whisper: features are normalised by window (a stream has no global maximum); a window's only
    segment starts at its first timestamp, not at the window's start; every window advances by at least 20 ms.

    Args:
        total_samples: length of the recording; nothing is read past it.
        skip_pauses: the recording has pauses that were laid open as digital silence (`Recording.paused_s`): a window
            starts behind one, since Whisper writes no first timestamp above `max_initial_timestamp_s`.
        progress: called after each window with the seconds transcribed so far.

    Raises:
        ModelError: the transcriber failed.
        AudioError: the reader failed.
    """
    detector = VoiceDetector() if options.vad else None
    context: tuple[int, ...] = ()
    seek, last_end_s = 0, 0.0
    while seek < total_samples:
        samples = await asyncio.to_thread(reader.read, seek, min(seek + WINDOW_SAMPLES, total_samples))
        if len(samples) == 0:
            return  # the recording is shorter than `total_samples`
        if detector is not None:
            speech_at = await asyncio.to_thread(detector.first_speech, samples)
            if speech_at != 0:  # skip to the speech, or past the window
                seek += len(samples) if speech_at is None else max(speech_at, MIN_STEP)
                _report_progress(progress, seek, total_samples)
                continue
        if skip_pauses and (silent := _leading_silence(samples)) >= MIN_PAUSE:
            seek += silent
            _report_progress(progress, seek, total_samples)
            continue
        result = await transcriber.transcribe(Window(samples, context), options.decode)
        seek_s = seek / SAMPLE_RATE_HZ
        pieces = () if is_silence(result, options.decode) else result.pieces
        end_s = (seek + len(samples)) * 1000 // SAMPLE_RATE_HZ / 1000  # end of the audio, rounded down to milliseconds
        kept = []
        for piece in pieces:
            segment = _segment(piece, result, offset_s=seek_s, after_s=last_end_s, before_s=end_s)
            if segment is not None:
                last_end_s = segment.end_s
                kept.append(piece)
                yield segment
        context = _next_context(context, result, kept, options)
        seek += _step(result, len(samples), silent=not pieces and bool(result.pieces))
        _report_progress(progress, seek, total_samples)


def _leading_silence(samples: Samples) -> int:
    """Samples of digital silence at the start, in whole timestamp steps: times in milliseconds are exact there."""
    loud = np.flatnonzero(samples)
    return int(loud[0]) // MIN_STEP * MIN_STEP if len(loud) else len(samples)


def _step(result: WindowResult, samples: int, *, silent: bool) -> int:
    """Samples to the next window's start: the resume point, or this window's end if it is silent or complete."""
    if silent or result.resume_s is None:
        return samples
    return min(max(round(result.resume_s * SAMPLE_RATE_HZ), MIN_STEP), samples)


def _segment(piece: Piece, result: WindowResult, *, offset_s: float, after_s: float, before_s: float) -> Segment | None:
    """A piece as a segment of the recording, clamped to `after_s` … `before_s`; None if nothing is left."""
    start_s = round(min(max(offset_s + piece.start_s, after_s), before_s), 3)
    end_s = round(min(offset_s + piece.end_s, before_s), 3)
    if end_s <= start_s or not piece.text.strip():
        return None
    return Segment(
        start_s=start_s,
        end_s=end_s,
        text=piece.text,
        tokens=piece.tokens,
        avg_logprob=result.avg_logprob,
        no_speech_prob=result.no_speech_prob,
        compression_ratio=result.compression_ratio,
        temperature=result.temperature,
        language=result.language,
    )


def _next_context(
    context: tuple[int, ...], result: WindowResult, kept: list[Piece], options: LongformOptions
) -> tuple[int, ...]:
    """The next window's previous text; empty unless the options ask for it, and after a high temperature."""
    if not options.condition_on_previous_text or result.temperature > options.prompt_reset_on_temperature:
        return ()
    return (*context, *_with_timestamps(result.tokens, kept))[-LAST_TOKENS:]


def _with_timestamps(tokens: tuple[int, ...], pieces: list[Piece]) -> list[int]:
    """The pieces' tokens with the timestamps around them, as generated; Whisper's previous text contains them."""
    with_timestamps: list[int] = []
    at = 0
    for piece in pieces:
        size = len(piece.tokens)
        start = next((i for i in range(at, len(tokens)) if tokens[i : i + size] == piece.tokens), None)
        if start is None:  # there is an unexpected timestamp inside the piece
            with_timestamps += piece.tokens
            continue
        with_timestamps += tokens[max(start - 1, at) : start + size + 1]
        at = start + size + 1
    return with_timestamps


def _report_progress(progress: Callable[[float], None] | None, seek: int, total_samples: int) -> None:
    if progress is not None:
        progress(min(seek, total_samples) / SAMPLE_RATE_HZ)

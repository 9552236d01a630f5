"""Whisper's sequential algorithm: a recording of any length, window by window, each starting where the last ended.

The same rules as openai/whisper's and faster-whisper's `transcribe` without word timestamps; what differs is listed
at `transcribe`. Nothing here knows an engine: windows go through a `Transcriber`, so a server can batch across
recordings.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from k2d.inference.transcriber import Transcriber
from k2d.inference.voice import VoiceGate
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

MIN_STEP = SAMPLE_RATE_HZ // 50  # one timestamp step (20 ms): the least a window moves on, whatever its result says
LAST_TOKENS = 223  # of the previous text: what half of Whisper's context holds beside the token that opens it


class Reader(Protocol):
    """Where samples come from. Each call's `start` is at or behind the one before: what lies behind may be dropped."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) of the recording; fewer past its end."""
        ...


async def transcribe(
    reader: Reader,
    transcriber: Transcriber,
    options: LongformOptions,
    *,
    total_samples: int,
    progress: Callable[[float], None] | None = None,
) -> AsyncIterator[Segment]:
    """Yield a recording's segments in order of time.

    Every segment lies inside the recording, has text and length, and starts at or after the end of the one before.

    Differences from openai/whisper: features are computed for each window on its own (a stream has no global maximum);
    a lone segment starts at its own first timestamp, not at the window's start; a window always moves on.

    Args:
        total_samples: length of the recording; nothing is read or reported past it.
        progress: is told the seconds heard so far, after each window.

    Raises:
        ModelError: the transcriber failed.
        AudioError: the reader failed.
    """
    gate = VoiceGate() if options.vad else None
    context: tuple[int, ...] = ()
    seek, last_end_s = 0, 0.0
    while seek < total_samples:
        samples = await asyncio.to_thread(reader.read, seek, min(seek + WINDOW_SAMPLES, total_samples))
        if len(samples) == 0:
            return  # the recording is shorter than promised
        if gate is not None:
            voice = await asyncio.to_thread(gate.first_voice, samples)
            if voice != 0:  # skip to the voice, or past the window
                seek += len(samples) if voice is None else max(voice, MIN_STEP)
                _tell(progress, seek, total_samples)
                continue
        result = await transcriber.transcribe(Window(samples, context), options.decode)
        seek_s = seek / SAMPLE_RATE_HZ
        heard = () if is_silence(result, options.decode) else result.pieces
        end_s = (seek + len(samples)) * 1000 // SAMPLE_RATE_HZ / 1000  # whole milliseconds that are there
        kept = []
        for piece in heard:
            segment = _segment(piece, result, offset_s=seek_s, after_s=last_end_s, before_s=end_s)
            if segment is not None:
                last_end_s = segment.end_s
                kept.append(piece)
                yield segment
        context = _next_context(context, result, kept, options)
        seek += _step(result, len(samples), silent=not heard and bool(result.pieces))
        _tell(progress, seek, total_samples)


def _step(result: WindowResult, samples: int, *, silent: bool) -> int:
    """How far the next window lies: at the resume point, or behind this window when it is silent or finished."""
    if silent or result.resume_s is None:
        return samples
    return min(max(round(result.resume_s * SAMPLE_RATE_HZ), MIN_STEP), samples)


def _segment(piece: Piece, result: WindowResult, *, offset_s: float, after_s: float, before_s: float) -> Segment | None:
    """A piece at its place in the recording, clamped between `after_s` and `before_s`; None when nothing is left."""
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
    """The previous text for the next window: none unless asked for, and none after a temperature that rambles."""
    if not options.condition_on_previous_text or result.temperature > options.prompt_reset_on_temperature:
        return ()
    return (*context, *_with_timestamps(result.tokens, kept))[-LAST_TOKENS:]


def _with_timestamps(tokens: tuple[int, ...], pieces: list[Piece]) -> list[int]:
    """The pieces' tokens with the timestamps around them, as generated: Whisper's previous text has them."""
    found: list[int] = []
    at = 0
    for piece in pieces:
        size = len(piece.tokens)
        start = next((i for i in range(at, len(tokens)) if tokens[i : i + size] == piece.tokens), None)
        if start is None:  # a timestamp where no rule asked for one, inside the piece
            found += piece.tokens
            continue
        found += tokens[max(start - 1, at) : start + size + 1]
        at = start + size + 1
    return found


def _tell(progress: Callable[[float], None] | None, seek: int, total_samples: int) -> None:
    if progress is not None:
        progress(min(seek, total_samples) / SAMPLE_RATE_HZ)

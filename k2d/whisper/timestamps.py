"""Turns a window's tokens into its result: the pieces between timestamps, and where the next window starts. Pure."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from k2d.schema import SAMPLE_RATE_HZ, Piece, WindowResult, join_text
from k2d.whisper.fallback import DecodingResult
from k2d.whisper.features import TOKEN_S


class TokenDecoder(Protocol):
    """The part of a vocabulary that this module needs."""

    timestamp_begin: int
    eot: int

    def decode(self, tokens: tuple[int, ...] | list[int]) -> str: ...


def read_window(
    tokens: Sequence[int], *, vocabulary: TokenDecoder, samples: int
) -> tuple[str, tuple[Piece, ...], float | None]:
    """Split a window's tokens at its timestamps, by Whisper's rules (openai/whisper, transcribe.py).

    - Two timestamps in a row end one piece and start the next. What follows the last such pair was cut off by the end
      of the window, so the next window starts there. If a single timestamp ends the tokens, nothing is spoken after it,
      and the next window starts at the end of this one.
    - Without such a pair the whole window is one piece.
    - Times are clamped to the audio; pieces without text or length are dropped.

    Args:
        tokens: as generated, without prompt and end-of-text.
        samples: length of the window's audio.

    Returns:
        The text of all pieces; the pieces; the start of the next window in seconds from this one's start, above 0, or
        None for this window's end.
    """
    first = vocabulary.timestamp_begin
    stamps = [token >= first for token in tokens]
    pairs = [i for i in range(1, len(tokens)) if stamps[i - 1] and stamps[i]]
    closed = len(tokens) >= 2 and stamps[-1] and not stamps[-2]
    cuts = [0, *pairs, *([len(tokens)] if closed or not pairs else [])]
    duration_s = samples / SAMPLE_RATE_HZ
    pieces = [_piece(tokens[a:b], vocabulary=vocabulary, duration_s=duration_s) for a, b in itertools.pairwise(cuts)]
    kept = tuple(piece for piece in pieces if piece.text.strip() and piece.end_s > piece.start_s)
    resume_s = None
    if pairs and not closed:
        resume_s = round((tokens[pairs[-1] - 1] - first) * TOKEN_S, 3)
    if resume_s is not None and not 0.0 < resume_s < duration_s:
        resume_s = None
    return join_text(piece.text for piece in kept), kept, resume_s


def _piece(tokens: Sequence[int], *, vocabulary: TokenDecoder, duration_s: float) -> Piece:
    """The piece of some tokens: from its first timestamp (or 0) to its last (or the window's end)."""
    first = vocabulary.timestamp_begin
    text_tokens = tuple(token for token in tokens if token < vocabulary.eot)
    start = (tokens[0] - first) * TOKEN_S if tokens and tokens[0] >= first else 0.0
    ended = len(tokens) > 1 and tokens[-1] >= first
    end = (tokens[-1] - first) * TOKEN_S if ended else duration_s
    start_s, end_s = round(min(start, duration_s), 3), round(min(end, duration_s), 3)
    return Piece(start_s, end_s, vocabulary.decode(text_tokens), text_tokens)


def finish(
    result: DecodingResult,
    *,
    temperature: float,
    language: str,
    language_probs: tuple[tuple[str, float], ...],
    vocabulary: TokenDecoder,
    samples: int,
) -> WindowResult:
    """The result of a window of `samples` samples, from the decoding that was accepted."""
    text, pieces, resume_s = read_window(result.tokens, vocabulary=vocabulary, samples=samples)
    return WindowResult(
        text=text,
        tokens=result.tokens,
        pieces=pieces,
        resume_s=resume_s,
        avg_logprob=result.avg_logprob,
        no_speech_prob=result.no_speech_prob,
        compression_ratio=result.compression_ratio,
        temperature=temperature,
        language=language,
        language_probs=language_probs,
    )

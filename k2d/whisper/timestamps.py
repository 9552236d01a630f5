"""Pure: what a window's tokens mean. Pieces between timestamps, where the next window starts, the result."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from k2d.schema import SAMPLE_RATE_HZ, Piece, WindowResult, join_text
from k2d.whisper.fallback import Draft
from k2d.whisper.features import TOKEN_S


class Reads(Protocol):
    """The part of a vocabulary that reading needs."""

    timestamp_begin: int
    eot: int

    def decode(self, tokens: tuple[int, ...] | list[int]) -> str: ...


def read_window(
    tokens: Sequence[int], *, vocabulary: Reads, samples: int
) -> tuple[str, tuple[Piece, ...], float | None]:
    """Split a window's tokens at its timestamps, by Whisper's rules (openai/whisper, transcribe.py).

    - Two timestamps in a row end one piece and start the next. What follows the last such pair was cut off by the
      window's end, so the next window starts there, unless one lone timestamp closes it: then nothing is spoken
      after that, and the whole window is done.
    - Without such a pair the whole window is one piece.
    - Times are clamped to the audio; pieces without text or length are dropped, as their audio is nobody's.

    Args:
        tokens: as generated, without prompt and end-of-text.
        samples: how much audio the window had.

    Returns:
        The text of all pieces; the pieces; where to resume, in seconds from the window's start, always above 0;
        None: at the window's end.
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


def _piece(tokens: Sequence[int], *, vocabulary: Reads, duration_s: float) -> Piece:
    """One piece: from its first timestamp (or 0) to its last (or the window's end)."""
    first = vocabulary.timestamp_begin
    text_tokens = tuple(token for token in tokens if token < vocabulary.eot)
    start = (tokens[0] - first) * TOKEN_S if tokens and tokens[0] >= first else 0.0
    ended = len(tokens) > 1 and tokens[-1] >= first
    end = (tokens[-1] - first) * TOKEN_S if ended else duration_s
    start_s, end_s = round(min(start, duration_s), 3), round(min(end, duration_s), 3)
    return Piece(start_s, end_s, vocabulary.decode(text_tokens), text_tokens)


def finish(
    draft: Draft,
    *,
    temperature: float,
    language: str,
    language_probs: tuple[tuple[str, float], ...],
    vocabulary: Reads,
    samples: int,
) -> WindowResult:
    """Make an accepted draft of a window of `samples` samples into its result."""
    text, pieces, resume_s = read_window(draft.tokens, vocabulary=vocabulary, samples=samples)
    return WindowResult(
        text=text,
        tokens=draft.tokens,
        pieces=pieces,
        resume_s=resume_s,
        avg_logprob=draft.avg_logprob,
        no_speech_prob=draft.no_speech_prob,
        compression_ratio=draft.compression_ratio,
        temperature=temperature,
        language=language,
        language_probs=language_probs,
    )

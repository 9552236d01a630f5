"""Temperature fallback, once for every engine: decode, doubt, decode again (openai/whisper, transcribe.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from k2d.schema import DecodeOptions
from k2d.text.repetition import compression_ratio

DECIMALS = 4  # of a signal that are kept: what lies beyond differs between processors and batch shapes


@dataclass(frozen=True, slots=True)
class Draft:
    """One decoding of one window, before anybody accepted it."""

    tokens: tuple[int, ...]  # text and timestamps
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float

    @classmethod
    def of(
        cls, tokens: tuple[int, ...], *, generated: int, total_logprob: float, no_speech_prob: float, text: str
    ) -> "Draft":
        """A draft from what an engine measured; signals are rounded to what a label keeps, before any threshold."""
        return cls(
            tokens=tokens,
            avg_logprob=round(total_logprob / (generated + 1), DECIMALS),  # the end-of-text token counts as well
            no_speech_prob=round(no_speech_prob, DECIMALS),
            compression_ratio=round(compression_ratio(text.strip()), DECIMALS),
        )


class Heard(Protocol):
    """A draft or a result: what says whether anybody spoke."""

    @property
    def avg_logprob(self) -> float: ...

    @property
    def no_speech_prob(self) -> float: ...


Decode = Callable[[Sequence[int], float], list[Draft]]  # (indices of windows, temperature) → a draft for each


def needs_fallback(draft: Draft, options: DecodeOptions) -> bool:
    """Whether a draft is too repetitive or too unsure, and is not merely silence."""
    repetitive = _above(draft.compression_ratio, options.compression_ratio_threshold)
    unsure = _below(draft.avg_logprob, options.log_prob_threshold)
    silence = unsure and _above(draft.no_speech_prob, options.no_speech_threshold)
    return (repetitive or unsure) and not silence


def is_silence(draft: Heard, options: DecodeOptions) -> bool:
    """Whether the window holds no speech: the model says so, and is not sure of what it wrote either."""
    sure = _above(draft.avg_logprob, options.log_prob_threshold)
    return _above(draft.no_speech_prob, options.no_speech_threshold) and not sure


def decode_with_fallback(count: int, *, options: DecodeOptions, decode: Decode) -> list[tuple[Draft, float]]:
    """Decode `count` windows, those that fail again at the next temperature; all failures of a round go together.

    When every temperature fails, the draft with the highest mean log-probability wins among those that do not
    repeat themselves, or among all; it carries the last temperature, so that the next window gets no previous text.
    """
    accepted: dict[int, tuple[Draft, float]] = {}
    drafts: list[list[Draft]] = [[] for _ in range(count)]
    pending = list(range(count))
    for temperature in options.temperatures:
        if not pending:
            break
        for index, draft in zip(pending, decode(pending, temperature), strict=True):
            drafts[index].append(draft)
            if not needs_fallback(draft, options):
                accepted[index] = draft, temperature
        pending = [index for index in pending if index not in accepted]
    for index in pending:
        tolerable = [d for d in drafts[index] if not _above(d.compression_ratio, options.compression_ratio_threshold)]
        best = max(tolerable or drafts[index], key=lambda draft: draft.avg_logprob)
        accepted[index] = best, options.temperatures[-1]
    return [accepted[index] for index in range(count)]


def _above(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _below(value: float, threshold: float | None) -> bool:
    return threshold is not None and value < threshold

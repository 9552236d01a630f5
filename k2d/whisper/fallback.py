"""Temperature fallback for every engine: a window whose result is repetitive or improbable is decoded again.

Source: openai/whisper, transcribe.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from k2d.schema import DecodeOptions
from k2d.text.repetition import compression_ratio

DECIMALS: Final = 4  # of log-probabilities and other signals: further ones differ between processors and batch shapes


@dataclass(frozen=True, slots=True)
class DecodingResult:
    """The result of decoding a window once, at one temperature; fallback accepts or rejects it."""

    tokens: tuple[int, ...]  # text and timestamps
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float

    @classmethod
    def of(
        cls, tokens: tuple[int, ...], *, generated: int, total_logprob: float, no_speech_prob: float, text: str
    ) -> "DecodingResult":
        """A result from an engine's raw numbers: `total_logprob` over `generated` tokens and end-of-text.

        Signals are rounded before they are compared with any threshold.
        """
        return cls(
            tokens=tokens,
            avg_logprob=round(total_logprob / (generated + 1), DECIMALS),  # the end-of-text token counts as well
            no_speech_prob=round(no_speech_prob, DECIMALS),
            compression_ratio=round(compression_ratio(text.strip()), DECIMALS),
        )


class SpeechSignals(Protocol):
    """The part of a DecodingResult or a WindowResult that says whether there is speech."""

    @property
    def avg_logprob(self) -> float: ...

    @property
    def no_speech_prob(self) -> float: ...


Decode = Callable[[Sequence[int], float], list[DecodingResult]]  # (indices of windows, temperature) → a result for each


def needs_fallback(result: DecodingResult, options: DecodeOptions) -> bool:
    """Whether a result is too repetitive or too improbable, and the window is not silent."""
    repetitive = _above(result.compression_ratio, options.compression_ratio_threshold)
    improbable = _below(result.avg_logprob, options.log_prob_threshold)
    silence = improbable and _above(result.no_speech_prob, options.no_speech_threshold)
    return (repetitive or improbable) and not silence


def is_silence(result: SpeechSignals, options: DecodeOptions) -> bool:
    """Whether a window has no speech: a high no-speech probability, and a text that is not probable."""
    probable = _above(result.avg_logprob, options.log_prob_threshold)
    return _above(result.no_speech_prob, options.no_speech_threshold) and not probable


def decode_with_fallback(count: int, *, options: DecodeOptions, decode: Decode) -> list[tuple[DecodingResult, float]]:
    """Decode `count` windows; decode those that need fallback again, together, at the next temperature.

    If a window fails at every temperature, the result with the highest mean log-probability is taken, of those that are
    not too repetitive if there are any. It is returned with the last temperature, so that the next window gets no
    previous text.

    Returns:
        For each window, the accepted result and its temperature.
    """
    accepted: dict[int, tuple[DecodingResult, float]] = {}
    results: list[list[DecodingResult]] = [[] for _ in range(count)]
    pending = list(range(count))
    for temperature in options.temperatures:
        if not pending:
            break
        for index, result in zip(pending, decode(pending, temperature), strict=True):
            results[index].append(result)
            if not needs_fallback(result, options):
                accepted[index] = result, temperature
        pending = [index for index in pending if index not in accepted]
    for index in pending:
        fluent = [r for r in results[index] if not _above(r.compression_ratio, options.compression_ratio_threshold)]
        best = max(fluent or results[index], key=lambda result: result.avg_logprob)
        accepted[index] = best, options.temperatures[-1]
    return [accepted[index] for index in range(count)]


def _above(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _below(value: float, threshold: float | None) -> bool:
    return threshold is not None and value < threshold

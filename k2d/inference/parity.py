"""Do two transcribers give the same labels? The golden clips, and any recordings, through both; then the difference.

Exchanging an engine, a precision or a server must not change a label unnoticed: this is the gate.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add

from k2d.filtering.distance import counts, read
from k2d.inference import golden
from k2d.inference.longform import Reader, transcribe
from k2d.inference.transcriber import Transcriber
from k2d.schema import Counts, LongformOptions, ModelInfo, Samples, Segment, join_text

AT_ONCE = 8  # recordings in flight: enough to fill batches, few enough to hold in memory


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One recording both sides hear; `reference` is what is said in it, where that is known."""

    name: str
    open: Callable[[], AbstractContextManager[Reader]]
    samples: int
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What one side made of all recordings."""

    model: ModelInfo
    segments: tuple[tuple[Segment, ...], ...]  # of each recording

    def text(self, index: int) -> str:
        return join_text(segment.text for segment in self.segments[index])


@dataclass(frozen=True, slots=True)
class Row:
    """One recording's comparison. Rates are mixed error rates; None where nobody knows what is said."""

    name: str
    identical: bool  # every segment: text, tokens, times and signals
    same_text: bool
    drift: float  # B against A
    mer_a: float | None
    mer_b: float | None
    text_a: str
    text_b: str


@dataclass(frozen=True, slots=True)
class Report:
    """The comparison of A and B over all recordings; the rates are pooled: all edits over all tokens."""

    a: ModelInfo
    b: ModelInfo
    rows: tuple[Row, ...]
    drift: float
    mer_a: float | None
    mer_b: float | None


def golden_recordings() -> list[Recording]:
    """The packaged clips as recordings."""
    return [
        Recording(clip.name, lambda held=clip.samples: nullcontext(_InMemory(held)), len(clip.samples), clip.text)  # type: ignore[misc]
        for clip in golden.clips()
    ]


async def hear(transcriber: Transcriber, recordings: Sequence[Recording], options: LongformOptions) -> Heard:
    """Transcribe each recording as a label would be; several at once, so that batches form as they do in work.

    Raises:
        ModelError: the transcriber failed.
        AudioError: a recording cannot be decoded.
    """
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(recording: Recording) -> tuple[Segment, ...]:
        async with limit:
            with recording.open() as reader:
                found = transcribe(reader, transcriber, options, total_samples=recording.samples)
                return tuple([segment async for segment in found])

    tasks = [asyncio.create_task(one(recording)) for recording in recordings]
    try:
        return Heard(transcriber.model, tuple(await asyncio.gather(*tasks)))
    finally:
        for task in tasks:  # the first error is the one to tell
            task.cancel()


def compare(recordings: Sequence[Recording], a: Heard, b: Heard) -> Report:
    """Put both sides' transcripts of the same recordings beside each other. Pure.

    The drift is the mixed error rate of B's text with A's as reference; an empty reference counts as one token.
    """
    rows, drifts, a_counts, b_counts = [], [], [], []
    for index, recording in enumerate(recordings):
        text_a, text_b = a.text(index), b.text(index)
        drift = _counts(text_a, text_b)
        drifts.append(drift)
        known = recording.reference
        to_a, to_b = (_counts(known, text_a), _counts(known, text_b)) if known is not None else (None, None)
        a_counts += [to_a] if to_a else []
        b_counts += [to_b] if to_b else []
        rows.append(
            Row(
                name=recording.name,
                identical=a.segments[index] == b.segments[index],
                same_text=text_a == text_b,
                drift=drift.rate,
                mer_a=to_a.rate if to_a else None,
                mer_b=to_b.rate if to_b else None,
                text_a=text_a,
                text_b=text_b,
            )
        )
    pooled = reduce(add, drifts, Counts())
    return Report(a.model, b.model, tuple(rows), pooled.rate, _pooled(a_counts), _pooled(b_counts))


class _InMemory:
    """Samples in memory as a `Reader`."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def read(self, start: int, stop: int) -> Samples:
        return self._samples[start:stop]


def _counts(reference: str, hypothesis: str) -> Counts:
    return counts(read(reference).tokens, read(hypothesis).tokens)


def _pooled(found: Sequence[Counts]) -> float | None:
    return reduce(add, found).rate if found else None

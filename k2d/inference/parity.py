"""Do two transcribers give the same labels?

Transcribes the golden clips, and any other recordings, with both, and compares the transcripts. Use it before changing
an engine, a precision or a server.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Final

from k2d.filtering.distance import counts
from k2d.inference import golden
from k2d.inference.longform import Reader, transcribe
from k2d.inference.transcriber import Transcriber
from k2d.schema import Counts, LongformOptions, ModelInfo, Samples, Segment, join_text
from k2d.text.reading import read

AT_ONCE: Final = 8  # concurrent recordings: enough to fill batches, few enough for their memory


@dataclass(frozen=True, slots=True, eq=False)
class ParityRecording:
    """A recording that both sides transcribe."""

    name: str
    open: Callable[[], AbstractContextManager[Reader]]
    samples: int  # its length
    reference: str | None = None  # what is said in it, if known


@dataclass(frozen=True, slots=True)
class Transcripts:
    """One side's transcripts of all recordings."""

    model: ModelInfo
    segments: tuple[tuple[Segment, ...], ...]  # for each recording

    def text(self, index: int) -> str:
        return join_text(segment.text for segment in self.segments[index])


@dataclass(frozen=True, slots=True)
class ParityRow:
    """The comparison of one recording. Rates are mixed error rates; None without a reference."""

    name: str
    identical: bool  # all segments are equal, in text, tokens, times and signals
    same_text: bool
    drift: float  # of B with A as reference
    mer_a: float | None  # of A with what is said as reference
    mer_b: float | None  # of B with what is said as reference
    text_a: str
    text_b: str


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The comparison of A and B over all recordings. Rates are pooled: the sum of edits over the sum of tokens."""

    a: ModelInfo
    b: ModelInfo
    rows: tuple[ParityRow, ...]
    drift: float
    mer_a: float | None
    mer_b: float | None


def golden_recordings() -> list[ParityRecording]:
    """The golden clips as recordings."""
    return [
        ParityRecording(clip.name, partial(_in_memory, clip.samples), len(clip.samples), clip.text)
        for clip in golden.clips()
    ]


async def transcribe_all(
    transcriber: Transcriber, recordings: Sequence[ParityRecording], options: LongformOptions
) -> Transcripts:
    """Transcribe recordings as for labels; several at once, so that batches form as in a worker.

    Raises:
        ModelError: the transcriber failed.
        AudioError: a recording cannot be decoded.
    """
    limit = asyncio.Semaphore(AT_ONCE)

    async def segments_of(recording: ParityRecording) -> tuple[Segment, ...]:
        async with limit:
            with recording.open() as reader:
                segments = transcribe(reader, transcriber, options, total_samples=recording.samples)
                return tuple([segment async for segment in segments])

    tasks = [asyncio.create_task(segments_of(recording)) for recording in recordings]
    try:
        return Transcripts(transcriber.model, tuple(await asyncio.gather(*tasks)))
    finally:
        for task in tasks:  # after an error, stop the others
            task.cancel()


def compare(recordings: Sequence[ParityRecording], a: Transcripts, b: Transcripts) -> ParityReport:
    """Compare two sides' transcripts of the same recordings. Pure.

        a = await transcribe_all(model, golden_recordings(), LongformOptions())
        b = await transcribe_all(server, golden_recordings(), LongformOptions())
        print(compare(golden_recordings(), a, b).drift)  # 0.0 if all texts are equal

    The drift is the mixed error rate of B's text with A's as reference; an empty reference counts as one token.
    """
    rows, drifts, a_counts, b_counts = [], [], [], []
    for index, recording in enumerate(recordings):
        text_a, text_b = a.text(index), b.text(index)
        drift = _counts(text_a, text_b)
        drifts.append(drift)
        reference = recording.reference
        to_a, to_b = (_counts(reference, text_a), _counts(reference, text_b)) if reference is not None else (None, None)
        a_counts += [to_a] if to_a else []
        b_counts += [to_b] if to_b else []
        rows.append(
            ParityRow(
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
    return ParityReport(a.model, b.model, tuple(rows), pooled.rate, _pooled(a_counts), _pooled(b_counts))


class _InMemoryReader:
    """Samples in memory as a `Reader`."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def read(self, start: int, stop: int) -> Samples:
        return self._samples[start:stop]


def _in_memory(samples: Samples) -> AbstractContextManager[Reader]:
    return nullcontext(_InMemoryReader(samples))


def _counts(reference: str, hypothesis: str) -> Counts:
    return counts(read(reference).tokens, read(hypothesis).tokens)


def _pooled(counted: Sequence[Counts]) -> float | None:
    return reduce(add, counted).rate if counted else None

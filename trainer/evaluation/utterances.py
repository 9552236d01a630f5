"""What an evaluation set is made of, in whatever format it is stored."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from k2d.audio import AudioFile, SampleReader
from k2d.schema import SAMPLE_RATE_HZ, Samples
from trainer.evaluation.error_rates import NO_LANGUAGE, language_of

NO_REFERENCE: Final = "none"  # as a text: there is no trusted reference (a convention of this project's own sets)


@dataclass(frozen=True, slots=True)
class UtteranceReference:
    """What is said in one utterance; no audio."""

    name: str  # unique in its set
    texts: tuple[str, ...]  # as written, and as spoken where that differs; () where no reference is known
    language: str  # "zh", "en", "zh-en", "none" (nothing is said), or what its set calls it
    recording: str  # utterances of one recording are not independent of one another


class Excerpt:
    """Part of a file as a `k2d.inference.longform.Reader`: read forward, nothing behind is kept."""

    def __init__(self, file: AudioFile, *, start_s: float = 0.0, length_s: float | None = None) -> None:
        self._reader = SampleReader(file)
        self._start = round(start_s * SAMPLE_RATE_HZ)
        self._length = None if length_s is None else round(length_s * SAMPLE_RATE_HZ)
        self.samples = 0  # read so far

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) of the part; fewer past its end.

        Raises:
            AudioError: the file cannot be read or decoded that far.
        """
        if self._length is not None:
            stop = min(stop, self._length)
        if stop <= start:
            return np.zeros(0, np.int16)
        self._reader.forget(self._start + start)
        samples = self._reader.read(self._start + start, self._start + stop)
        self.samples = max(self.samples, start + len(samples))
        return samples

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """One utterance; its audio is opened when it is needed."""

    reference: UtteranceReference
    open: Callable[[], AbstractContextManager[Excerpt]]
    path: Path | None = None  # the local file that it is the whole of, if there is one
    timeline: Path | None = None  # JSON with the times of each sentence, if there is one


class EvaluationSet(Protocol):
    """Utterances in a fixed order; may be iterated several times, and is never in memory as a whole."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """The format, for the report."""
        ...

    @property
    def pseudo_labels(self) -> bool:
        """Whether a model wrote the references."""
        ...

    def references(self) -> Iterator[UtteranceReference]:
        """The references of all utterances, without reading audio.

        Raises:
            BadRequest: a row is damaged.
        """
        ...

    def utterances(self) -> Iterator[Utterance]:
        """The utterances, in the same order."""
        ...


def make_reference(
    *, name: str, text: object, spoken: object = None, language: str | None, recording: str | None
) -> UtteranceReference:
    """A row of any set as a reference; a text that is missing, or the word "none", is no reference."""
    known = [value for value in (text, spoken) if isinstance(value, str) and value.strip() != NO_REFERENCE]
    texts = tuple(dict.fromkeys(known)) if isinstance(text, str) and text.strip() != NO_REFERENCE else ()
    return UtteranceReference(
        name, texts, language or (language_of(texts[0]) if texts else NO_LANGUAGE), recording or name
    )


def opener(
    file: Callable[[], AudioFile], *, start_s: float = 0.0, length_s: float | None = None
) -> Callable[[], AbstractContextManager[Excerpt]]:
    """A function that opens a part of a file; `file` is called then, for a path or a new binary file."""
    return lambda: closing(Excerpt(file(), start_s=start_s, length_s=length_s))

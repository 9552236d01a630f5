"""What an evaluation set is made of, whatever format it came in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from k2d.audio import AudioFile, SampleReader
from k2d.schema import SAMPLE_RATE_HZ, Samples
from trainer.evaluation.error_rates import language_of

UNKNOWN = "none"  # as a text: nobody knows what is said (the convention of this project's measuring data)


@dataclass(frozen=True, slots=True)
class Said:
    """One utterance without its audio."""

    name: str  # unique in its set
    references: tuple[str, ...]  # as written, and as spoken where that differs; () when nobody knows
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
        found = self._reader.read(self._start + start, self._start + stop)
        self.samples = max(self.samples, start + len(found))
        return found

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """One utterance, to be opened when it is its turn."""

    said: Said
    open: Callable[[], AbstractContextManager[Excerpt]]
    path: Path | None = None  # the local file that it is the whole of, if there is one
    timeline: Path | None = None  # JSON that says when each sentence was said, if there is one


class EvaluationSet(Protocol):
    """Utterances in a fixed order; may be walked several times, and never is in memory as a whole."""

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

    def said(self) -> Iterator[Said]:
        """All utterances, without touching audio.

        Raises:
            BadRequest: a row is damaged.
        """
        ...

    def utterances(self) -> Iterator[Utterance]:
        """The same ones, in the same order, ready to be opened."""
        ...


def said(*, name: str, text: object, spoken: object = None, language: str | None, recording: str | None) -> Said:
    """One row of any set: texts that are missing, or the word "none", are no references."""
    known = [value for value in (text, spoken) if isinstance(value, str) and value.strip() != UNKNOWN]
    references = tuple(dict.fromkeys(known)) if isinstance(text, str) and text.strip() != UNKNOWN else ()
    found = language or (language_of(references[0]) if references else UNKNOWN)
    return Said(name, references, found, recording or name)


def opener(
    file: Callable[[], AudioFile], *, start_s: float = 0.0, length_s: float | None = None
) -> Callable[[], AbstractContextManager[Excerpt]]:
    """What opens a part of a file; `file` is called then, for a path or a new binary file."""
    return lambda: closing(Excerpt(file(), start_s=start_s, length_s=length_s))

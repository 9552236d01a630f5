"""Hashes the samples that the teacher reads, so that labels are stored under the recording they belong to."""

import hashlib
from collections.abc import Callable
from typing import Final

from k2d import audio
from k2d.errors import AudioError
from k2d.keys import recording_id
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Recording, Samples

_BLOCK: Final = 30 * SAMPLE_RATE_HZ  # samples that are read at once where the caller has not asked for them
# reasons that lie in the bytes of a file: where it was examined without them, it was another file
_OF_CONTENT: Final = frozenset(
    (QuarantineReason.NOT_AUDIO, QuarantineReason.TRUNCATED, QuarantineReason.DAMAGED, QuarantineReason.NO_CHANNEL)
)


class SourceChanged(AudioError):
    """The source changed while it was read: it had other samples when it was labeled than when it was examined."""

    def __init__(self, duration_s: float) -> None:
        super().__init__(
            "The file changed while it was read: it had other samples in one pass than in another.",
            reason=QuarantineReason.CHANGED,
            hint="retry the batch once the file is no longer written to, or upload it",
            duration_s=duration_s,
        )


class HashedReader:
    """A `SampleReader` of an examined recording that also computes the id of the samples it reads.

        reader = HashedReader(samples, recording)
        window = reader.read(0, 480_000)
        reader.verify()  # SourceChanged if the file does not have the samples of `recording`

    Every sample is hashed once, in order, also what is skipped or forgotten, and given to `hear`. Not to be used by two
    threads at once.
    """

    def __init__(
        self, reader: audio.SampleReader, recording: Recording, *, hear: Callable[[Samples], None] = lambda _: None
    ) -> None:
        self._reader = reader
        self._recording = recording
        self._hear = hear
        self._sha256 = hashlib.sha256()
        self._hashed = 0  # samples

    def read(self, start: int, stop: int) -> Samples:
        """Return a copy of samples [start, stop), shape (n,); fewer, or none, past the end of the recording.

        Raises:
            ValueError: the samples were dropped by `forget`.
            SourceChanged: the file cannot be decoded any more.
            AudioError: it cannot be read.
        """
        while self._hashed < start and self._hash(start):
            pass
        samples = self._read(start, stop)
        self._update(samples, start)
        return samples

    def forget(self, before: int) -> None:
        """Drop the samples before this index; those that are not hashed yet are hashed first."""
        while self._hashed < before and self._hash(before):
            self._reader.forget(self._hashed)
        self._reader.forget(min(before, self._hashed))

    def verify(self) -> None:
        """Read the rest of the file, and check that its samples are those of the recording.

        Raises:
            SourceChanged: they are not.
        """
        while self._hashed <= self._recording.samples and self._hash(self._recording.samples + 1):
            self._reader.forget(self._hashed)
        if self._hashed != self._recording.samples or recording_id(self._sha256.hexdigest()) != self._recording.id:
            raise SourceChanged(self._recording.duration_s)

    def _hash(self, stop: int) -> bool:
        """Hash at most one block of the samples up to `stop`; False at the end of the recording."""
        start = self._hashed
        self._update(self._read(start, min(stop, start + _BLOCK)), start)
        return self._hashed > start

    def _update(self, samples: Samples, start: int) -> None:
        fresh = samples[self._hashed - start :]
        self._sha256.update(fresh.astype("<i2", copy=False).tobytes())
        self._hashed += len(fresh)
        self._hear(fresh)

    def _read(self, start: int, stop: int) -> Samples:
        try:
            return self._reader.read(start, stop)
        except AudioError as error:
            if error.reason in _OF_CONTENT:  # the same bytes were decoded before
                raise SourceChanged(self._recording.duration_s) from error
            raise

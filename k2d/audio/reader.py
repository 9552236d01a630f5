"""Reads samples of a recording by index, forward, without holding the whole recording in memory."""

from collections import deque
from collections.abc import Callable, Generator
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np

from k2d.audio.decode import blocks
from k2d.audio.media import AudioFile
from k2d.schema import Recording, Samples


class SampleReader:
    """The samples of a file by index, decoded on demand; a context manager.

        with SampleReader("talk.m4a") as reader:
            window = reader.read(0, 480_000)  # the first 30 s: int16, shape (480000,)
            reader.forget(480_000)

    Decoded samples are kept until `forget` drops them, so the caller bounds the memory. Thread-safe; concurrent calls
    wait for one another. A file object that was passed in is not closed.
    """

    def __init__(
        self,
        file: AudioFile,
        *,
        recording: Recording | None = None,
        decode: Callable[..., Generator[Samples, None, None]] = blocks,
    ) -> None:
        """Read the samples of a recording as it was examined; without one, the mean of all channels.

        `decode` has the arguments of `k2d.audio.blocks`, and returns the same.
        """
        if recording is None:
            self._blocks = decode(file)
        else:
            stop = recording.samples if recording.quarantine_reason else None
            self._blocks = decode(file, channels=recording.channels, stop=stop)
        self._decoded: deque[Samples] = deque()  # adjacent blocks
        self._start = 0  # index of the first sample in them
        self._stop = 0  # index behind the last sample in them
        self._keep = 0  # samples before this index are no longer needed
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, start: int, stop: int) -> Samples:
        """Return a copy of samples [start, stop), shape (n,); fewer, or none, past the end of the recording.

        Raises:
            ValueError: `start` is negative, or was dropped by `forget`.
            AudioError: the file cannot be decoded that far.
        """
        with self._lock:
            if start < self._start or start < self._keep:
                raise ValueError(
                    f"sample {start} was forgotten: samples from {max(self._start, self._keep)} on are kept"
                )
            while self._stop < stop and (block := next(self._blocks, None)) is not None:
                self._decoded.append(block)
                self._stop += len(block)
                self._drop()
            parts = []
            at = self._start
            for block in self._decoded:
                if at + len(block) > start and at < stop:
                    parts.append(block[max(0, start - at) : max(0, stop - at)])
                at += len(block)
            return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def forget(self, before: int) -> None:
        """Drop the samples before this index, including those that are yet to be decoded."""
        with self._lock:
            self._keep = max(self._keep, before)
            self._drop()

    def close(self) -> None:
        """Close the decoder and drop all samples."""
        with self._lock:
            self._blocks.close()
            self._decoded.clear()
            self._start = self._stop

    def _drop(self) -> None:
        while self._decoded and self._start + len(self._decoded[0]) <= self._keep:
            self._start += len(self._decoded.popleft())

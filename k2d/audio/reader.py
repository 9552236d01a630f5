"""Random access, forward in effect, over a recording that never is in memory as a whole."""

from collections import deque
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np

from k2d.audio.decode import blocks
from k2d.audio.media import AudioFile
from k2d.schema import Samples


class SampleReader:
    """The samples of a file by index, decoded as far as they are asked for; a context manager.

    What was decoded stays until `forget` drops it, so the caller bounds the memory. Calls may come from any thread;
    they wait for one another. A file object that was handed in is not closed.
    """

    def __init__(self, file: AudioFile) -> None:
        self._blocks = blocks(file)
        self._held: deque[Samples] = deque()
        self._start = 0  # index of the first sample held
        self._stop = 0  # index behind the last sample decoded
        self._keep = 0  # samples before this index are not wanted any more
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop), shape (n,); fewer, or none, past the end of the recording. The caller owns them.

        Raises:
            ValueError: `start` lies before what is held, or is negative.
            AudioError: the file cannot be decoded that far.
        """
        with self._lock:
            if start < self._start or start < self._keep:
                raise ValueError(f"sample {start} was forgotten: what is held begins at {max(self._start, self._keep)}")
            while self._stop < stop and (block := next(self._blocks, None)) is not None:
                self._held.append(block)
                self._stop += len(block)
                self._drop()
            parts = []
            at = self._start
            for block in self._held:
                if at + len(block) > start and at < stop:
                    parts.append(block[max(0, start - at) : max(0, stop - at)])
                at += len(block)
            return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def forget(self, before: int) -> None:
        """Drop samples before this index, also those that are still to be decoded."""
        with self._lock:
            self._keep = max(self._keep, before)
            self._drop()

    def close(self) -> None:
        """Close the decoder and drop all samples."""
        with self._lock:
            self._blocks.close()
            self._held.clear()
            self._start = self._stop

    def _drop(self) -> None:
        while self._held and self._start + len(self._held[0]) <= self._keep:
            self._start += len(self._held.popleft())

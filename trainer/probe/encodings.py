"""The encoder's output for every example, computed once and kept on disk while the probe trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.schema import Samples, Window
from k2d.validators.probe.network import frames_of
from k2d.whisper.engine import Engine


class Encodings:
    """Frames of float16 in one memory-mapped file, so that they may exceed the memory.

    An hour of speech takes 180,000 frames of 20 ms: 184 MB for Whisper base (width 512), 461 MB for large (1280).

        encodings = Encodings(Path("tmp"), engine, batch_size=16)
        encodings.add(samples)
        encodings.finish()
        encodings.read(0)  # (frames, 512)
    """

    def __init__(self, folder: Path, engine: Engine, *, batch_size: int) -> None:
        self._path = folder / "encodings.f16"
        self._file = self._path.open("wb")
        self._engine = engine
        self._batch_size = batch_size
        self._pending: list[Samples] = []
        self._spans: list[tuple[int, int]] = []  # of each example: first frame and end
        self._frames = 0
        self._width = 0
        self._sum: npt.NDArray[np.float64] = np.zeros(0)
        self._squares: npt.NDArray[np.float64] = np.zeros(0)
        self._map: Any = None

    def __len__(self) -> int:
        return len(self._spans) + len(self._pending)

    @property
    def width(self) -> int:
        return self._width

    @property
    def nbytes(self) -> int:
        return self._frames * self._width * np.dtype(np.float16).itemsize

    def add(self, samples: Samples) -> None:
        """Add an example's audio (n,); it is encoded together with the next ones.

        Raises:
            ModelError: the engine failed.
            OSError: the disk is full.
        """
        self._pending.append(samples)
        if len(self._pending) == self._batch_size:
            self._encode()

    def finish(self) -> None:
        """Encode the last examples, and open the file for reading."""
        if self._pending:
            self._encode()
        self._file.close()
        shape = (self._frames, self._width)
        self._map = np.memmap(self._path, np.float16, "r", shape=shape) if self._frames else None

    def statistics(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean over all frames, and one over the standard deviation; shape (width,) each."""
        mean = self._sum / self._frames
        deviation = np.sqrt(np.maximum(self._squares / self._frames - mean**2, 1e-8))  # not 0, which is divided by
        return mean.astype(np.float32), (1.0 / deviation).astype(np.float32)

    def padded(self, indices: Sequence[int]) -> npt.NDArray[np.float16]:
        """Examples as a batch (B, longest, width), padded with zeros at the end."""
        spans = [self._spans[index] for index in indices]
        longest = max(end - start for start, end in spans)
        out = np.zeros((len(spans), longest, self._width), np.float16)
        for row, (start, end) in zip(out, spans, strict=True):
            row[: end - start] = self._map[start:end]
        return out

    def read(self, index: int) -> npt.NDArray[np.float16]:
        """One example, shape (frames, width)."""
        start, end = self._spans[index]
        return np.asarray(self._map[start:end])

    def _encode(self) -> None:
        encoded = self._engine.encode([Window(samples) for samples in self._pending])  # (B, 1500, width)
        if not self._width:
            self._width = encoded.shape[2]
            self._sum, self._squares = np.zeros(self._width), np.zeros(self._width)
        for samples, padded in zip(self._pending, encoded, strict=True):
            frames = padded[: frames_of(len(samples))]  # (frames, width): those that have audio
            self._file.write(np.ascontiguousarray(frames).tobytes())
            self._spans.append((self._frames, self._frames + len(frames)))
            self._frames += len(frames)
            exact = frames.astype(np.float64)
            self._sum += exact.sum(axis=0)
            self._squares += (exact**2).sum(axis=0)
        self._pending = []

"""The encoder's output of every example, computed once and kept on disk while the probe trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.schema import Samples, Window
from k2d.validators.probe.network import frames_of
from k2d.whisper.engine import Engine


class Encodings:
    """Rows of float16 in one file, read through the page cache: what does not fit in memory costs no memory.

    An hour of speech takes 180,000 rows: 184 MB for Whisper base (width 512), 461 MB for large (1280).
    """

    def __init__(self, folder: Path, engine: Engine, *, batch_size: int) -> None:
        self._path = folder / "encodings.f16"
        self._file = self._path.open("wb")
        self._engine = engine
        self._batch_size = batch_size
        self._waiting: list[Samples] = []
        self._spans: list[tuple[int, int]] = []
        self._rows = 0
        self._width = 0
        self._sum: npt.NDArray[np.float64] = np.zeros(0)
        self._squares: npt.NDArray[np.float64] = np.zeros(0)
        self._map: Any = None

    def __len__(self) -> int:
        return len(self._spans) + len(self._waiting)

    @property
    def width(self) -> int:
        return self._width

    @property
    def nbytes(self) -> int:
        return self._rows * self._width * 2

    def add(self, samples: Samples) -> None:
        """Take an example's audio; it is encoded with the next ones.

        Raises:
            ModelError: the engine failed.
            OSError: the disk is full.
        """
        self._waiting.append(samples)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def finish(self) -> None:
        """Encode what waits, and open the file for reading."""
        if self._waiting:
            self._encode()
        self._file.close()
        self._map = np.memmap(self._path, np.float16, "r", shape=(self._rows, self._width)) if self._rows else None

    def statistics(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean of each of the width's values, and one over its deviation."""
        mean = self._sum / self._rows
        deviation = np.sqrt(np.maximum(self._squares / self._rows - mean**2, 1e-8))
        return mean.astype(np.float32), (1.0 / deviation).astype(np.float32)

    def padded(self, indices: Sequence[int]) -> npt.NDArray[np.float16]:
        """Some examples, shape (n, longest, width), zeros behind each; every length is a multiple of two at most."""
        spans = [self._spans[index] for index in indices]
        longest = max(end - start for start, end in spans)
        out = np.zeros((len(spans), longest, self._width), np.float16)
        for row, (start, end) in zip(out, spans, strict=True):
            row[: end - start] = self._map[start:end]
        return out

    def one(self, index: int) -> npt.NDArray[np.float16]:
        """One example, shape (frames, width)."""
        start, end = self._spans[index]
        return np.asarray(self._map[start:end])

    def _encode(self) -> None:
        encoded = self._engine.encode([Window(samples) for samples in self._waiting])
        if not self._width:
            self._width = encoded.shape[2]
            self._sum, self._squares = np.zeros(self._width), np.zeros(self._width)
        for samples, row in zip(self._waiting, encoded, strict=True):
            rows = row[: frames_of(len(samples))]
            self._file.write(np.ascontiguousarray(rows).tobytes())
            self._spans.append((self._rows, self._rows + len(rows)))
            self._rows += len(rows)
            exact = rows.astype(np.float64)
            self._sum += exact.sum(axis=0)
            self._squares += (exact**2).sum(axis=0)
        self._waiting = []

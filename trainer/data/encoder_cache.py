"""A cache of the frozen encoder's output: with it, all epochs but the first need no encoder."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from k2d.whisper.features import Features

GIB: Final = 2**30


class EncoderCache:
    """Encodes rows and keeps the results, in memory of the host, until `limit_gib` are full. Nothing is evicted.

    With a limit above 0 rows are encoded one at a time: the shape of a batch decides the last bits of a matrix
    product, and a run that is resumed after a crash must not depend on which rows were encoded together before it.
    """

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor], *, device: Any, limit_gib: float) -> None:
        self._encode = encode
        self._device = device
        self._room = int(limit_gib * GIB)
        self._limited = limit_gib > 0
        self._kept: dict[str, torch.Tensor] = {}

    def is_missing(self, row_id: str) -> bool:
        """Whether this row has to be encoded, so that its features are needed."""
        return row_id not in self._kept

    def __call__(self, ids: Sequence[str], features: Sequence[Features | None]) -> torch.Tensor:
        """The encoder's output (B, 1500, width) for rows with features of shape (mels, 3000)."""
        if not self._limited:
            return self._encode(stack_features(features, device=self._device))
        return torch.cat([self._encode_row(*row) for row in zip(ids, features, strict=True)])

    def _encode_row(self, row_id: str, features: Features | None) -> torch.Tensor:
        kept = self._kept.get(row_id)
        if kept is not None:
            return kept.to(self._device)
        encoded = self._encode(stack_features([features], device=self._device))  # (1, 1500, width)
        if encoded.nbytes <= self._room:
            self._room -= encoded.nbytes
            self._kept[row_id] = encoded.cpu()
        return encoded


def stack_features(features: Sequence[Features | None], *, device: Any) -> torch.Tensor:
    """Features of rows, each (mels, 3000), as one tensor (B, mels, 3000) on a device.

    They are copied to a GPU from pinned memory, which does not wait for work that is queued there.

    Raises:
        ValueError: a row has none.
    """
    rows = [torch.from_numpy(row) for row in features if row is not None]
    if len(rows) != len(features):
        raise ValueError("a row has neither features nor a cached encoding")
    pinned = torch.device(device).type == "cuda"
    batch = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, pin_memory=pinned)
    return torch.stack(rows, out=batch).to(device, non_blocking=True)

"""The frozen encoder's output, kept for datasets that fit: of many epochs, all but the first need no encoder."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from k2d.whisper.features import Features

GIB = 2**30


class Encoded:
    """Encodes rows; keeps what it has encoded, up to a limit. What is kept is never dropped again.

    With a limit above 0 rows are encoded one at a time: the shape of a batch decides the last bits of a product, and
    a run that goes on after a crash must not depend on which rows had met before it.
    """

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor], *, device: Any, limit_gib: float) -> None:
        self._encode = encode
        self._device = device
        self._room = int(limit_gib * GIB)
        self._limited = limit_gib > 0
        self._kept: dict[str, torch.Tensor] = {}

    def missing(self, row: str) -> bool:
        """Whether a row's features will be needed."""
        return row not in self._kept

    def __call__(self, ids: Sequence[str], features: Sequence[Features | None]) -> torch.Tensor:
        """The encoder's output, shape (B, 1500, width), of rows with features of shape (mels, 3000)."""
        if not self._limited:
            return self._encode(stacked(features, device=self._device))
        return torch.cat([self._one(row, held) for row, held in zip(ids, features, strict=True)])

    def _one(self, row: str, features: Features | None) -> torch.Tensor:
        known = self._kept.get(row)
        if known is not None:
            return known.to(self._device)
        encoded = self._encode(stacked([features], device=self._device))
        size = encoded.nbytes
        if size <= self._room:
            self._room -= size
            self._kept[row] = encoded.cpu()
        return encoded


def stacked(features: Sequence[Features | None], *, device: Any) -> torch.Tensor:
    """Rows of features of shape (mels, 3000) as one tensor (B, mels, 3000) on a device.

    To a GPU they go from pinned memory, so that nobody waits for what is queued there.

    Raises:
        ValueError: a row has none.
    """
    held = [torch.from_numpy(row) for row in features if row is not None]
    if len(held) != len(features):
        raise ValueError("a row has neither features nor a kept encoding")
    pinned = torch.device(device).type == "cuda"
    found = torch.empty((len(held), *held[0].shape), dtype=held[0].dtype, pin_memory=pinned)
    return torch.stack(held, out=found).to(device, non_blocking=True)

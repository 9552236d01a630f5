"""Rows prepared for the models, and micro-batches of them, in numpy; no torch here."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.whisper.features import Features

IGNORED: Final = -100  # a target that no loss counts, as in torch's cross-entropy


@dataclass(frozen=True, slots=True)
class DecoderTokens:
    """One row's label as tokens.

    `tokens` is the whole decoder sequence: [previous text,] start, language, task, [no-timestamps,] text, end.
    `prompt` says how many of them are given and not learned.
    """

    tokens: tuple[int, ...]
    prompt: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRow:
    """One row as the models take it."""

    id: str
    features: Features | None  # float32 (mels, 3000); None where they were not asked for
    label: DecoderTokens
    seconds: float  # of audio


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows that go through the models together: B rows, T positions (the longest row's; shorter ones are padded)."""

    ids: tuple[str, ...]  # of the rows
    features: tuple[Features | None, ...]  # B times (mels, 3000); None where they were not asked for
    inputs: npt.NDArray[np.int64]  # (B, T): tokens without the last; padded with end-of-text
    targets: npt.NDArray[np.int64]  # (B, T): tokens without the first; IGNORED for the prompt and padding
    weights: npt.NDArray[np.float32]  # (B,)
    seconds: float  # of audio, all rows

    @property
    def tokens(self) -> int:
        """How many targets the loss counts."""
        return int((self.targets != IGNORED).sum())


def cut_by_length(rows: list[PreparedRow], parts: int) -> list[list[PreparedRow]]:
    """Cut a step's rows into as many parts as asked, or as there are rows, longest labels first: less is padding then.

    Parts differ by one row at most. Rows of one length keep their order.
    """
    ordered = sorted(rows, key=lambda row: -len(row.label.tokens))
    ends = [len(rows) * part // parts for part in range(parts + 1)]
    return [ordered[start:end] for start, end in pairwise(ends) if start < end]


def collate(rows: list[PreparedRow], *, pad: int) -> MicroBatch:
    """Make a micro-batch of rows, padded to the longest of them."""
    longest = max(len(row.label.tokens) for row in rows) - 1  # inputs lack the last token, targets the first
    inputs = np.full((len(rows), longest), pad, dtype=np.int64)
    targets = np.full((len(rows), longest), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        tokens, prompt = row.label.tokens, row.label.prompt
        inputs[index, : len(tokens) - 1] = tokens[:-1]
        targets[index, prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return MicroBatch(
        ids=tuple(row.id for row in rows),
        features=tuple(row.features for row in rows),
        inputs=inputs,
        targets=targets,
        weights=np.array([row.label.weight for row in rows], dtype=np.float32),
        seconds=sum(row.seconds for row in rows),
    )

"""What data hands to the loop: rows ready for the models, in numpy; no torch here."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2d.whisper.features import Features

IGNORED = -100  # a target that no loss counts, as torch's cross-entropy has it


@dataclass(frozen=True, slots=True)
class Example:
    """One row as tokens.

    `tokens` is the whole decoder sequence: [previous text,] start, language, task, [no-timestamps,] text, end.
    `prompt` says how many of them are given and not learned.
    """

    tokens: tuple[int, ...]
    prompt: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of the stream."""

    id: str
    features: Features | None  # float32 (mels, 3000); None: not asked for
    example: Example
    seconds: float  # of audio


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows that go through the models together; B rows, T positions (the longest row's; the rest is padding)."""

    ids: tuple[str, ...]  # of the rows
    features: tuple[Features | None, ...]  # B times (mels, 3000); None where it was not asked for
    inputs: npt.NDArray[np.int64]  # (B, T): tokens without the last; padded with end-of-text
    targets: npt.NDArray[np.int64]  # (B, T): tokens without the first; IGNORED for the prompt and padding
    weights: npt.NDArray[np.float32]  # (B,)
    seconds: float  # of audio, all rows

    @property
    def tokens(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORED).sum())


def collate(rows: list[Row], *, pad: int) -> MicroBatch:
    """Put rows side by side; as long as the longest, no longer."""
    longest = max(len(row.example.tokens) for row in rows) - 1
    inputs = np.full((len(rows), longest), pad, dtype=np.int64)
    targets = np.full((len(rows), longest), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        tokens, prompt = row.example.tokens, row.example.prompt
        inputs[index, : len(tokens) - 1] = tokens[:-1]
        targets[index, prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return MicroBatch(
        ids=tuple(row.id for row in rows),
        features=tuple(row.features for row in rows),
        inputs=inputs,
        targets=targets,
        weights=np.array([row.example.weight for row in rows], dtype=np.float32),
        seconds=sum(row.seconds for row in rows),
    )

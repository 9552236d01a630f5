"""Rows kept out of training, to validate on."""

from collections.abc import Iterator
from dataclasses import dataclass

from k2d.datasets.read import FrozenDataset, RowGroup
from k2d.errors import StoreError
from k2d.schema import WINDOW_SAMPLES, Samples
from trainer.data.draws import share
from trainer.data.prepare import decode, held_out

SPREAD = 16  # row groups to look into before one gives more than its part, where there are so many


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A row with its pseudo-label, which is no reference but the teacher's word."""

    id: str
    samples: Samples  # (n,)
    text: str
    language: str
    seconds: float


def choose(dataset: FrozenDataset, *, holdout: float, limit: int) -> list[HeldOut]:
    """At most `limit` rows of held-out recordings, from many places; the same ones for every seed and process.

    Rows whose audio is damaged or that have no text are passed over.

    Raises:
        StoreError: a shard is gone or damaged.
    """
    if holdout <= 0.0:
        return []
    found = _find(dataset, holdout=holdout, limit=limit)
    in_turn = sorted((turn, place, row) for place, rows in enumerate(found.values()) for turn, row in enumerate(rows))
    chosen = {(place, row) for _, place, row in in_turn[:limit]}
    return [
        row
        for place, group in enumerate(found)
        for row in _rows(dataset, group, sorted(number for at, number in chosen if at == place))
    ]


def _find(dataset: FrozenDataset, *, holdout: float, limit: int) -> dict[RowGroup, list[int]]:
    """Held-out rows by row group, looked through in a fixed random order until there are enough; reads ids only."""
    found: dict[RowGroup, list[int]] = {}
    part = -(-limit // SPREAD)
    for group in sorted(dataset.groups(), key=lambda one: share("validate", one.shard, one.number)):
        rows = dataset.read(group, ["recording_id"])
        found[group] = [n for n, row in enumerate(rows) if held_out(row["recording_id"], share_of=holdout)]
        if sum(min(len(numbers), part) for numbers in found.values()) >= limit:
            break
    return {group: numbers for group, numbers in found.items() if numbers}


def _rows(dataset: FrozenDataset, group: RowGroup, numbers: list[int]) -> Iterator[HeldOut]:
    rows = dataset.read(group, ("id", "audio.bytes", "text", "language", "duration_s")) if numbers else []
    for number in numbers:
        fields = rows[number]
        try:
            samples = decode(fields)
        except StoreError:
            continue  # of the rows trained on, such ones are counted and named; here one more or less does not matter
        if fields["text"].strip() and len(samples) <= WINDOW_SAMPLES:
            yield HeldOut(fields["id"], samples, fields["text"], fields["language"], fields["duration_s"])

"""The rows kept out of training to validate on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from k2d.datasets.read import FrozenDataset, RowGroup
from k2d.errors import StoreError
from k2d.schema import WINDOW_SAMPLES, Samples
from trainer.data.draws import share
from trainer.data.prepare import decode_row, is_held_out

SPREAD: Final = 16  # the rows come from at least this many row groups, where the dataset has so many


@dataclass(frozen=True, slots=True, eq=False)
class HoldoutRow:
    """A row to validate on. Its text is the teacher's pseudo-label, not a human reference."""

    id: str
    samples: Samples  # (n,)
    text: str
    language: str
    seconds: float


def holdout_rows(dataset: FrozenDataset, *, holdout: float, limit: int) -> list[HoldoutRow]:
    """At most `limit` rows of held-out recordings, spread over the dataset; the same ones for every seed and process.

    Rows whose audio is damaged or that have no text are left out.

    Raises:
        StoreError: a shard is gone or damaged.
    """
    if holdout <= 0.0:
        return []
    candidates = _candidates(dataset, holdout=holdout, limit=limit)
    # the first row of each group, then the second of each, and so on until there are enough
    by_turn = sorted(
        (turn, place, number)
        for place, numbers in enumerate(candidates.values())
        for turn, number in enumerate(numbers)
    )
    chosen = {(place, number) for _, place, number in by_turn[:limit]}
    return [
        row
        for place, group in enumerate(candidates)
        for row in _read_rows(dataset, group, sorted(number for at, number in chosen if at == place))
    ]


def _candidates(dataset: FrozenDataset, *, holdout: float, limit: int) -> dict[RowGroup, list[int]]:
    """The numbers of held-out rows by row group, in a fixed random order of groups until there are enough.

    Only ids are read.
    """
    by_group: dict[RowGroup, list[int]] = {}
    most_of_one = -(-limit // SPREAD)
    for group in sorted(dataset.groups(), key=lambda group: share("validate", group.shard, group.number)):
        rows = dataset.read(group, ["recording_id"])
        by_group[group] = [n for n, row in enumerate(rows) if is_held_out(row["recording_id"], share_of=holdout)]
        if sum(min(len(numbers), most_of_one) for numbers in by_group.values()) >= limit:
            break
    return {group: numbers for group, numbers in by_group.items() if numbers}


def _read_rows(dataset: FrozenDataset, group: RowGroup, numbers: list[int]) -> Iterator[HoldoutRow]:
    rows = dataset.read(group, ("id", "audio.bytes", "text", "language", "duration_s")) if numbers else []
    for number in numbers:
        fields = rows[number]
        try:
            samples = decode_row(fields)
        except StoreError:
            continue  # damaged rows are counted and named where they are trained on; one row fewer does not matter here
        if fields["text"].strip() and len(samples) <= WINDOW_SAMPLES:
            yield HoldoutRow(fields["id"], samples, fields["text"], fields["language"], fields["duration_s"])

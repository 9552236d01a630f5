"""Rows kept out of training, to validate on."""

from collections.abc import Iterator
from dataclasses import dataclass

from k2d.datasets.frozen import Frozen, Group
from k2d.errors import StoreError
from k2d.schema import WINDOW_SAMPLES, Samples
from trainer.draws import share
from trainer.prepare import decode, held_out

SPREAD = 16  # groups that the first choice is spread over, at least, where there are so many


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A row with its pseudo-label, which is no reference but the teacher's word."""

    id: str
    samples: Samples  # (n,)
    text: str
    language: str
    seconds: float


def choose(dataset: Frozen, *, holdout: float, limit: int) -> list[HeldOut]:
    """At most `limit` rows of held-out recordings, from many places; the same ones for every seed and process.

    Row groups are looked through in a fixed random order until there are enough; only ids are read for that. Rows
    whose audio is damaged or that have no text are passed over.

    Raises:
        StoreError: a shard is gone or damaged.
    """
    groups = sorted(dataset.groups(), key=lambda group: share("validate", group.shard, group.number))
    most = -(-limit // SPREAD)  # of one group, before others had their turn
    found: dict[Group, list[int]] = {}
    for group in groups if holdout > 0.0 else ():
        recordings = dataset.read(group, ["recording_id"])
        found[group] = [n for n, row in enumerate(recordings) if held_out(row["recording_id"], share_of=holdout)]
        if sum(min(len(rows), most) for rows in found.values()) >= limit:
            break
    turns = sorted((turn, order, row) for order, rows in enumerate(found.values()) for turn, row in enumerate(rows))[
        :limit
    ]
    chosen: dict[int, list[int]] = {}
    for _, order, row in turns:
        chosen.setdefault(order, []).append(row)
    order_of = list(found)
    return [row for order in sorted(chosen) for row in _rows(dataset, order_of[order], sorted(chosen[order]))]


def _rows(dataset: Frozen, group: Group, wanted: list[int]) -> Iterator[HeldOut]:
    rows = dataset.read(group, ("id", "audio.bytes", "text", "language", "duration_s"))
    for number in wanted:
        fields = rows[number]
        try:
            samples = decode(fields)
        except StoreError:
            continue  # training counts and names such rows; here one more or less does not matter
        if fields["text"].strip() and len(samples) <= WINDOW_SAMPLES:
            yield HeldOut(fields["id"], samples, fields["text"], fields["language"], fields["duration_s"])

"""Chunks near a policy's boundary, and chunks on which two policies differ, with what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.corpus import cursor as cursors
from k2d.corpus.chunk_pages import chunk_rows
from k2d.corpus.explore import Explorer, Floats
from k2d.corpus.index import Part
from k2d.documents import ChunkRow
from k2d.filtering.policy import Policy, decide
from k2d.schema import Batch, Verdict

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The chunks whose distance or risk is nearest to α, the nearest first."""

    kept: list[ChunkRow]
    rejected: list[ChunkRow]  # by their distance or risk; what a rule rejects has no place on the scale


def nearest(explorer: Explorer, batches: Sequence[Batch], policy: Policy, *, each: int = 10) -> Boundary:
    """Find the chunks nearest to α, `each` on both sides.

    nearest(Explorer(lake), [batch], DEFAULT).kept[0].teacher_text
    """
    all_parts = explorer.parts(batches)
    return explorer.remembered_of_all(
        all_parts, f"nearest {each}", policy, lambda: _nearest(explorer, all_parts, policy, each)
    )


def _nearest(explorer: Explorer, all_parts: Sequence[Part], policy: Policy, each: int) -> Boundary:
    least = [explorer.least(part, policy) for part in all_parts]
    sides = []
    for is_kept in (True, False):
        places = [
            (abs(float(values[row]) - policy.alpha), number, int(row))
            for number, values in enumerate(least)
            for row in _near(values, policy.alpha, is_kept=is_kept, most=each)
        ]
        chosen = [(number, row) for _, number, row in sorted(places)[:each]]
        sides.append(_documents(all_parts, policy, chosen))
    return Boundary(*sides)


def _near(least: Floats, alpha: float, *, is_kept: bool, most: int) -> Rows:
    """Up to `most` rows of one side that are nearest to α; of equally near ones the first."""
    kept = least <= alpha
    rows = np.flatnonzero(kept if is_kept else ~kept & np.isfinite(least))
    if len(rows) <= most:
        return rows
    away = np.abs(least[rows] - least.dtype.type(alpha))
    limit = np.partition(away, most - 1)[most - 1]
    nearer = rows[away < limit]
    return np.concatenate([nearer, rows[away == limit][: most - len(nearer)]])


def _documents(all_parts: Sequence[Part], policy: Policy, places: Sequence[tuple[int, int]]) -> list[ChunkRow]:
    """The documents of chunks by (part, row), in the order of `places`; each part is read once."""
    documents: dict[tuple[int, int], ChunkRow] = {}
    for number in sorted({number for number, _ in places}):
        rows = np.array(sorted(row for part, row in places if part == number), np.int64)
        found = chunk_rows(all_parts[number], policy, rows)
        documents |= {(number, int(row)): chunk for row, chunk in zip(rows, found, strict=True)}
    return [documents[place] for place in places]


# ---- two policies -------------------------------------------------------------------------------------------------


class Side(StrEnum):
    """Which of the chunks that two policies judge differently."""

    BOTH = "both"
    FIRST = "first"  # kept by the first policy only
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Flip:
    """A chunk that one of two policies keeps whole."""

    chunk: ChunkRow  # under the first policy
    first: Verdict
    second: Verdict


@dataclass(frozen=True, slots=True)
class Flips:
    """One page of the chunks that exactly one of two policies keeps whole, and how many there are."""

    first_chunks: int  # kept by the first policy only
    first_ms: int
    second_chunks: int
    second_ms: int
    rows: list[Flip]
    next: str | None  # cursor of the next page


def flips(
    explorer: Explorer,
    batches: Sequence[Batch],
    first: Policy,
    second: Policy,
    *,
    side: Side = Side.BOTH,
    limit: int = 25,
    cursor: str | None = None,
) -> Flips:
    """Compare two policies: which chunks does only one of them keep whole?

        flips(Explorer(lake), [batch], DEFAULT, PAPER).rows[0].chunk.teacher_text

    Raises:
        BadRequest: the cursor is not valid.
    """
    after = (0, -1) if cursor is None else cursors.decode(cursor, least=-1)
    sums = np.zeros(4, np.int64)  # chunks and ms of the first policy only, and of the second
    page: list[Flip] = []
    next_place: tuple[int, int] | None = None
    for number, part in enumerate(explorer.parts(batches)):
        kept = explorer.least(part, first) <= first.alpha
        other = explorer.least(part, second) <= second.alpha
        ms = part.chunks["ms"]
        only = {Side.FIRST: np.flatnonzero(kept & ~other), Side.SECOND: np.flatnonzero(other & ~kept)}
        sums += [value for rows in only.values() for value in (len(rows), int(ms[rows].sum(dtype=np.int64)))]
        rows = np.flatnonzero(kept != other) if side is Side.BOTH else only[side]
        if number < after[0] or next_place is not None:
            continue
        rows = rows[rows > after[1]] if number == after[0] else rows
        chosen = rows[: limit - len(page)]
        if len(chosen):
            page += _flips(part, first, second, chosen)
        if len(rows) > len(chosen):
            next_place = (number, int(chosen[-1]) if len(chosen) else after[1] if number == after[0] else -1)
    first_chunks, first_ms, second_chunks, second_ms = map(int, sums)
    return Flips(
        first_chunks=first_chunks,
        first_ms=first_ms,
        second_chunks=second_chunks,
        second_ms=second_ms,
        rows=page,
        next=None if next_place is None else cursors.encode(next_place),
    )


def _flips(part: Part, first: Policy, second: Policy, rows: Rows) -> list[Flip]:
    columns: dict[str, npt.NDArray[Any]] = {name: column[rows] for name, column in part.chunks.items()}
    verdicts = decide(second, columns)
    return [
        Flip(chunk, Verdict(chunk.verdict, chunk.reason), verdicts.verdict(row))
        for row, chunk in enumerate(chunk_rows(part, first, rows))
    ]

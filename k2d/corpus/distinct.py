"""Parts of several batches in which every recording occurs once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2d.corpus.index import Ints, Part, parts
from k2d.filtering.policy import Columns
from k2d.schema import Batch
from k2d.steps import OnSteps, ignore_steps
from k2d.store import Lake
from k2d.store.batches import part_sizes

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class DistinctPart:
    """A part without the recordings that occurred in an earlier part or batch."""

    part: Part
    fresh: Flags  # (recordings of the part,): whether this is the recording's first occurrence
    chunks: Columns  # of fresh recordings only
    segments: Columns  # of fresh recordings only; `chunk` is a row of `chunks`
    rows: Ints  # (chunks,): rows in the part
    segment_rows: Ints  # (segments,): rows in the part


def distinct_parts(lake: Lake, batches: Sequence[Batch], *, on_steps: OnSteps = ignore_steps) -> Iterator[DistinctPart]:
    """Iterate over the parts of several batches, with each recording only where it occurs first.

        sum(int(part.chunks["ms"].sum()) for part in distinct_parts(lake, [first, second]))

    `on_steps` is called with the number of parts that the caller is done with.

    Raises:
        StoreError: besides, results or facts of a recording cannot be read.
    """
    seen: set[str] = set()
    done, total = 0, sum(len(part_sizes(len(batch.sources))) for batch in batches)
    for batch in batches:
        for part in parts(lake, batch.id):
            ids = part.recordings.column("recording_id")
            part.require_whole()
            fresh = np.zeros(len(ids), np.bool_)
            for place, recording_id in enumerate(ids):
                fresh[place] = recording_id not in seen
                seen.add(recording_id)
            yield distinct_part(part, fresh)
            done += 1
            on_steps(done, total)


def distinct_part(part: Part, fresh: Flags) -> DistinctPart:
    """The part without the recordings that are not `fresh`, shape (recordings with chunks,)."""
    chunks, segments = part.chunks, part.segments
    if fresh.all():
        all_rows = (np.arange(len(chunks["ms"])), np.arange(len(segments["ms"])))
        return DistinctPart(part, fresh, chunks, segments, *all_rows)
    mask = np.repeat(fresh, part.recordings.sizes)
    rows, segment_rows = np.flatnonzero(mask), np.flatnonzero(mask[segments["chunk"]])
    renumbered = np.cumsum(mask) - 1
    kept = {name: column[segment_rows] for name, column in segments.items()}
    kept["chunk"] = renumbered[kept["chunk"]].astype(np.int32)
    return DistinctPart(part, fresh, {name: c[rows] for name, c in chunks.items()}, kept, rows, segment_rows)

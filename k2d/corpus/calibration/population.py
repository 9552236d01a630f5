"""The segments a policy chooses from, streamed from the lake in arrays; and the α from which each is kept.

The unit is the teacher's segment. A policy keeps whole chunks and, of the others, single segments; either way what is
kept is made of segments, and each has one number that says when: the least α that keeps it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2d.filtering.policy import COLUMNS, EVIDENCE_COLUMNS, Columns, Policy, decide, distance_column
from k2d.schema import Batch, Metric, Outcome, RecordingResult
from k2d.store import Lake

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

PART_CHUNKS: Final = 20_000  # rows a part gathers: numpy's overhead is paid once for some hundred recordings
NEVER: Final = np.float32(np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some recordings' chunks and segments as columns, shapes (chunks,) and (segments,)."""

    recordings: tuple[RecordingResult, ...]
    chunks: Columns  # COLUMNS
    segments: Columns  # EVIDENCE_COLUMNS
    recording: Ints  # of each chunk: its place in `recordings`
    index: Ints  # of each chunk, in its recording
    owner: Ints  # of each segment: its chunk's row
    number: Ints  # of each segment, in its chunk


def parts(lake: Lake, batches: Sequence[Batch]) -> Iterator[Part]:
    """All that the batches have labeled, every recording once, in the order of the ledgers.

    Raises:
        StoreError
    """
    gathered: list[tuple[RecordingResult, pa.Table]] = []
    rows = 0
    for result, table in lake.files.many(lambda one: (one, _read(lake, one)), labeled(lake, batches)):
        gathered.append((result, table))
        rows += table.num_rows
        if rows >= PART_CHUNKS:
            yield _part(gathered)
            gathered, rows = [], 0
    if gathered:
        yield _part(gathered)


def labeled(lake: Lake, batches: Sequence[Batch]) -> Iterator[RecordingResult]:
    """The labeled recordings of the batches; of one that is in several, the first counts, as in a freeze."""
    seen: set[str] = set()
    for batch in batches:
        for result in lake.batches.results(batch.id):
            name = str(result.recording_id)
            if result.outcome is Outcome.LABELED and name not in seen:
                seen.add(name)
                yield result


def thresholds(policy: Policy, chunks: Columns, segments: Columns, owner: Ints) -> tuple[Floats, Floats]:
    """The least α that keeps each chunk whole, shape (chunks,), and each segment, whole or salvaged, (segments,).

    Infinite where a rule rejects whatever α is. float32, compared as `decide` compares.
    """
    whole = _least(policy, chunks)
    kept = whole[owner]
    if policy.salvage and policy.metric is Metric.EVIDENCE:
        alone = np.where(segments["duration_s"] > 0, _least(policy, segments), NEVER)  # no time, no audio to salvage
        kept = np.minimum(kept, alone)
    return whole, kept


def label_tokens(columns: Columns) -> Ints:
    """Mixed tokens of each label."""
    return (columns["zh_tokens"] + columns["en_tokens"] + columns["other_tokens"]).astype(np.int64)


def _least(policy: Policy, columns: Columns) -> Floats:
    widest = policy.model_copy(update={"alpha": 1.0})
    risk = distance_column(policy, columns).astype(np.float32)
    return np.where(decide(widest, columns).accepted, risk, NEVER)


def _read(lake: Lake, result: RecordingResult) -> pa.Table:
    return lake.facts.shard(str(result.facts_key), [*COLUMNS, "index", "segment_evidence"])[0]


def _part(gathered: Sequence[tuple[RecordingResult, pa.Table]]) -> Part:
    table = pa.concat_tables([one for _, one in gathered]).combine_chunks()
    lists = table["segment_evidence"].combine_chunks()
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(lists)
    starts = np.searchsorted(owner, np.arange(table.num_rows))
    return Part(
        recordings=tuple(result for result, _ in gathered),
        chunks={name: table[name].to_numpy() for name in COLUMNS},
        segments={name: flat.field(name).to_numpy(zero_copy_only=False) for name in EVIDENCE_COLUMNS},
        recording=np.repeat(np.arange(len(gathered)), [one.num_rows for _, one in gathered]),
        index=table["index"].to_numpy().astype(np.int64),
        owner=owner,
        number=np.arange(len(owner)) - starts[owner],
    )

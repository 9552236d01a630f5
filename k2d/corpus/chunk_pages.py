"""Lists of chunks, page by page, as documents of the API; used by the API and by the embedded client."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from k2d.corpus import cursor as cursors
from k2d.corpus.batch_index import BatchIndex
from k2d.corpus.chunk import all_distances, shown
from k2d.corpus.part import Part
from k2d.corpus.sweep import salvaged_ms
from k2d.documents import ChunkFilter, ChunkList, ChunkRow
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import (
    DEFAULT,
    REASONS,
    STATUSES,
    Columns,
    Policy,
    decide,
    metric_column,
    policy_columns,
    thresholds,
)
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.batches import PART_RECORDINGS
from k2d.store.parquet import printable
from k2d.wording import counted

SHOWN_NAMES: Final = 5  # names of recordings in an error; chosen
CLOSE_NAMES: Final = 10_000  # recordings of a batch up to which close names are looked for, which takes a second
MAX_PAGE: Final = 1000  # chunks; chosen
EVERY_CHUNK: Final = ChunkFilter()
TEXT_COLUMNS: Final = (
    "id",
    "index",
    "start_s",
    "end_s",
    "recording",
    "teacher_text",
    "validators",
    "perturbations",
    "validator_texts",
    "phrase",
)


def page(
    lake: Lake,
    batch: Batch,
    policy: Policy = DEFAULT,
    *,
    where: ChunkFilter = EVERY_CHUNK,
    limit: int = 100,
    cursor: str | None = None,
) -> ChunkList:
    """Return one page of a batch's chunks in the order of (recording, channel, time), and the cursor of the next page.

        first = page(lake, batch, where=ChunkFilter(verdict=Status.REJECTED))
        second = page(lake, batch, where=ChunkFilter(verdict=Status.REJECTED), cursor=first.next)

    `next` is None at the end. Parts of the index are judged one after the other until the page is full; texts are read
    only for the chunks of the page.

    Raises:
        BadRequest: the limit is out of range, the cursor is not valid, or several recordings end in `where.recording`.
        NotFound: the batch has no such recording.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be 1…{MAX_PAGE}, not {limit}")
    if where.recording is not None:
        where = where.model_copy(update={"recording": recording_name(batch, where.recording)})
    # position of the recording and index of the last chunk of the page before
    position, last = (-1, -1) if cursor is None else cursors.decode(cursor)
    first_part = position // PART_RECORDINGS
    chunks: list[ChunkRow] = []
    index = BatchIndex(lake, batch)
    for number in range(max(0, first_part), len(index.sizes)):
        part = index.part(number)
        columns = part.chunks
        later = (columns["position"] == position) & (columns["index"] > last)
        rows = np.flatnonzero(_matching(part, policy, where) & (later | (columns["position"] > position)))
        page_rows = rows[: limit - len(chunks)]
        if len(page_rows):
            chunks += chunk_rows(part, policy, page_rows)
            position, last = int(columns["position"][page_rows[-1]]), int(columns["index"][page_rows[-1]])
        if len(rows) > len(page_rows):
            return ChunkList(chunks=chunks, next=cursors.encode((position, last)))
    return ChunkList(chunks=chunks, next=None)


def all_chunks(
    lake: Lake, batch: Batch, policy: Policy = DEFAULT, *, where: ChunkFilter = EVERY_CHUNK
) -> Iterator[ChunkRow]:
    """Iterate over all matching chunks of a batch, reading a page at a time."""
    cursor: str | None = None
    while True:
        chunks = page(lake, batch, policy, where=where, limit=MAX_PAGE, cursor=cursor)
        yield from chunks.chunks
        cursor = chunks.next
        if cursor is None:
            return


def recording_name(batch: Batch, name: str) -> str:
    """The name of the recording of a batch that is called `name`, or whose path ends in it.

        recording_name(batch, "monday/talk.wav")  # "lectures/monday/talk.wav"

    Raises:
        BadRequest: several recordings end in it.
        NotFound: none does.
    """
    names = {printable(source.name) for source in batch.sources}
    if name in names:
        return name
    asked = "/" + name.removeprefix("./").strip("/")
    matches = sorted(full for full in names if f"/{full}".endswith(asked) or asked.endswith(f"/{full}"))
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise BadRequest(
            f"{counted(len(matches), 'recording')} of batch {batch.name!r} end in {name!r}: {_listed(matches)}",
            hint="give more of the path",
            recording=name,
            batch=batch.id,
        )
    close = difflib.get_close_matches(name, names) if len(names) <= CLOSE_NAMES else []
    raise NotFound(
        f"no recording of batch {batch.name!r} is called {name!r}",
        hint=f"it has {_listed(close or sorted(names))}",
        recording=name,
        batch=batch.id,
    )


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _matching(part: Part, policy: Policy, where: ChunkFilter) -> npt.NDArray[np.bool_]:
    """Which chunks of a part match the filter, shape (chunks,)."""
    columns = part.chunks
    decision = decide(policy, {name: columns[name] for name in policy_columns(policy)})
    keep = np.ones(len(decision.status), dtype=np.bool_)
    if where.verdict is not None:
        keep &= decision.status == STATUSES.index(where.verdict)
    if where.reason is not None:
        keep &= decision.reason == REASONS.index(where.reason)
    if where.min_distance is not None:
        keep &= metric_column(policy, columns) >= where.min_distance
    if where.max_distance is not None:
        keep &= metric_column(policy, columns) <= where.max_distance
    if where.recording is not None:
        keep &= pc.equal(part.read(["recording"])["recording"], where.recording).to_numpy()
    if where.text is not None:
        texts = part.read(["teacher_text"])["teacher_text"]
        keep &= pc.match_substring(texts, where.text, ignore_case=True).to_numpy()
    return keep


def chunk_rows(part: Part, policy: Policy, rows: npt.NDArray[np.int64]) -> list[ChunkRow]:
    """Make the documents of some chunks of a part: texts, all metrics, verdict, salvaged seconds."""
    texts = part.take(rows, list(TEXT_COLUMNS)).to_pylist()
    columns = {name: column[rows] for name, column in part.chunks.items()}
    decision, distances = decide(policy, columns), all_distances(policy, columns)
    salvaged = _salvaged_ms(part, policy, rows)
    return [
        ChunkRow(
            **text,
            distances={
                m: None if values is None else shown(values[row], policy.alpha) for m, values in distances.items()
            },
            teacher_repetition=int(columns["teacher_repetition"][row]),
            validator_repetition=int(columns["validator_repetition"][row]),
            verdict=decision.verdict(row).status,
            reason=decision.verdict(row).reason,
            salvaged_s=int(salvaged[row]) / 1000,
        )
        for row, text in enumerate(texts)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _PageColumns:
    """Some chunks of a part and all their segments (`k2d.filtering.policy.PartColumns`)."""

    chunks: Columns
    segments: Columns


def _salvaged_ms(part: Part, policy: Policy, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The milliseconds salvaged of each of these chunks, shape (rows,)."""
    if not policy.salvage:
        return np.zeros(len(rows), np.int64)
    chunk = part.segments["chunk"]  # ascending
    first, stop = np.searchsorted(chunk, rows), np.searchsorted(chunk, rows, side="right")
    of_rows = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)]) if len(rows) else first
    segments: dict[str, npt.NDArray[Any]] = {name: column[of_rows] for name, column in part.segments.items()}
    segments["chunk"] = np.repeat(np.arange(len(rows)), stop - first)
    page_part = _PageColumns({name: column[rows] for name, column in part.chunks.items()}, segments)
    return salvaged_ms(segments, thresholds(policy, page_part, alpha=policy.alpha), policy.alpha)

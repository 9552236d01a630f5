"""Training rows: kept neighbours of one recording, packed to at most 30 s, with text and audio."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.audio import decode_flac, encode_flac
from k2d.datasets.pack import ChunkCut, cuts, follows, pack_kept
from k2d.datasets.reviewed import ORIGIN, Place, with_reviewed
from k2d.datasets.selection import Selection
from k2d.errors import NotFound, StoreError
from k2d.filtering.evidence import mean_logprob
from k2d.keys import chunk_id, segment_id
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Samples, Segment, join_text
from k2d.store import Lake
from k2d.store.base import key_path
from k2d.store.facts import main_language
from k2d.store.parquet import AUDIO

ROWS_PER_GROUP: Final = 64  # of a Parquet row group; chosen: at most about 32 MB of FLAC in memory
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),  # "{recording_id}-{start}-{end}", in milliseconds
        ("audio", AUDIO),  # FLAC, 16 kHz mono
        ("text", pa.string()),
        # times relative to this row's audio
        ("segments", pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]))),
        ("duration_s", pa.float64()),
        ("recording_id", pa.string()),
        ("source", pa.string()),  # name of the file in its batch
        ("start_s", pa.float64()),  # in the recording
        ("end_s", pa.float64()),
        ("language", pa.string()),
        ("previous_text", pa.string()),  # of the row before, if nothing between was rejected; '' otherwise
        ("chunk_ids", pa.list_(pa.string())),
        ("segment_ids", pa.list_(pa.string())),  # "{chunk id}.{number:03d}", one for each segment
        # the policy's metric of each chunk; of a salvaged part, that of its worst segment
        ("distances", pa.list_(pa.float64())),
        ("distance", pa.float64()),  # the largest of `distances`
        ("avg_logprob", pa.float64()),  # the teacher's, mean over tokens
    ]
)


def write_groups(out: pq.ParquetWriter, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows, with one row group of ROWS_PER_GROUP in memory at a time."""
    iterator = iter(rows)
    while group := list(islice(iterator, ROWS_PER_GROUP)):
        out.write_table(pa.Table.from_pylist(group, schema=schema))


def rows_of(
    lake: Lake,
    chosen: Selection,
    *,
    max_gap_s: float,
    origins: Counter[str] | None = None,
    reviewed: Mapping[Place, str | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Iterate over the training rows (fields of SCHEMA) of one recording, in the order of time.

    The label shard is opened once and read a row group at a time, so memory does not grow with the recording. `origins`
    gets the milliseconds of segments by where their text comes from. `reviewed`: the texts of reviewed segments of the
    label, by (chunk, segment), which replace the label's; the rows then have `raw_text` and `origins`.

    Raises:
        StoreError: the labels are gone or damaged.
    """
    reading = _KeptCuts(lake, chosen)
    before: ChunkCut | None = None  # the last cut of the row before
    text = ""  # of the row before
    for group in pack_kept(reading.cuts(), max_gap_s=max_gap_s):
        pieces = reading.take(group)
        row = _row(chosen, pieces)
        texts = [(reviewed or {}).get((piece.cut.chunk, number)) for piece in pieces for number in piece.numbers]
        segments = [segment for piece in pieces for segment in piece.segments]
        own = [own.origin if text is None else ORIGIN for own, text in zip(segments, texts, strict=True)]
        if origins is not None:
            for segment, origin in zip(segments, own, strict=True):
                origins[origin] += round(1000 * (segment.end_s - segment.start_s))
        if reviewed is not None:
            row = with_reviewed(row, texts, own)
        row["previous_text"] = text if before is not None and follows(group[0], before) else ""
        before, text = group[-1], row["text"]
        yield row


class _KeptCuts:
    """Reads the kept chunks of one recording once, and hands out their cuts, then the audio of packed ones."""

    def __init__(self, lake: Lake, chosen: Selection) -> None:
        self._lake, self._chosen = lake, chosen
        self._selected = _SelectionLookup(chosen)
        self._chunks: dict[int, tuple[Chunk, bytes]] = {}  # read, and not yet behind the last row

    def cuts(self) -> Iterator[ChunkCut]:
        """Iterate over what is kept, in order."""
        wanted = frozenset(self._chosen.chunks.tolist()) | frozenset(self._chosen.segments[:, 0].tolist())
        read = 0
        try:
            for chunk, flac in self._lake.labels.pieces(self._chosen.label_key, wanted):
                read += 1
                self._chunks[chunk.index] = chunk, flac
                yield from cuts(chunk, self._selected.keep(chunk.index))
        except NotFound as error:
            raise labels_gone(self._chosen.source, self._chosen.label_key) from error
        if read < len(wanted):
            raise labels_gone(self._chosen.source, self._chosen.label_key)

    def take(self, group: Sequence[ChunkCut]) -> list["_AudioCut"]:
        """The cuts of a row with their audio. Chunks before the last one are forgotten."""
        pieces = [_AudioCut(*self._chunks[cut.chunk], cut, self._selected.distance(cut)) for cut in group]
        for index in [index for index in self._chunks if index < group[-1].chunk]:
            del self._chunks[index]
        return pieces


def labels_gone(source: str, label_key: str) -> StoreError:
    """The error for a recording whose labels are not in the store any more."""
    path = key_path("labels", label_key, ".parquet")
    hint = "run `k2d store check --repair`, then `k2d resume`, which labels the recording again"
    return StoreError(f"the labels of {source!r}, {path}, are gone", hint=hint)


def facts_gone(source: str, facts_key: str) -> StoreError:
    """The error for a recording whose facts are not in the store any more."""
    path = key_path("facts", facts_key, ".parquet")
    hint = "run `k2d store check --repair`, then `k2d resume`, which makes them again"
    return StoreError(f"the facts of {source!r}, {path}, are gone", hint=hint)


class _SelectionLookup:
    """Looks up, in a selection, which segments of a chunk are kept, and their distances."""

    def __init__(self, chosen: Selection) -> None:
        self._whole: dict[int, float] = dict(zip(chosen.chunks.tolist(), chosen.distances.tolist(), strict=True))
        self._parts: dict[int, dict[int, float]] = {}
        for (chunk, segment), risk in zip(chosen.segments.tolist(), chosen.risks.tolist(), strict=True):
            self._parts.setdefault(chunk, {})[segment] = risk

    def keep(self, chunk: int) -> Container[int] | None:
        """The numbers of the kept segments of a chunk; None: all."""
        return None if chunk in self._whole else self._parts[chunk]

    def distance(self, cut: ChunkCut) -> float:
        """The distance of a cut: the chunk's if it is whole, else that of its worst segment."""
        if cut.chunk in self._whole:
            return self._whole[cut.chunk]
        return max(self._parts[cut.chunk][number] for number in range(cut.first, cut.last + 1))


@dataclass(frozen=True, slots=True)
class _AudioCut:
    """A cut with its chunk and the chunk's audio."""

    chunk: Chunk
    flac: bytes  # of the whole chunk
    cut: ChunkCut
    distance: float

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the cut."""
        return self.chunk.segments[self.cut.first : self.cut.last + 1]

    @property
    def numbers(self) -> range:
        """The numbers of these segments within the chunk."""
        return range(self.cut.first, self.cut.last + 1)


def _row(chosen: Selection, pieces: list[_AudioCut]) -> dict[str, Any]:
    start_s, end_s = pieces[0].cut.start_s, pieces[-1].cut.end_s
    segments = [segment for piece in pieces for segment in piece.segments]
    row_id = f"{chosen.recording_id}-{round(start_s * 1000):09d}-{round(end_s * 1000):09d}"
    chunk_ids = [chunk_id(chosen.facts_key, piece.cut.chunk) for piece in pieces]
    is_whole_chunk = len(pieces) == 1 and pieces[0].cut.whole  # its FLAC can be used unchanged
    return {
        "id": row_id,
        "audio": {"bytes": pieces[0].flac if is_whole_chunk else encode_flac(join(pieces)), "path": f"{row_id}.flac"},
        "text": join_text(segment.text for segment in segments),
        "segments": [_relative(segment, start_s) for segment in segments],
        "duration_s": round(end_s - start_s, 3),
        "recording_id": chosen.recording_id,
        "source": chosen.source,
        "start_s": start_s,
        "end_s": end_s,
        "language": main_language(segments),
        "chunk_ids": chunk_ids,
        "segment_ids": [
            segment_id(id_, number) for id_, piece in zip(chunk_ids, pieces, strict=True) for number in piece.numbers
        ],
        "distances": [piece.distance for piece in pieces],
        "distance": max(piece.distance for piece in pieces),
        "avg_logprob": mean_logprob(segments),
    }


def join(pieces: list[_AudioCut]) -> Samples:
    """Join the audio of cuts, with digital silence of the original length between them.

    Returns samples of shape (n,), from the start of the first cut to the end of the last. Times are whole milliseconds,
    which are whole samples, so no sample of an excised segment is included.
    """
    start, stop = _sample(pieces[0].cut.start_s), _sample(pieces[-1].cut.end_s)
    joined = np.zeros(stop - start, dtype=np.int16)
    for piece in pieces:
        offset = _sample(piece.chunk.start_s)
        samples = decode_flac(piece.flac)[_sample(piece.cut.start_s) - offset : _sample(piece.cut.end_s) - offset]
        place = _sample(piece.cut.start_s) - start
        joined[place : place + len(samples)] = samples
    return joined


def _sample(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE_HZ)


def _relative(segment: Segment, start_s: float) -> dict[str, Any]:
    return {
        "start_s": round(segment.start_s - start_s, 3),
        "end_s": round(segment.end_s - start_s, 3),
        "text": segment.text,
    }

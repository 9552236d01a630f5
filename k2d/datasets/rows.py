"""Training rows: what is kept of one recording, neighbours packed to at most 30 s, as a student trains on them."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from k2d.audio import decode_flac, encode_flac
from k2d.datasets.pack import Cut, cuts, follows, pack_kept
from k2d.datasets.plan import Selection
from k2d.errors import NotFound, StoreError
from k2d.filtering.evidence import mean_logprob
from k2d.keys import chunk_id, segment_id
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Samples, Segment, join_text
from k2d.store import Lake
from k2d.store.facts import main_language
from k2d.store.parquet import AUDIO

ROWS_PER_GROUP = 64  # at most about 32 MB of FLAC in memory, for the writer and for whoever reads
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # "{recording_id}-{start}-{end}", in milliseconds
        ("audio", AUDIO),  # FLAC, 16 kHz mono
        ("text", pa.string()),
        # times relative to this row's audio
        ("segments", pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]))),
        ("duration_s", pa.float64()),
        ("recording_id", pa.string()),
        ("source", pa.string()),  # the file's name in its batch
        ("start_s", pa.float64()),  # in the recording
        ("end_s", pa.float64()),
        ("language", pa.string()),
        ("previous_text", pa.string()),  # of the row right before, if nothing was rejected between; '' otherwise
        ("chunk_ids", pa.list_(pa.string())),
        ("segment_ids", pa.list_(pa.string())),  # "{chunk id}.{number:03d}", one for each segment
        # by the policy's metric, one for each chunk; where a part of it was salvaged, its worst segment's
        ("distances", pa.list_(pa.float64())),
        ("distance", pa.float64()),  # the largest of them
        ("avg_logprob", pa.float64()),  # the teacher's, mean over tokens
    ]
)


def rows_of(lake: Lake, chosen: Selection, *, max_gap_s: float) -> Iterator[dict[str, Any]]:
    """Rows of one recording in order of time; its audio is streamed, one row group of its shard at a time.

    Raises:
        StoreError: its labels are gone or damaged.
    """
    wanted = frozenset(chosen.chunks.tolist()) | frozenset(chosen.segments[:, 0].tolist())
    measured = _Measured(chosen)
    try:
        chunks = {chunk.index: chunk for chunk, _ in lake.labels.read(chosen.label_key, only=wanted)}
        audio = lake.labels.read(chosen.label_key, audio=True, only=wanted)
        heard: tuple[Chunk, bytes] | None = None
        before: Cut | None = None  # the last of the row before
        text = ""  # of that row
        kept = [cut for index in sorted(wanted) for cut in cuts(chunks[index], measured.keep(index))]
        for group in pack_kept(kept, max_gap_s=max_gap_s):
            pieces = []
            for cut in group:
                while heard is None or heard[0].index < cut.chunk:
                    chunk, flac = next(audio)
                    heard = chunk, flac or b""
                pieces.append(_Piece(heard[0], cut, heard[1], measured.distance(cut)))
            row = _row(chosen, pieces)
            row["previous_text"] = text if before is not None and follows(group[0], before) else ""
            before, text = group[-1], row["text"]
            yield row
    except (NotFound, KeyError, StopIteration) as error:
        hint = "run `k2d resume`: it labels again what is missing"
        raise StoreError(f"the labels of {chosen.source!r} ({chosen.label_key}) are gone", hint=hint) from error


class _Measured:
    """Looks up what was selected of a chunk: which segments, and how far they are from what was heard."""

    def __init__(self, chosen: Selection) -> None:
        self._whole: dict[int, float] = dict(zip(chosen.chunks.tolist(), chosen.distances.tolist(), strict=True))
        self._parts: dict[int, dict[int, float]] = {}
        for (chunk, segment), risk in zip(chosen.segments.tolist(), chosen.risks.tolist(), strict=True):
            self._parts.setdefault(chunk, {})[segment] = risk

    def keep(self, chunk: int) -> Container[int] | None:
        """The segments that stay; None: all."""
        return None if chunk in self._whole else self._parts[chunk]

    def distance(self, cut: Cut) -> float:
        """Of a whole chunk its own, of a part its worst segment's."""
        if cut.chunk in self._whole:
            return self._whole[cut.chunk]
        return max(self._parts[cut.chunk][number] for number in range(cut.first, cut.last + 1))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A cut with the chunk it is of, and that chunk's audio."""

    chunk: Chunk
    cut: Cut
    flac: bytes
    distance: float

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.chunk.segments[self.cut.first : self.cut.last + 1]

    @property
    def ids(self) -> range:
        return range(self.cut.first, self.cut.last + 1)


def _row(chosen: Selection, pieces: list[_Piece]) -> dict[str, Any]:
    start_s, end_s = pieces[0].cut.start_s, pieces[-1].cut.end_s
    segments = [segment for piece in pieces for segment in piece.segments]
    row_id = f"{chosen.recording_id}-{round(start_s * 1000):09d}-{round(end_s * 1000):09d}"
    chunk_ids = [chunk_id(chosen.facts_key, piece.cut.chunk) for piece in pieces]
    as_it_is = len(pieces) == 1 and pieces[0].cut.whole
    return {
        "id": row_id,
        "audio": {"bytes": pieces[0].flac if as_it_is else encode_flac(join(pieces)), "path": f"{row_id}.flac"},
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
            segment_id(id_, number) for id_, piece in zip(chunk_ids, pieces, strict=True) for number in piece.ids
        ],
        "distances": [piece.distance for piece in pieces],
        "distance": max(piece.distance for piece in pieces),
        "avg_logprob": mean_logprob(segments),
    }


def join(pieces: list[_Piece]) -> Samples:
    """Lay the pieces' audio where it was in the recording; what lies between is digital silence of the true length.

    Returns samples of shape (n,), from the first piece's start to the last one's end. Times are whole milliseconds,
    which are whole samples: nothing of an excised segment is heard.
    """
    start, stop = _sample(pieces[0].cut.start_s), _sample(pieces[-1].cut.end_s)
    joined = np.zeros(stop - start, dtype=np.int16)
    for piece in pieces:
        offset = _sample(piece.chunk.start_s)
        heard = decode_flac(piece.flac)[_sample(piece.cut.start_s) - offset : _sample(piece.cut.end_s) - offset]
        place = _sample(piece.cut.start_s) - start
        joined[place : place + len(heard)] = heard
    return joined


def _sample(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE_HZ)


def _relative(segment: Segment, start_s: float) -> dict[str, Any]:
    return {
        "start_s": round(segment.start_s - start_s, 3),
        "end_s": round(segment.end_s - start_s, 3),
        "text": segment.text,
    }

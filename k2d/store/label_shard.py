"""Label shards: one row for each chunk of a recording, with its audio.

Row groups hold 32 chunks (about 16 MB of FLAC), so that writing a ten-hour recording and playing one chunk of it
both need one row group in memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.schema import Chunk, Segment
from k2d.store.parquet import AUDIO, SEGMENT, describe, writer

ROWS_PER_GROUP = 32
SCHEMA = pa.schema(
    [
        ("index", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("text", pa.string()),
        ("segments", pa.list_(SEGMENT)),
        ("audio", AUDIO),
    ]
)


class LabelShard:
    """Writes one label shard to an open file, chunk by chunk, in order of their index."""

    def __init__(self, file: BinaryIO, meta: Mapping[str, Any], *, name: str) -> None:
        self._schema = describe(SCHEMA, meta)
        self._writer = writer(file, self._schema)
        self._name = name
        self._rows: list[dict[str, Any]] = []
        self._last = -1

    def write(self, chunk: Chunk, flac: bytes) -> None:
        """Add a chunk and its audio (FLAC, 16 kHz mono, exactly the chunk's span).

        Raises:
            ValueError: the chunk's index is not above the last one's.
        """
        if chunk.index <= self._last:
            raise ValueError(f"chunk {chunk.index} after chunk {self._last}: chunks are written in order")
        self._last = chunk.index
        self._rows.append(_row(chunk, flac, path=f"{self._name}-{chunk.index:05d}.flac"))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._rows:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Write nothing more: the file is going to be removed."""
        self._writer.abandon()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def read(
    file: pq.ParquetFile, *, audio: bool, only: frozenset[int] | None = None
) -> Iterator[tuple[Chunk, bytes | None]]:
    """Stream the chunks of a shard with their FLAC (None unless `audio`), one row group in memory at a time.

    `only` names the indices that are wanted; row groups without any are not read.
    """
    columns = ["index", "segments", "audio"] if audio else ["index", "segments"]
    for group in range(file.metadata.num_row_groups):
        if only is not None and not _holds(file, group, only):
            continue
        for row in file.read_row_group(group, columns=columns).to_pylist():
            if only is None or row["index"] in only:
                segments = tuple(segment(value) for value in row["segments"])
                yield Chunk(row["index"], segments), row["audio"]["bytes"] if audio else None


def segment(value: Mapping[str, Any]) -> Segment:
    """A stored segment as the noun."""
    return Segment(**{**value, "tokens": tuple(value["tokens"])})


def segment_row(value: Segment) -> dict[str, Any]:
    """A segment as it is stored."""
    return {
        "start_s": value.start_s,
        "end_s": value.end_s,
        "text": value.text,
        "tokens": list(value.tokens),
        "avg_logprob": value.avg_logprob,
        "no_speech_prob": value.no_speech_prob,
        "compression_ratio": value.compression_ratio,
        "temperature": value.temperature,
        "language": value.language,
    }


def _row(chunk: Chunk, flac: bytes, *, path: str) -> dict[str, Any]:
    return {
        "index": chunk.index,
        "start_s": chunk.start_s,
        "end_s": chunk.end_s,
        "duration_s": chunk.duration_s,
        "text": chunk.text,
        "segments": [segment_row(value) for value in chunk.segments],
        "audio": {"bytes": flac, "path": path},
    }


def _holds(file: pq.ParquetFile, group: int, wanted: frozenset[int]) -> bool:
    """Whether a row group can hold one of the wanted indices, by its statistics (indices ascend within a shard)."""
    statistics = file.metadata.row_group(group).column(0).statistics
    return any(statistics.min <= index <= statistics.max for index in wanted)

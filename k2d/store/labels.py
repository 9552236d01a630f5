"""Label shards: one row for each chunk of a recording, with the teacher's text and the chunk's audio.

Row groups hold 32 chunks (about 16 MB of FLAC), so that writing a ten-hour recording and playing one chunk of it
both need one row group in memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.errors import NotFound
from k2d.schema import Chunk, Segment
from k2d.store.guard import guard
from k2d.store.parquet import AUDIO, SEGMENT, describe, meta_of, writer
from k2d.store.rooted import Rooted, fanned

ROWS_PER_GROUP: Final = 32
SCHEMA: Final = pa.schema(
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


class LabelWriter:
    """Writes one label shard, chunk by chunk; nothing is in the lake until `Labels.writer`'s block ends well."""

    def __init__(self, file: BinaryIO, meta: Mapping[str, Any], *, key: str, path: str) -> None:
        self._schema = describe(SCHEMA, meta)
        self._writer = writer(file, self._schema)
        self._key = key
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._last = -1

    def write(self, chunk: Chunk, flac: bytes) -> None:
        """Add a chunk and its audio: FLAC, 16 kHz mono, exactly the chunk's span.

        Raises:
            StoreError
            ValueError: the chunk's index is not above the last one's.
        """
        if chunk.index <= self._last:
            raise ValueError(f"chunk {chunk.index} after chunk {self._last}: chunks are written in order")
        self._last = chunk.index
        self._rows.append(_row(chunk, flac, path=f"{self._key}-{chunk.index:05d}.flac"))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer.

        Raises:
            StoreError
        """
        if self._rows:
            self._flush()
        with guard(self._path, writing=True):
            self._writer.close()

    def abandon(self) -> None:
        """Write nothing more: the file is going to be removed."""
        self._writer.abandon()

    def _flush(self) -> None:
        with guard(self._path, writing=True):
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


class Labels(Rooted):
    """labels/ab/<label_key>.parquet"""

    def has(self, key: str) -> bool:
        """Whether the recording is labeled."""
        return self.files.exists(_path(key))

    @contextmanager
    def writer(self, key: str, meta: Mapping[str, Any]) -> Iterator[LabelWriter]:
        """Write the label shard at `key`; it appears whole when the block ends, and not at all when it raises.

        `meta` (JSON values and dataclasses: recording, teacher, options, version) comes back from `meta`.
        """
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                out = LabelWriter(pending.file, {**meta, "label_key": key}, key=key, path=path)
            try:
                yield out
                out.close()
                pending.commit(path)
            except BaseException:
                out.abandon()
                raise

    def read(
        self, key: str, audio: bool = False, *, only: frozenset[int] | None = None
    ) -> Iterator[tuple[Chunk, bytes | None]]:
        """Stream the chunks at `key` in order, with their FLAC if `audio` is asked for (None otherwise).

        `only` restricts it to these indices, and reads no row group without one of them.

        Raises:
            NotFound, StoreError: when iteration starts, or where the shard is damaged.
        """
        path = _path(key)
        with self.files.parquet(path) as file:
            rows = _read(file, audio=audio, only=only)
            while True:
                with guard(path):  # around the read alone: what the caller does with a row is not the store's fault
                    row = next(rows, None)
                if row is None:
                    return
                yield row

    def audio(self, key: str, index: int) -> bytes:
        """The FLAC of one chunk; reads one row group.

        Raises:
            NotFound: no such shard, or no such chunk in it.
            StoreError
        """
        for _, flac in self.read(key, audio=True, only=frozenset((index,))):
            if flac is not None:
                return flac
        raise NotFound(f"no chunk {index} in the labels {key}")

    def meta(self, key: str) -> dict[str, Any]:
        """What `writer` was given, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file.schema_arrow)


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


def _read(
    file: pq.ParquetFile, *, audio: bool, only: frozenset[int] | None = None
) -> Iterator[tuple[Chunk, bytes | None]]:
    """The chunks of an open shard, one row group in memory at a time."""
    columns = ["index", "segments", "audio"] if audio else ["index", "segments"]
    for group in range(file.metadata.num_row_groups):
        if only is not None and not _holds(file, group, only):
            continue
        for row in file.read_row_group(group, columns=columns).to_pylist():
            if only is None or row["index"] in only:
                segments = tuple(segment(value) for value in row["segments"])
                yield Chunk(row["index"], segments), row["audio"]["bytes"] if audio else None


def _holds(file: pq.ParquetFile, group: int, wanted: frozenset[int]) -> bool:
    """Whether a row group can hold one of the wanted indices, by its statistics (indices ascend within a shard)."""
    statistics = file.metadata.row_group(group).column(0).statistics
    return any(statistics.min <= index <= statistics.max for index in wanted)


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


def _path(key: str) -> str:
    return fanned("labels", key, ".parquet")

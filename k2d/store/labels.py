"""Label shards: the chunks of one recording, with the teacher's text and the audio, one row per chunk.

A row group has 32 chunks (about 16 MB of FLAC). Writing a ten-hour recording and reading one of its chunks both need
only one row group in memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2d.errors import NotFound
from k2d.schema import Chunk, Segment
from k2d.store.base import LakePart, key_path
from k2d.store.guard import decoding, guard
from k2d.store.parquet import AUDIO, SEGMENT, describe, meta_of, writer

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


_Row = TypeVar("_Row")
_PIECE_MEMBERS: Final = ("start_s", "end_s", "text", "avg_logprob", "language", "origin")


class LabelWriter:
    """Writes one label shard, chunk by chunk. The shard is stored when the block of `Labels.writer` ends normally."""

    def __init__(self, file: BinaryIO, meta: Mapping[str, Any], *, key: str, path: str) -> None:
        self._schema = describe(SCHEMA, meta)
        self._writer = writer(file, self._schema)
        self._key = key
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._last = -1

    def write(self, chunk: Chunk, flac: bytes) -> None:
        """Add a chunk and its audio (FLAC, 16 kHz mono, exactly the span of the chunk).

        Raises:
            StoreError
            ValueError: the chunk's index is not larger than the last one's.
        """
        if chunk.index <= self._last:
            raise ValueError(f"chunk {chunk.index} after chunk {self._last}: chunks are written in order")
        self._last = chunk.index
        self._rows.append(_row(chunk, flac, path=f"{self._key}-{chunk.index:05d}.flac"))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def add_meta(self, meta: Mapping[str, Any]) -> None:
        """Add metadata that are known only at the end; `Labels.meta` returns them with the others."""
        self._writer.add_meta(meta)

    def close(self) -> None:
        """Write the remaining rows and the footer.

        Raises:
            StoreError
        """
        if self._rows:
            self._flush()
        with guard(self._path, writing=True):
            self._writer.close()

    def abandon(self) -> None:
        """Write nothing more: the file is about to be removed."""
        self._writer.abandon()

    def _flush(self) -> None:
        with guard(self._path, writing=True):
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


class Labels(LakePart):
    """Label shards: labels/ab/<label_key>.parquet.

    for chunk, flac in lake.labels.read(label_key, audio=True):
        print(chunk.start_s, chunk.text, len(flac))
    """

    def has(self, key: str) -> bool:
        """Whether the shard exists: the recording is labeled."""
        return self.files.exists(_path(key))

    @contextmanager
    def writer(self, key: str, meta: Mapping[str, Any]) -> Iterator[LabelWriter]:
        """Write the shard at `key`. It is stored when the block ends, and not at all if the block raises.

        The method `meta` returns `meta` again (JSON values and dataclasses: recording, teacher, options, version).
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
        """Stream the chunks at `key` in order, each with its FLAC if `audio` is set (None otherwise).

        `only`: the indices of the chunks to return. Row groups without any of them are not read.

        Raises:
            NotFound, StoreError: when the iteration starts, or at the damaged place of a shard.
        """
        path = _path(key)
        with self.files.parquet(path) as file:
            yield from _guarded(_read(file, audio=audio, only=only), path)

    def pieces(self, key: str, only: frozenset[int]) -> Iterator[tuple[Chunk, bytes]]:
        """Stream some chunks at `key` in order with their FLAC, for training rows: their segments have text, span,
        confidence, language and origin, and as many tokens as were written, all of them 0.

        Several times faster than `read`, since tokens are counted in Arrow. One row group is in memory at a time.

        Raises:
            NotFound, StoreError: as `read`.
        """
        path = _path(key)
        with self.files.parquet(path) as file:
            yield from _guarded(_pieces(file, only), path)

    def audio(self, key: str, index: int) -> bytes:
        """Read the FLAC of one chunk; reads one row group.

        Raises:
            NotFound: no such shard, or no such chunk in it.
            StoreError
        """
        for _, flac in self.read(key, audio=True, only=frozenset((index,))):
            if flac is not None:
                return flac
        hint = "`k2d chunks BATCH --jsonl` prints the ids of a batch"
        raise NotFound(f"{_path(key)} has no chunk {index}", hint=hint)

    def meta(self, key: str) -> dict[str, Any]:
        """Return the metadata given to `writer`, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file)


def _guarded(rows: Iterator[_Row], url: str) -> Iterator[_Row]:
    """The rows of a shard; what is wrong with it is a StoreError. Not so what the caller does with a row."""
    while True:
        with guard(url), decoding(url):
            row = next(rows, None)
        if row is None:
            return
        yield row


def segment(value: Mapping[str, Any]) -> Segment:
    """Convert a stored segment back."""
    return Segment(**{**value, "tokens": tuple(value["tokens"])})


def segment_row(value: Segment) -> dict[str, Any]:
    """Convert a segment to its stored form."""
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
        "origin": value.origin,
        "teacher_text": value.teacher_text,
    }


def _read(
    file: pq.ParquetFile, *, audio: bool, only: frozenset[int] | None = None
) -> Iterator[tuple[Chunk, bytes | None]]:
    """Iterate over the chunks of an open shard, with one row group in memory at a time."""
    columns = ["index", "segments", "audio"] if audio else ["index", "segments"]
    for group in range(file.metadata.num_row_groups):
        if only is not None and not _holds(file, group, only):
            continue
        for row in file.read_row_group(group, columns=columns).to_pylist():
            if only is None or row["index"] in only:
                segments = tuple(segment(value) for value in row["segments"])
                yield Chunk(row["index"], segments), row["audio"]["bytes"] if audio else None


def _pieces(file: pq.ParquetFile, only: frozenset[int]) -> Iterator[tuple[Chunk, bytes]]:
    stored = {field.name for field in file.schema_arrow.field("segments").type.value_type}
    names = [name for name in _PIECE_MEMBERS if name in stored]  # version 0.2 had no origins
    leaves = [f"segments.list.element.{name}" for name in names]
    columns = ["index", *leaves, "segments.list.element.tokens.list.element", "audio.bytes"]
    for group in range(file.metadata.num_row_groups):
        if not _holds(file, group, only):
            continue
        table = file.read_row_group(group, columns=columns, use_threads=False).combine_chunks()
        indices, lists = table["index"].to_pylist(), table["segments"].chunk(0)
        ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
        flat = lists.flatten()
        values = {name: flat.field(name).to_pylist() for name in names}
        tokens = flat.field("tokens").value_lengths().fill_null(0).to_pylist()
        segments = [
            Segment(
                no_speech_prob=0.0,
                compression_ratio=0.0,
                temperature=0.0,
                tokens=(0,) * count,
                **dict(zip(names, row, strict=True)),
            )
            for count, *row in zip(tokens, *values.values(), strict=True)
        ]
        audio = table["audio"].chunk(0).field("bytes")
        for row, (index, start, end) in enumerate(zip(indices, [0, *ends], ends, strict=False)):
            if index in only:
                yield Chunk(index, tuple(segments[start:end])), audio[row].as_py()


def _holds(file: pq.ParquetFile, group: int, wanted: frozenset[int]) -> bool:
    """Whether a row group can have one of the wanted indices, by its statistics (indices ascend within a shard)."""
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
    return key_path("labels", key, ".parquet")

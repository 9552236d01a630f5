"""Label shards in the lake: what the teacher wrote, with the audio it heard."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from k2d.errors import NotFound
from k2d.schema import Chunk
from k2d.store import label_shard as shard
from k2d.store.errors import guard
from k2d.store.parquet import meta_of
from k2d.store.rooted import Rooted, fanned


class LabelWriter:
    """Takes the chunks of one recording in order; nothing is in the lake until its context ends without an error."""

    def __init__(self, inner: shard.LabelShard, path: str) -> None:
        self._inner = inner
        self._path = path

    def write(self, chunk: Chunk, flac: bytes) -> None:
        """Add a chunk and its audio: FLAC, 16 kHz mono, exactly the chunk's span.

        Raises:
            StoreError
            ValueError: chunks out of order.
        """
        with guard(self._path, writing=True):
            self._inner.write(chunk, flac)

    def close(self) -> None:
        """Write what is left."""
        with guard(self._path, writing=True):
            self._inner.close()

    def abandon(self) -> None:
        """Write nothing more."""
        self._inner.abandon()


class Labels(Rooted):
    """labels/ab/<label_key>.parquet"""

    def has_labels(self, key: str) -> bool:
        """Whether the stage is done."""
        return self.files.exists(_path(key))

    @contextmanager
    def label_writer(self, key: str, meta: Mapping[str, Any]) -> Iterator[LabelWriter]:
        """Write the label shard at `key`; it appears whole when the block ends, and not at all when it raises.

        `meta` (JSON values and dataclasses: recording, teacher, options, version) comes back from `label_meta`.
        """
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                writer = LabelWriter(shard.LabelShard(pending.file, {**meta, "label_key": key}, name=key), path)
            try:
                yield writer
                writer.close()
                pending.commit(path)
            except BaseException:
                writer.abandon()
                raise

    def labels(
        self, key: str, audio: bool = False, *, only: frozenset[int] | None = None
    ) -> Iterator[tuple[Chunk, bytes | None]]:
        """Stream the chunks at `key` in order, with their FLAC if `audio` is asked for (None otherwise).

        `only` restricts it to these indices, and reads no row group without one of them.

        Raises:
            NotFound, StoreError: when iteration starts, or where the shard is damaged.
        """
        path = _path(key)
        with self.files.parquet(path) as file:
            rows = shard.read(file, audio=audio, only=only)
            while True:
                with guard(path):  # around the read alone: what the caller does with a row is not the store's fault
                    row = next(rows, None)
                if row is None:
                    return
                yield row

    def label_audio(self, key: str, index: int) -> bytes:
        """The FLAC of one chunk; reads one row group.

        Raises:
            NotFound: no such shard, or no such chunk in it.
            StoreError
        """
        for _, flac in self.labels(key, audio=True, only=frozenset((index,))):
            if flac is not None:
                return flac
        raise NotFound(f"no chunk {index} in the labels {key}")

    def label_meta(self, key: str) -> dict[str, Any]:
        """What `label_writer` was given, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file.schema_arrow)


def _path(key: str) -> str:
    return fanned("labels", key, ".parquet")

"""Opinions shards in the lake: what each listener said, kept apart, so that it is asked once for all panels."""

from collections.abc import Iterable, Mapping
from typing import Any

from k2d.schema import Opinion
from k2d.store import opinions_shard as shard
from k2d.store.errors import guard
from k2d.store.parquet import meta_of
from k2d.store.rooted import Rooted, fanned


class Opinions(Rooted):
    """opinions/ab/<opinions_key>.parquet"""

    def has_opinions(self, key: str) -> bool:
        """Whether this listener has heard this recording."""
        return self.files.exists(_path(key))

    def write_opinions(
        self, key: str, rows: Iterable[tuple[int, tuple[Opinion, ...]]], meta: Mapping[str, Any]
    ) -> None:
        """Write the shard at `key` atomically: chunk indices in order, each with what was said of that chunk."""
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                shard.write(pending.file, rows, {**meta, "opinions_key": key})
            pending.commit(path)

    def opinions(self, key: str) -> dict[int, tuple[Opinion, ...]]:
        """What was said of each chunk that was heard, by the chunk's index.

        Raises:
            NotFound, StoreError
        """
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return shard.opinions(file.read(use_threads=False))

    def opinions_meta(self, key: str) -> dict[str, Any]:
        """What `write_opinions` was given, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file.schema_arrow)


def _path(key: str) -> str:
    return fanned("opinions", key, ".parquet")

"""Facts shards in the lake: what the validator's doubt measured, one small file for each recording."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from k2d.schema import ChunkFacts
from k2d.store import facts_shard as shard
from k2d.store.errors import guard
from k2d.store.parquet import meta_of
from k2d.store.rooted import Rooted, fanned


class Facts(Rooted):
    """facts/ab/<facts_key>.parquet"""

    def has_facts(self, key: str) -> bool:
        """Whether the stage is done."""
        return self.files.exists(_path(key))

    def write_facts(self, key: str, rows: Iterable[ChunkFacts], meta: Mapping[str, Any]) -> None:
        """Write the facts shard at `key` atomically. `meta` comes back from `facts_meta`."""
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                shard.write(pending.file, rows, {**meta, "facts_key": key})
            pending.commit(path)

    def facts(self, key: str) -> list[ChunkFacts]:
        """All facts of one recording, in order.

        Raises:
            NotFound, StoreError
        """
        return shard.facts(self.facts_shard(key)[0])

    def facts_meta(self, key: str) -> dict[str, Any]:
        """What `write_facts` was given, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file.schema_arrow)

    def facts_shard(self, key: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
        """Columns of one facts shard (all when None) and its metadata, in one read."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            table = file.read(columns=list(columns) if columns is not None else None, use_threads=False)
            return table.replace_schema_metadata(), meta_of(file.schema_arrow)

    def facts_table(self, keys: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of many facts shards as one table, in the order of `keys`, with a column facts_key before them.

        Raises:
            NotFound, StoreError
        """
        wanted = [name for name in columns or shard.SCHEMA.names if name != "facts_key"]
        schema = pa.schema([shard.INDEX_SCHEMA.field("facts_key"), *(shard.SCHEMA.field(name) for name in wanted)])

        def one(key: str) -> pa.Table:
            return shard.with_constants(self.facts_shard(key, wanted)[0], {"facts_key": key}).select(schema.names)

        tables = list(self.files.many(one, keys))
        return pa.concat_tables(tables) if tables else schema.empty_table()


def _path(key: str) -> str:
    return fanned("facts", key, ".parquet")

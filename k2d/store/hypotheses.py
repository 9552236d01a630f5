"""Hypothesis shards: the hypotheses of one validator for the chunks of one recording, one row per chunk.

Each validator has its own shard, so adding a validator does not run the others again.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Final

import pyarrow as pa

from k2d.schema import Hypothesis
from k2d.store.base import LakePart, key_path
from k2d.store.guard import decoding, guard
from k2d.store.parquet import describe, meta_of, writer

# field names as in k2d.schema.Hypothesis, in its order
HYPOTHESIS: Final = pa.struct(
    [
        ("validator", pa.string()),
        ("perturbation", pa.string()),
        ("text", pa.string()),
        ("avg_logprob", pa.float64()),
        ("forced_logprobs", pa.list_(pa.float64())),
        ("is_phonemes", pa.bool_()),
        ("expected_token_errors", pa.list_(pa.float64())),
    ]
)
SCHEMA: Final = pa.schema([("index", pa.int32()), ("hypotheses", pa.list_(HYPOTHESIS))])

# names of the same members in stores of version 0.1
_EARLIER: Final = {
    "validator": "listener",
    "perturbation": "view",
    "forced_logprobs": "scores",
    "expected_token_errors": "doubts",
}


class Hypotheses(LakePart):
    """Hypothesis shards: hypotheses/ab/<hypotheses_key>.parquet (opinions/ in stores of version 0.1).

    lake.hypotheses.read(key)[0]  # the hypotheses for the first chunk
    """

    def has(self, key: str) -> bool:
        """Whether the shard exists: this validator is done with this recording."""
        return self.files.exists(self._located(key))

    def write(self, key: str, rows: Iterable[tuple[int, tuple[Hypothesis, ...]]], meta: Mapping[str, Any]) -> None:
        """Write the shard at `key` atomically. `rows`: (chunk index, hypotheses of the chunk), in order."""
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                _write(pending.file, rows, {**meta, "hypotheses_key": key})
            pending.commit(path)

    def read(self, key: str) -> dict[int, tuple[Hypothesis, ...]]:
        """Return the hypotheses for each chunk, by the chunk's index.

        Raises:
            NotFound, StoreError
        """
        path = self._located(key)
        with self.files.parquet(path) as file, guard(path):
            table = file.read(use_threads=False)
        column = "hypotheses" if "hypotheses" in table.column_names else "opinions"  # version 0.1
        with decoding(path):
            return {row["index"]: tuple(hypothesis(value) for value in row[column]) for row in table.to_pylist()}

    def meta(self, key: str) -> dict[str, Any]:
        """Return the metadata given to `write`, as JSON values, and the key."""
        path = self._located(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file)

    def _located(self, key: str) -> str:
        return self.located(_path(key))


def hypothesis_row(value: Hypothesis) -> dict[str, Any]:
    """Convert a hypothesis to its stored form."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: list(field) if isinstance(field, tuple) else field for name, field in fields.items()}


def hypothesis(row: Mapping[str, Any]) -> Hypothesis:
    """Convert a stored hypothesis back; its members may have the names of version 0.1."""
    stored = {name: row[name] if name in row else row[_EARLIER[name]] for name in HYPOTHESIS.names}
    tuples = {name: tuple(stored[name]) for name in ("forced_logprobs", "expected_token_errors")}
    return Hypothesis(**(stored | tuples))


def _write(file: BinaryIO, rows: Iterable[tuple[int, tuple[Hypothesis, ...]]], meta: Mapping[str, Any]) -> None:
    schema = describe(SCHEMA, meta)
    stored = [{"index": index, "hypotheses": [hypothesis_row(value) for value in values]} for index, values in rows]
    with writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist(stored, schema=schema))


def _path(key: str) -> str:
    return key_path("hypotheses", key, ".parquet")

"""Hypothesis shards: what one validator makes of a recording's chunks, one row for each chunk it transcribed.

Each validator has a shard of its own, so that a second one never makes the first transcribe anything again.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Final

import pyarrow as pa

from k2d.schema import Hypothesis
from k2d.store.guard import guard
from k2d.store.parquet import describe, meta_of, writer
from k2d.store.rooted import Rooted, fanned

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

# what version 0.1 called the same members
_EARLIER: Final = {
    "validator": "listener",
    "perturbation": "view",
    "forced_logprobs": "scores",
    "expected_token_errors": "doubts",
}


class Hypotheses(Rooted):
    """hypotheses/ab/<hypotheses_key>.parquet (opinions/ in stores of version 0.1)"""

    def has(self, key: str) -> bool:
        """Whether this validator has transcribed this recording's chunks."""
        return self.files.exists(self._found(key))

    def write(self, key: str, rows: Iterable[tuple[int, tuple[Hypothesis, ...]]], meta: Mapping[str, Any]) -> None:
        """Write the shard at `key` atomically: chunk indices in order, each with the chunk's hypotheses."""
        path = _path(key)
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True):
                _write(pending.file, rows, {**meta, "hypotheses_key": key})
            pending.commit(path)

    def read(self, key: str) -> dict[int, tuple[Hypothesis, ...]]:
        """Return the hypotheses of each transcribed chunk, by the chunk's index.

        Raises:
            NotFound, StoreError
        """
        path = self._found(key)
        with self.files.parquet(path) as file, guard(path):
            table = file.read(use_threads=False)
        column = "hypotheses" if "hypotheses" in table.column_names else "opinions"
        return {row["index"]: tuple(hypothesis(one) for one in row[column]) for row in table.to_pylist()}

    def meta(self, key: str) -> dict[str, Any]:
        """What `write` was given, as JSON values, and the key."""
        path = self._found(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file.schema_arrow)

    def _found(self, key: str) -> str:
        return self.located(_path(key))


def hypothesis_row(value: Hypothesis) -> dict[str, Any]:
    """A hypothesis as it is stored."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: list(field) if isinstance(field, tuple) else field for name, field in fields.items()}


def hypothesis(row: Mapping[str, Any]) -> Hypothesis:
    """A stored hypothesis as the noun; members may have the names that version 0.1 gave them."""
    stored = {name: row[name] if name in row else row[_EARLIER[name]] for name in HYPOTHESIS.names}
    tuples = {name: tuple(stored[name]) for name in ("forced_logprobs", "expected_token_errors")}
    return Hypothesis(**(stored | tuples))


def _write(file: BinaryIO, rows: Iterable[tuple[int, tuple[Hypothesis, ...]]], meta: Mapping[str, Any]) -> None:
    schema = describe(SCHEMA, meta)
    stored = [{"index": index, "hypotheses": [hypothesis_row(one) for one in values]} for index, values in rows]
    with writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist(stored, schema=schema))


def _path(key: str) -> str:
    return fanned("hypotheses", key, ".parquet")

"""The columns of facts on which policies work: one array per column, one entry per row (a chunk or a segment)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy.metrics import COUNT_COLUMNS, Columns
from k2d.schema import Distances, Evidence

DISTANCE_COLUMNS: Final = (
    *(f"mer_{name}" for name in COUNT_COLUMNS),
    *(f"per_{name}" for name in COUNT_COLUMNS),
    "teacher_repetition",
    "validator_repetition",
    "is_phrase",
    "zh_tokens",
    "en_tokens",
)
EVIDENCE_COLUMNS: Final = tuple(field.name for field in fields(Evidence))
COLUMNS: Final = (*dict.fromkeys((*DISTANCE_COLUMNS, *EVIDENCE_COLUMNS)),)
TOKEN_COLUMNS: Final = ("zh_tokens", "en_tokens", "other_tokens")


def columns_of(
    chunk_distances: Sequence[Distances], evidence: Sequence[Evidence] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Convert the facts of chunks to columns, shape (chunks,) each, in order.

        columns_of([facts.distances], [facts.evidence])["mer_hits"]

    With evidence these are COLUMNS. Without, they are DISTANCE_COLUMNS, which policies with a distance as metric need.
    """
    counts = {
        f"{prefix}_{name}": np.array([getattr(getattr(row, field), name) for row in chunk_distances], np.int64)
        for prefix, field in (("mer", "mixed"), ("per", "phonemes"))
        for name in COUNT_COLUMNS
    }
    plain = {
        name: np.array([getattr(row, name) for row in chunk_distances], np.int64)
        for name in ("teacher_repetition", "validator_repetition", "zh_tokens", "en_tokens")
    }
    columns = counts | plain | {"is_phrase": np.array([row.phrase is not None for row in chunk_distances], np.bool_)}
    return columns if evidence is None else columns | evidence_columns(evidence)


def evidence_columns(evidence: Sequence[Evidence]) -> dict[str, npt.NDArray[Any]]:
    """Convert evidence to EVIDENCE_COLUMNS, shape (rows,) each, in order. These are all the columns of segments."""
    types = {int: np.int32, float: np.float32, bool: np.bool_}
    return {
        field.name: np.array([getattr(row, field.name) for row in evidence], types[field.type])  # type: ignore[index]
        for field in fields(Evidence)
    }


def evidence_tokens(columns: Columns) -> npt.NDArray[Any]:
    """Mixed tokens of each label, shape (rows,), from TOKEN_COLUMNS."""
    return columns["zh_tokens"] + columns["en_tokens"] + columns["other_tokens"]


def label_tokens(columns: Columns) -> npt.NDArray[Any]:
    """Mixed tokens of each label, shape (rows,); from the alignment's counts where there is no evidence."""
    if "other_tokens" in columns:
        return evidence_tokens(columns)
    return columns["mer_hits"] + columns["mer_substitutions"] + columns["mer_insertions"]


class RowSubset(Mapping[str, npt.NDArray[Any]]):
    """Some rows of columns; each column is indexed on first use."""

    def __init__(self, columns: Columns, rows: npt.NDArray[np.intp]) -> None:
        self._columns = columns
        self._rows = rows
        self._subset: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._subset:
            self._subset[name] = self._columns[name][self._rows]
        return self._subset[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

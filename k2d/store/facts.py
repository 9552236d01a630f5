"""Facts shards: distances, evidence and texts of a recording's chunks, one row per chunk, mostly in flat columns."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2d.errors import DamagedFile, NotFound
from k2d.schema import ChunkFacts, Counts, Distances, Evidence, Segment
from k2d.store.base import LakePart, key_path
from k2d.store.guard import damaged, decoding, guard
from k2d.store.hypotheses import HYPOTHESIS, hypothesis, hypothesis_row
from k2d.store.labels import segment, segment_row
from k2d.store.parquet import SEGMENT, describe, meta_of, writer

COUNTS: Final = tuple(field.name for field in dataclasses.fields(Counts))
_INT, _FLOAT, _TEXT = pa.int32(), pa.float64(), pa.string()
_TYPES: Final[Mapping[Any, pa.DataType]] = {int: _INT, float: pa.float32(), bool: pa.bool_()}
EVIDENCE: Final = tuple(field.name for field in dataclasses.fields(Evidence))
_EVIDENCE_FIELDS: Final = [(field.name, _TYPES[field.type]) for field in dataclasses.fields(Evidence)]

SCHEMA: Final = pa.schema(
    [
        ("id", _TEXT),
        ("recording_id", _TEXT),
        ("index", _INT),
        ("start_s", _FLOAT),
        ("end_s", _FLOAT),
        ("duration_s", _FLOAT),
        *((f"mer_{name}", _INT) for name in COUNTS),
        *((f"per_{name}", _INT) for name in COUNTS),
        ("teacher_repetition", _INT),
        ("validator_repetition", _INT),
        *(field for field in _EVIDENCE_FIELDS if field[0] not in ("duration_s", "teacher_repetition")),
        ("phrase", _TEXT),
        ("language", _TEXT),  # the one with the most seconds
        ("validator_avg_logprob", _FLOAT),
        ("teacher_text", _TEXT),
        ("validators", _TEXT),
        ("perturbations", pa.list_(_TEXT)),
        ("validator_texts", pa.list_(_TEXT)),
        ("segments", pa.list_(SEGMENT)),
        ("hypotheses", pa.list_(HYPOTHESIS)),
        ("segment_evidence", pa.list_(pa.struct(_EVIDENCE_FIELDS))),
    ]
)
# the columns that policies use
POLICY_COLUMNS: Final = (
    *(f"mer_{name}" for name in COUNTS),
    *(f"per_{name}" for name in COUNTS),
    "validator_repetition",
    *(name for name in EVIDENCE if name != "duration_s"),
)
# columns that are only shown for a single chunk, and therefore left out of the index
DETAILS: Final = ("segments", "hypotheses", "segment_evidence")

# Names of the same columns, and of the same members of segment_evidence, in stores of version 0.1.
_EARLIER: Final = {
    "phonemes": "units",
    "forced_logprob": "score",
    "expected_token_error": "doubt",
    "probe_nll": "unsounded",
    "hypothesis_repetition": "opinion_repetition",
    "validators": "validator",
    "perturbations": "views",
    "hypotheses": "opinions",
}
# Columns, and members of segment_evidence, that shards of earlier versions lack, and what they would have there.
_ADDED: Final = {"is_rescored": False}  # 0.3


_NEVER_NULL: Final = frozenset((*POLICY_COLUMNS, "id", "recording_id", "index", "duration_s", "segment_evidence"))


class Facts(LakePart):
    """Facts shards: facts/ab/<facts_key>.parquet.

    for fact in lake.facts.read(result.facts_key):
        print(fact.teacher_text, fact.evidence.disagreement_middle)
    """

    def has(self, key: str) -> bool:
        """Whether the shard exists: the recording is labeled and validated."""
        return self.files.exists(_path(key))

    def is_current(self, key: str) -> bool:
        """Whether the shard can be read and has every column of the current version. Reads all of it."""
        try:
            self.shard(key)
        except (NotFound, DamagedFile):
            return False
        return True

    def write(self, key: str, rows: Iterable[ChunkFacts], meta: Mapping[str, Any]) -> None:
        """Write the shard at `key` atomically, as one row group. The method `meta` returns `meta` again."""
        path = _path(key)
        schema = describe(SCHEMA, {**meta, "facts_key": key})
        with self.files.pending(path.rpartition("/")[0]) as pending:
            with guard(path, writing=True), writer(pending.file, schema) as out:
                out.write_table(pa.Table.from_pylist([_row(fact) for fact in rows], schema=schema))
            pending.commit(path)

    def remove(self, key: str) -> None:
        """Remove the shard, if it exists, so that it is computed again."""
        self.files.remove(_path(key))

    def read(self, key: str, *, only: Collection[int] | None = None) -> list[ChunkFacts]:
        """Read the facts of one recording, in the order of its chunks; or those of the chunks with the indices `only`.

        Raises:
            NotFound: there are none, or they were written by an earlier version.
            StoreError
        """
        table = self.shard(key)[0]
        if only is not None:
            table = table.filter(pc.is_in(table["index"], pa.array(sorted(only), _INT)))
        with decoding(_path(key)):
            return [_fact(row) for row in table.to_pylist()]

    def shard(self, key: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
        """Read columns of one shard (all of SCHEMA if None) and its metadata.

        Raises:
            NotFound: there is none, or it lacks a column because an earlier version wrote it.
            DamagedFile, StoreError
        """
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            wanted = SCHEMA.names if columns is None else columns
            stored = _stored_names(file.schema_arrow, wanted, path)
            table = file.read(columns=list(stored.values()), use_threads=False).select(list(stored.values()))
            completed = _completed(_renamed(table, list(stored)), wanted)
            _check_types(completed, path)
            return completed, meta_of(file)

    def label_key(self, key: str) -> str:
        """The key of the labels that the facts of a recording were made from.

        Raises:
            NotFound: there are no facts.
            DamagedFile: they do not name their labels.
            StoreError
        """
        meta = self.meta(key)
        if "label_key" not in meta:
            raise damaged(_path(key), "it does not name its labels")
        return str(meta["label_key"])

    def meta(self, key: str) -> dict[str, Any]:
        """Return the metadata given to `write`, as JSON values, and the key."""
        path = _path(key)
        with self.files.parquet(path) as file, guard(path):
            return meta_of(file)


def _stored_names(schema: pa.Schema, wanted: Sequence[str], path: str) -> dict[str, str]:
    """The name in a shard of this schema of each wanted column.

    Raises:
        NotFound: the shard lacks a column. Facts of an earlier version count as missing; they are computed again
        without
            running the teacher.
    """
    names = set(schema.names)
    present = (name for name in wanted if name in names or name not in _ADDED)
    stored = {name: name if name in names else _EARLIER.get(name, name) for name in present}
    missing = next((name for name, earlier in stored.items() if earlier not in names), None)
    if missing is not None:
        raise NotFound(
            f"{path} was written by an earlier version of k2d (it has no column {missing})",
            hint="run `k2d resume`: facts are computed again from the stored labels and hypotheses",
        )
    return stored


def _check_types(table: pa.Table, path: str) -> None:
    """Check that columns of the index have the types of SCHEMA, and those that are numbers for policies no nulls.

    Raises:
        DamagedFile
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name not in DETAILS and column.type != SCHEMA.field(name).type:
            raise damaged(path, f"its column {name} has the type {column.type}")
        if name in _NEVER_NULL and column.null_count:
            raise damaged(path, f"its column {name} has rows without a value")


def _renamed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Rename the columns of a table of version 0.1; other tables stay as they are."""
    table = table.replace_schema_metadata().rename_columns(list(names))
    if (
        "segment_evidence" in names
        and table.schema.field("segment_evidence").type != SCHEMA.field("segment_evidence").type
    ):
        at = list(names).index("segment_evidence")
        chunks = table["segment_evidence"].chunks
        lists = pa.chunked_array([_renamed_members(chunk) for chunk in chunks], _EVIDENCE_LIST)
        table = table.set_column(at, SCHEMA.field("segment_evidence"), lists)
    return table


def _completed(table: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """Insert the columns that an earlier version did not have."""
    for at, name in enumerate(wanted):
        if name not in table.column_names:
            column = pa.repeat(pa.scalar(_ADDED[name], SCHEMA.field(name).type), table.num_rows)
            table = table.add_column(at, SCHEMA.field(name), column)
    return table


def _renamed_members(lists: pa.ListArray) -> pa.ListArray:
    """Rename and reorder the members of segment evidence of version 0.1."""
    members = lists.flatten()
    fields = {_CURRENT.get(field.name, field.name): members.field(place) for place, field in enumerate(members.type)}
    fields |= {name: pa.repeat(pa.scalar(value), len(members)) for name, value in _ADDED.items() if name not in fields}
    evidence = pa.StructArray.from_arrays([fields[name] for name in EVIDENCE], fields=list(_EVIDENCE_LIST.value_type))
    offsets = lists.offsets if lists.offset == 0 else pa.array(lists.offsets.to_numpy() - lists.offsets[0].as_py())
    return pa.ListArray.from_arrays(offsets, evidence, type=_EVIDENCE_LIST)


_EVIDENCE_LIST: Final = SCHEMA.field("segment_evidence").type
_CURRENT: Final = {earlier: name for name, earlier in _EARLIER.items()}


def main_language(segments: Sequence[Segment]) -> str:
    """Return the language with the most seconds; of several with the same duration, the first."""
    seconds: dict[str, float] = {}
    for value in segments:
        seconds[value.language] = seconds.get(value.language, 0.0) + value.end_s - value.start_s
    return max(seconds, key=lambda language: seconds[language])


def _row(fact: ChunkFacts) -> dict[str, Any]:
    distances, segments = fact.distances, fact.segments
    return {
        "id": fact.id,
        "recording_id": fact.recording_id,
        "index": fact.index,
        "start_s": fact.start_s,
        "end_s": fact.end_s,
        **_evidence_row(fact.evidence),
        "duration_s": fact.duration_s,  # exact to the millisecond, for ledgers; the evidence has it as float32
        **{f"mer_{name}": getattr(distances.mixed, name) for name in COUNTS},
        **{f"per_{name}": getattr(distances.phonemes, name) for name in COUNTS},
        "validator_repetition": distances.validator_repetition,
        "phrase": distances.phrase,
        "language": main_language(segments),
        "validator_avg_logprob": fact.validator_avg_logprob,
        "teacher_text": fact.teacher_text,
        "validators": fact.validators,
        "perturbations": list(fact.perturbations),
        "validator_texts": list(fact.validator_texts),
        "segments": [segment_row(s) for s in segments],
        "hypotheses": [hypothesis_row(value) for value in fact.hypotheses],
        "segment_evidence": [_evidence_row(value) for value in fact.segment_evidence],
    }


def _evidence_row(evidence: Evidence) -> dict[str, Any]:
    return {name: getattr(evidence, name) for name in EVIDENCE}


def _evidence(row: Mapping[str, Any]) -> Evidence:
    return Evidence(**{name: row[name] for name in EVIDENCE})


def _fact(row: Mapping[str, Any]) -> ChunkFacts:
    return ChunkFacts(
        id=row["id"],
        recording_id=row["recording_id"],
        index=row["index"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        teacher_text=row["teacher_text"],
        segments=tuple(segment(value) for value in row["segments"]),
        validators=row["validators"],
        hypotheses=tuple(hypothesis(value) for value in row["hypotheses"]),
        distances=Distances(
            mixed=Counts(*(row[f"mer_{name}"] for name in COUNTS)),
            phonemes=Counts(*(row[f"per_{name}"] for name in COUNTS)),
            teacher_repetition=row["teacher_repetition"],
            validator_repetition=row["validator_repetition"],
            phrase=row["phrase"],
            zh_tokens=row["zh_tokens"],
            en_tokens=row["en_tokens"],
        ),
        evidence=_evidence({**row, "duration_s": float(np.float32(row["duration_s"]))}),
        segment_evidence=tuple(_evidence(value) for value in row["segment_evidence"]),
    )


def _path(key: str) -> str:
    return key_path("facts", key, ".parquet")

"""Facts shards: one row for each chunk, flat columns that a policy or a query can read without Python."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa

from k2d.schema import ChunkFacts, Counts, Distances, Evidence, Segment
from k2d.store.label_shard import segment, segment_row
from k2d.store.opinions_shard import OPINION, opinion, opinion_row
from k2d.store.parquet import SEGMENT, describe, writer

COUNTS = ("hits", "substitutions", "deletions", "insertions")
_INT, _FLOAT, _TEXT = pa.int32(), pa.float64(), pa.string()
_TYPES: Final[Mapping[Any, pa.DataType]] = {int: _INT, float: pa.float32(), bool: pa.bool_()}
EVIDENCE = tuple(one.name for one in dataclasses.fields(Evidence))
_EVIDENCE_FIELDS = [(one.name, _TYPES[one.type]) for one in dataclasses.fields(Evidence)]

SCHEMA = pa.schema(
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
        *(one for one in _EVIDENCE_FIELDS if one[0] not in ("duration_s", "teacher_repetition")),
        ("phrase", _TEXT),
        ("language", _TEXT),  # of the most seconds
        ("validator_avg_logprob", _FLOAT),
        ("teacher_text", _TEXT),
        ("validator", _TEXT),
        ("views", pa.list_(_TEXT)),
        ("validator_texts", pa.list_(_TEXT)),
        ("segments", pa.list_(SEGMENT)),
        ("opinions", pa.list_(OPINION)),
        ("segment_evidence", pa.list_(pa.struct(_EVIDENCE_FIELDS))),
    ]
)
# what a policy looks at
POLICY_COLUMNS = (
    *(f"mer_{name}" for name in COUNTS),
    *(f"per_{name}" for name in COUNTS),
    "validator_repetition",
    *(name for name in EVIDENCE if name != "duration_s"),
)
# what a person looks at when one chunk is asked for; left out of the index
DETAILS = ("segments", "opinions", "segment_evidence")
# what a facts row gains in the index of a batch
POSITION_COLUMNS = (
    ("position", _INT),  # of the recording in the batch
    ("recording", _TEXT),  # the source's name
    ("label_key", _TEXT),
    ("facts_key", _TEXT),
    ("teacher_fingerprint", _TEXT),
    ("validator_fingerprint", _TEXT),
)
INDEX_SCHEMA = pa.schema([*POSITION_COLUMNS, *(field for field in SCHEMA if field.name not in DETAILS)])


def write(file: BinaryIO, rows: Iterable[ChunkFacts], meta: Mapping[str, Any]) -> None:
    """Write the facts of one recording as a shard of one row group."""
    schema = describe(SCHEMA, meta)
    with writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist([_row(fact) for fact in rows], schema=schema))


def facts(table: pa.Table) -> list[ChunkFacts]:
    """Rows with every column of SCHEMA as the noun."""
    return [_fact(row) for row in table.to_pylist()]


def with_constants(table: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    """Put columns of one repeated value, typed as in INDEX_SCHEMA, before the others."""
    for place, (name, value) in enumerate(values.items()):
        repeated = pa.repeat(pa.scalar(value, INDEX_SCHEMA.field(name).type), table.num_rows)
        table = table.add_column(place, INDEX_SCHEMA.field(name), repeated)
    return table


def main_language(segments: Sequence[Segment]) -> str:
    """The language of the most seconds; the first of them where several have as many."""
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
        "duration_s": fact.duration_s,  # to the millisecond, as ledgers add it up; evidence has it as float32
        **{f"mer_{name}": getattr(distances.mixed, name) for name in COUNTS},
        **{f"per_{name}": getattr(distances.phonemes, name) for name in COUNTS},
        "validator_repetition": distances.validator_repetition,
        "phrase": distances.phrase,
        "language": main_language(segments),
        "validator_avg_logprob": fact.validator_avg_logprob,
        "teacher_text": fact.teacher_text,
        "validator": fact.validator,
        "views": list(fact.views),
        "validator_texts": list(fact.validator_texts),
        "segments": [segment_row(s) for s in segments],
        "opinions": [opinion_row(one) for one in fact.opinions],
        "segment_evidence": [_evidence_row(one) for one in fact.segment_evidence],
    }


def _evidence_row(one: Evidence) -> dict[str, Any]:
    return {name: getattr(one, name) for name in EVIDENCE}


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
        validator=row["validator"],
        opinions=tuple(opinion(one) for one in row["opinions"]),
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
        segment_evidence=tuple(_evidence(one) for one in row["segment_evidence"]),
    )

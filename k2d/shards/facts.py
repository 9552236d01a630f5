"""Facts shards: one row for each chunk, flat columns that a policy or a query can read without Python."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from k2d.schema import ChunkFacts, Counts, Distances, Segment
from k2d.shards.labels import segment, segment_row
from k2d.shards.parquet import SEGMENT, describe, writer

COUNTS = ("hits", "substitutions", "deletions", "insertions")
_INT, _FLOAT, _TEXT = pa.int32(), pa.float64(), pa.string()

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
        ("is_phrase", pa.bool_()),
        ("phrase", _TEXT),
        ("zh_tokens", _INT),
        ("en_tokens", _INT),
        # the teacher's own signals, one value for the chunk
        ("avg_logprob", _FLOAT),  # mean over tokens
        ("no_speech_prob", _FLOAT),  # the largest
        ("compression_ratio", _FLOAT),  # the largest
        ("temperature", _FLOAT),  # the largest
        ("language", _TEXT),  # of the most seconds
        ("validator_avg_logprob", _FLOAT),
        ("teacher_text", _TEXT),
        ("validator", _TEXT),
        ("views", pa.list_(_TEXT)),
        ("validator_texts", pa.list_(_TEXT)),
        ("segments", pa.list_(SEGMENT)),
    ]
)
# what a policy looks at
POLICY_COLUMNS = (
    *(f"mer_{name}" for name in COUNTS),
    *(f"per_{name}" for name in COUNTS),
    "teacher_repetition",
    "validator_repetition",
    "is_phrase",
    "zh_tokens",
    "en_tokens",
)
# what a facts row gains in the index of a batch
POSITION_COLUMNS = (
    ("position", _INT),  # of the recording in the batch
    ("recording", _TEXT),  # the source's name
    ("label_key", _TEXT),
    ("facts_key", _TEXT),
    ("teacher_fingerprint", _TEXT),
    ("validator_fingerprint", _TEXT),
)
INDEX_SCHEMA = pa.schema([*POSITION_COLUMNS, *(field for field in SCHEMA if field.name != "segments")])


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


def mean_logprob(segments: Sequence[Segment]) -> float:
    """The teacher's mean log-probability over segments, each weighted by how much it says.

    The weight is the number of tokens; where tokens were not kept, a third of the text's UTF-8 bytes, which is what
    a Whisper token covers (a Han character has 3 bytes, an English token about 4).
    """
    weights = [max(1.0, len(s.tokens) or len(s.text.encode("utf-8", "replace")) / 3) for s in segments]
    return sum(w * s.avg_logprob for w, s in zip(weights, segments, strict=True)) / sum(weights)


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
        "duration_s": fact.duration_s,
        **{f"mer_{name}": getattr(distances.mixed, name) for name in COUNTS},
        **{f"per_{name}": getattr(distances.phonemes, name) for name in COUNTS},
        "teacher_repetition": distances.teacher_repetition,
        "validator_repetition": distances.validator_repetition,
        "is_phrase": distances.phrase is not None,
        "phrase": distances.phrase,
        "zh_tokens": distances.zh_tokens,
        "en_tokens": distances.en_tokens,
        "avg_logprob": mean_logprob(segments),
        "no_speech_prob": max(s.no_speech_prob for s in segments),
        "compression_ratio": max(s.compression_ratio for s in segments),
        "temperature": max(s.temperature for s in segments),
        "language": main_language(segments),
        "validator_avg_logprob": fact.validator_avg_logprob,
        "teacher_text": fact.teacher_text,
        "validator": fact.validator,
        "views": list(fact.views),
        "validator_texts": list(fact.validator_texts),
        "segments": [segment_row(s) for s in segments],
    }


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
        views=tuple(row["views"]),
        validator_texts=tuple(row["validator_texts"]),
        validator_avg_logprob=row["validator_avg_logprob"],
        distances=Distances(
            mixed=Counts(*(row[f"mer_{name}"] for name in COUNTS)),
            phonemes=Counts(*(row[f"per_{name}"] for name in COUNTS)),
            teacher_repetition=row["teacher_repetition"],
            validator_repetition=row["validator_repetition"],
            phrase=row["phrase"],
            zh_tokens=row["zh_tokens"],
            en_tokens=row["en_tokens"],
        ),
    )

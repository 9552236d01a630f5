"""Sets stored as Parquet, with audio as the Hugging Face hub stores it: struct {bytes, path}.

Sources of the schemas:
- `ky552/ML2021_ASR_ST` (NTUML2021): its dataset card, `dataset_info`: audio, transcription, translation, file.
- `CAiRE/ASCEND`: its dataset card: id, path, audio, transcription, duration, language (zh, en, mixed),
  original_speaker_id, session_id, topic.
- `ky552/cszs_zh_en` (CSZS): the card of its sibling `ky552/cszs_es_en`: correct_audio, correct_transcription,
  correct_file, and the same three with wrong_ (a perturbed sentence, for a ranking task; not used here).
- Common Voice mirrors: client_id, path, audio, sentence, …, locale.
- this project's frozen datasets and their exports: `k2d.datasets.rows.SCHEMA`.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.errors import BadRequest
from k2d.schema import MIXED
from trainer.evaluation.utterances import Utterance, UtteranceReference, make_reference, opener

ROWS: Final = 16  # in memory at once
LANGUAGES: Final = {"mixed": MIXED, "zh-TW": "zh", "zh-CN": "zh"}


@dataclass(frozen=True, slots=True)
class ParquetSchema:
    """Which columns are read, and which tell this schema from the others."""

    kind: str
    audio: str
    text: str
    also_required: tuple[str, ...] = ()  # further columns that tell files of this kind from others
    name: str | None = None  # None: rows are numbered
    language: str | None = None
    recording: str | None = None
    only_language: str | None = None  # the language of all rows
    pseudo_labels: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        return (self.audio, self.text, *self.also_required)

    @property
    def columns(self) -> list[str]:
        """The columns that are read beside the audio."""
        return [name for name in (self.text, self.name, self.language, self.recording) if name]


# the first one whose columns a file has is taken
SCHEMAS: Final = (
    ParquetSchema("CSZS", "correct_audio", "correct_transcription", only_language=MIXED),
    ParquetSchema("ASCEND", "audio", "transcription", ("id", "session_id", "language"), name="id", language="language"),
    ParquetSchema("NTUML2021", "audio", "transcription", ("translation", "file")),
    ParquetSchema("Common Voice", "audio", "sentence", ("client_id", "path", "locale"), name="path", language="locale"),
    ParquetSchema(
        "k2d dataset",
        "audio",
        "text",
        ("id", "recording_id", "chunk_ids"),
        name="id",
        recording="recording_id",
        pseudo_labels=True,
    ),
    ParquetSchema("Parquet with audio and transcription", "audio", "transcription"),
    ParquetSchema("Parquet with audio and text", "audio", "text"),
)


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """One file, local or of the lake."""

    name: str  # for messages, and for rows without a name of their own
    open: Callable[[], pq.ParquetFile]
    folder: Path | None = None  # that audio paths are relative to

    @classmethod
    def at(cls, path: Path) -> Self:
        return cls(path.stem, lambda: pq.ParquetFile(path), path.parent)


@dataclass(frozen=True, slots=True)
class ParquetSet:
    """Parquet files of one schema, read a few rows at a time."""

    name: str
    files: tuple[ParquetFile, ...]
    schema: ParquetSchema

    @property
    def kind(self) -> str:
        return self.schema.kind

    @property
    def pseudo_labels(self) -> bool:
        return self.schema.pseudo_labels

    def references(self) -> Iterator[UtteranceReference]:
        for file in self.files:
            for number, row in self._rows(file, self.schema.columns):
                yield self._reference(file, number, row)

    def utterances(self) -> Iterator[Utterance]:
        for file in self.files:
            for number, row in self._rows(file, [self.schema.audio, *self.schema.columns]):
                yield Utterance(
                    self._reference(file, number, row), opener(_RowAudio(file, row[self.schema.audio] or {}))
                )

    def _rows(self, file: ParquetFile, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            with file.open() as opened:
                for batch in opened.iter_batches(batch_size=ROWS, columns=columns):
                    for row in batch.to_pylist():
                        yield number, row
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise BadRequest(
                f"{file.name} of {self.name} cannot be read after row {number}: {error}", hint="fetch it again"
            ) from error

    def _reference(self, file: ParquetFile, number: int, row: dict[str, Any]) -> UtteranceReference:
        schema = self.schema
        language = schema.only_language or (row[schema.language] if schema.language else None)
        return make_reference(
            name=str(row[schema.name]) if schema.name else f"{file.name}:{number:05d}",
            text=row[schema.text],
            language=LANGUAGES.get(language, language) if language else None,
            recording=str(row[schema.recording]) if schema.recording else None,
        )


@dataclass(frozen=True, slots=True)
class _RowAudio:
    """One row's audio: its bytes, or a path relative to the Parquet file. Called to open it."""

    file: ParquetFile
    value: dict[str, Any]

    def __call__(self) -> io.BytesIO | Path:
        data = self.value.get("bytes")
        if data is not None:
            return io.BytesIO(data)
        return (self.file.folder or Path()) / (self.value.get("path") or "")


def read_schema(file: ParquetFile) -> ParquetSchema:
    """Which of `SCHEMAS` a Parquet file follows.

        read_schema(ParquetFile.at(Path("test-00000-of-00001.parquet"))).kind

    Raises:
        BadRequest: none of them, or it is not a Parquet file.
    """
    try:
        with file.open() as opened:
            columns = opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise BadRequest(f"{file.name} is not a Parquet file: {error}", hint="fetch it again") from error
    for schema in SCHEMAS:
        if set(schema.required) <= set(columns.names) and pa.types.is_struct(columns.field(schema.audio).type):
            return schema
    known = "; ".join(f"{schema.kind}: {', '.join(schema.required)}" for schema in SCHEMAS)
    raise BadRequest(
        f"{file.name} follows no known schema: its columns are {', '.join(columns.names)[:300]}",
        hint=f"write a manifest (JSONL) beside the audio, or name columns as one of these does. {known}",
    )

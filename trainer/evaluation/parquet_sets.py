"""Sets published as Parquet, with audio as the Hugging Face hub stores it: struct {bytes, path}.

Where each schema was read:
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
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.errors import BadRequest
from k2d.schema import MIXED
from trainer.evaluation.utterances import Said, Utterance, opener, said

ROWS = 16  # in memory at once
LANGUAGES = {"mixed": MIXED, "zh-TW": "zh", "zh-CN": "zh"}


@dataclass(frozen=True, slots=True)
class Schema:
    """Which columns matter, and which tell this schema from the others."""

    kind: str
    audio: str
    text: str
    telling: tuple[str, ...] = ()  # further columns a file must have to be of this kind
    name: str | None = None  # None: rows are numbered
    language: str | None = None
    recording: str | None = None
    is_in: str | None = None  # the language of all rows
    pseudo_labels: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.audio, self.text, *self.telling)

    @property
    def columns(self) -> list[str]:
        """What is read beside the audio."""
        return [name for name in (self.text, self.name, self.language, self.recording) if name]


# the first one that fits is taken
SCHEMAS = (
    Schema("CSZS", "correct_audio", "correct_transcription", is_in=MIXED),
    Schema("ASCEND", "audio", "transcription", ("id", "session_id", "language"), name="id", language="language"),
    Schema("NTUML2021", "audio", "transcription", ("translation", "file")),
    Schema("Common Voice", "audio", "sentence", ("client_id", "path", "locale"), name="path", language="locale"),
    Schema(
        "k2d dataset",
        "audio",
        "text",
        ("id", "recording_id", "chunk_ids"),
        name="id",
        recording="recording_id",
        pseudo_labels=True,
    ),
    Schema("Parquet with audio and transcription", "audio", "transcription"),
    Schema("Parquet with audio and text", "audio", "text"),
)


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """One file, wherever it is."""

    name: str  # for messages, and for rows without a name of their own
    open: Callable[[], pq.ParquetFile]
    folder: Path | None = None  # where audio may lie beside it

    @classmethod
    def at(cls, path: Path) -> Self:
        return cls(path.stem, lambda: pq.ParquetFile(path), path.parent)


@dataclass(frozen=True, slots=True)
class ParquetSet:
    """Parquet files of one schema, read a few rows at a time."""

    name: str
    files: tuple[ParquetFile, ...]
    schema: Schema

    @property
    def kind(self) -> str:
        return self.schema.kind

    @property
    def pseudo_labels(self) -> bool:
        return self.schema.pseudo_labels

    def said(self) -> Iterator[Said]:
        for file in self.files:
            for number, row in self._rows(file, self.schema.columns):
                yield self._said(file, number, row)

    def utterances(self) -> Iterator[Utterance]:
        for file in self.files:
            for number, row in self._rows(file, [self.schema.audio, *self.schema.columns]):
                yield Utterance(self._said(file, number, row), opener(_Audio(file, row[self.schema.audio] or {})))

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

    def _said(self, file: ParquetFile, number: int, row: dict[str, Any]) -> Said:
        schema = self.schema
        language = schema.is_in or (row[schema.language] if schema.language else None)
        return said(
            name=str(row[schema.name]) if schema.name else f"{file.name}:{number:05d}",
            text=row[schema.text],
            language=LANGUAGES.get(language, language) if language else None,
            recording=str(row[schema.recording]) if schema.recording else None,
        )


@dataclass(frozen=True, slots=True)
class _Audio:
    """One row's audio: its bytes, or a path beside the Parquet file. Called to open it."""

    file: ParquetFile
    value: dict[str, Any]

    def __call__(self) -> io.BytesIO | Path:
        data = self.value.get("bytes")
        if data is not None:
            return io.BytesIO(data)
        return (self.file.folder or Path()) / (self.value.get("path") or "")


def read_schema(file: ParquetFile) -> Schema:
    """Which of `SCHEMAS` a Parquet file follows.

    Raises:
        BadRequest: none of them, or it is no Parquet file.
    """
    try:
        with file.open() as opened:
            found = opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise BadRequest(f"{file.name} is no Parquet file: {error}", hint="fetch it again") from error
    for schema in SCHEMAS:
        if set(schema.needs) <= set(found.names) and pa.types.is_struct(found.field(schema.audio).type):
            return schema
    known = "; ".join(f"{schema.kind}: {', '.join(schema.needs)}" for schema in SCHEMAS)
    raise BadRequest(
        f"{file.name} follows no known schema: it has {', '.join(found.names)[:300]}",
        hint=f"write a manifest (JSONL) beside the audio, or name columns as one of these does. {known}",
    )

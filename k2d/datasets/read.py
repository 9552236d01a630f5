"""Reads a frozen dataset: its manifest and its rows, one row group in memory at a time."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.datasets.rows import ROWS_PER_GROUP
from k2d.datasets.scripts import described, in_script, with_raw_text
from k2d.errors import Conflict, DamagedFile, NotFound, StoreError
from k2d.schema import Script
from k2d.store.datasets import shard_file
from k2d.store.guard import DAMAGED_HINT, damaged, guard
from k2d.store.manifest import Manifest
from k2d.store.parquet import describe, writer

REPAIR_HINT: Final = (
    "`k2d datasets delete` it, then `k2d freeze` it again or pull it again: equal content gives equal shards"
)


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One training row."""

    id: str
    flac: bytes  # 16 kHz mono
    text: str
    duration_s: float
    recording_id: str
    language: str
    fields: dict[str, Any]  # all columns except the audio, as JSON values

    def json(self) -> bytes:
        """Return `fields` as one line of JSON."""
        return json_line(self.fields)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of a shard, which is read at once."""

    shard: int
    number: int  # within its shard
    rows: int  # how many it has


class ShardFiles(Protocol):
    """Where the shards of datasets are read (`k2d.store.datasets.Datasets`)."""

    def manifest(self, name: str) -> Manifest: ...

    def shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> pq.ParquetFile: ...

    def open_shard(self, name: str, number: int, *, manifest: Manifest | None = None) -> BinaryIO: ...

    def missing_shards(self, name: str) -> list[int]: ...


class ShardStore(Protocol):
    """What has datasets: a lake, or a remote API (`k2d.datasets.pull.RemoteStore`)."""

    @property
    def datasets(self) -> ShardFiles: ...


class FrozenDataset:
    """One dataset of a lake, opened for reading.

        for row in FrozenDataset(lake, "lectures-v1").rows(0):
            print(row.text, row.duration_s)

    Args:
        script: convert the labels of a dataset as heard when `rows` reads them; the manifest then says so, with the
            digest of the dataset as it is stored. None, or the dataset's own script: as it is stored.

    Raises:
        NotFound: no such dataset.
        Conflict: the dataset is in another script.
        StoreError
    """

    def __init__(self, lake: ShardStore, name: str, *, script: Script | None = None) -> None:
        self._lake = lake
        self.manifest = Manifest.model_validate(lake.datasets.manifest(name))
        own = self.manifest.script.name if self.manifest.script is not None else Script.AS_HEARD
        if script is not None and own not in (script, Script.AS_HEARD):
            raise Conflict(
                f"the labels of dataset {name!r} are in {own} characters",
                hint="freeze the batches under another name and in the script you want",
            )
        self.converted_to = script if script is not None and script is not own else None
        if self.converted_to is not None:
            self.manifest = self.manifest.model_copy(update={"script": described(self.converted_to)})

    def rows(self, shard: int) -> Iterator[DatasetRow]:
        """Iterate over the rows of one shard, in order.

        Raises:
            StoreError: the shard is gone, or not the one that was frozen.
        """
        with self._open(shard) as file:
            for group in range(file.metadata.num_row_groups):  # iter_batches would hold the whole shard
                yield from map(self._row, file.read_row_group(group, use_threads=False).to_pylist())

    def groups(self) -> list[RowGroup]:
        """List all row groups in order. Computed from the manifest; no shard is opened."""
        return [
            RowGroup(shard.number, number, min(ROWS_PER_GROUP, shard.rows - number * ROWS_PER_GROUP))
            for shard in self.manifest.shards
            for number in range(-(-shard.rows // ROWS_PER_GROUP))
        ]

    def check(self) -> None:
        """Check by one listing that all shards exist.

        Raises:
            StoreError: a shard is gone.
        """
        missing = self._lake.datasets.missing_shards(self.manifest.name)
        if missing:
            raise self._gone(missing[0], more=len(missing) - 1)

    def read(self, group: RowGroup, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Read these columns of the rows of one group; the column `audio.bytes` is the audio without its path.

        Raises:
            StoreError: the shard is gone or damaged, or differs from the manifest.
        """
        with self._open(group.shard) as file:
            groups = file.metadata.num_row_groups
            table = file.read_row_group(group.number, columns=list(columns)) if group.number < groups else None
            if table is None or table.num_rows != group.rows:
                raise damaged(f"row group {group.number}", "it differs from the manifest")
            rows: list[dict[str, Any]] = table.to_pylist()
            return rows

    def copy_shard(self, shard: int, target: Path) -> None:
        """Copy a shard to a local file: byte by byte, or with converted labels."""
        if self.converted_to is not None:
            self._convert_shard(shard, self.converted_to, target)
            return
        with self._errors(shard):
            source = self._lake.datasets.open_shard(self.manifest.name, shard, manifest=self.manifest)
        with source, open(target, "wb") as out:
            while block := source.read(1 << 20):
                out.write(block)

    def _convert_shard(self, shard: int, script: Script, target: Path) -> None:
        with self._open(shard) as file, open(target, "wb") as out:
            schema = with_raw_text(file.schema_arrow.remove_metadata())
            with writer(
                out, describe(schema, {"format_version": self.manifest.format_version}), checksums=False
            ) as converted:
                for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                    rows = [in_script(row, script) for row in batch.to_pylist()]
                    converted.write_table(pa.Table.from_pylist(rows, schema=converted.schema))

    def _row(self, values: dict[str, Any]) -> DatasetRow:
        flac = values.pop("audio")["bytes"]
        if self.converted_to is not None:
            values = in_script(values, self.converted_to)
        return DatasetRow(
            id=values["id"],
            flac=flac,
            text=values["text"],
            duration_s=values["duration_s"],
            recording_id=values["recording_id"],
            language=values["language"],
            fields=values,
        )

    @contextmanager
    def _open(self, shard: int) -> Iterator[pq.ParquetFile]:
        """Open a shard; errors name the dataset and the shard."""
        with self._errors(shard):
            file = self._lake.datasets.shard(self.manifest.name, shard, manifest=self.manifest)
            with file, guard(f"shard {shard}"):
                yield file

    @contextmanager
    def _errors(self, shard: int) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise self._gone(shard) from error
        except StoreError as error:
            if not isinstance(error, DamagedFile) and error.hint != DAMAGED_HINT:
                raise
            raise self._broken(f"shard {shard} of dataset {self.manifest.name!r}: {error.message}", shard) from error

    def _gone(self, shard: int, *, more: int = 0) -> StoreError:
        others = f" and {more} more" if more else ""
        path = f"datasets/{self.manifest.name}/{self.manifest.digest}/{shard_file(self.manifest.shards[shard])}"
        return self._broken(f"shard {shard}{others} of dataset {self.manifest.name!r} is gone: {path}", shard)

    def _broken(self, message: str, shard: int) -> StoreError:
        return StoreError(message, hint=REPAIR_HINT, dataset=self.manifest.name, shard=shard)


def json_line(value: Any) -> bytes:
    """Encode a value as one line of JSON, UTF-8, with a newline at the end.

    Raises:
        ValueError: the value has a NaN or an infinity.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def folder_of(row: DatasetRow) -> str:
    """The subfolder of a row's audio: two hex digits of its recording, since one folder cannot hold a million files."""
    return row.recording_id.removeprefix("rec_")[:2]

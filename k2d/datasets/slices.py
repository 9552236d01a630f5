"""Writes the slices of a dataset: runs of recordings of one part, each by itself, in any order, by anyone.

What is to be written is in the stored plan; what was written of a slice is in a record that is stored after its shards.
So a slice that has a record is done, and when all have one, whoever sees it first writes the manifest.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from threading import Lock
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from k2d.corpus.batch_index import BatchIndex
from k2d.datasets.plan import PartPlan
from k2d.datasets.reviewed import ReviewedSegment, ReviewedTexts, with_reviewed_columns
from k2d.datasets.revoked import revoked
from k2d.datasets.rows import SCHEMA, rows_of, write_groups
from k2d.datasets.scripts import in_script, script_rows, with_raw_text
from k2d.datasets.selection import Selection, selections_of
from k2d.errors import Conflict, DamagedFile, NotFound
from k2d.filtering.policy import Policy
from k2d.schema import LabelScript, Script
from k2d.store import Lake
from k2d.store.datasets import shard_file
from k2d.store.manifest import ROWS_VERSION, DatasetShard, Manifest
from k2d.store.parquet import describe, writer
from k2d.text.script import script_of

PLAN: Final = "plan"


class Slice(NamedTuple):
    """A slice, by the numbers of its part in the plan and of itself in the part."""

    part: int
    number: int

    @property
    def key(self) -> str:
        """The name of its record, which begins those of its shards."""
        return f"{self.part:05d}-{self.number:03d}"


class FreezePlan(BaseModel):
    """A dataset that is being written."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest  # without shards, and what else is known only when they are written
    parts: list[PartPlan]
    without: list[str]  # revoked ids
    reviewed: dict[str, list[ReviewedSegment]] | None = None  # by label key: as they were when this was planned

    @property
    def digest(self) -> str:
        """The digest of the dataset."""
        return self.manifest.digest

    @property
    def selected(self) -> int:
        """The number of recordings of which something is kept."""
        return sum(sum(part.selected) for part in self.parts)

    def slices(self) -> Iterator[Slice]:
        """Iterate over all slices, in the order of the dataset."""
        return (Slice(at, number) for at, part in enumerate(self.parts) for number in range(len(part.slices)))

    def store(self, lake: Lake) -> None:
        """Store the plan beside the shards to be."""
        lake.datasets.put_record(self.manifest.name, self.digest, PLAN, self)

    def missing(self, lake: Lake) -> list[Slice]:
        """The slices that are not written yet. One listing."""
        written = lake.datasets.written(self.manifest.name, self.digest)
        return [slice_ for slice_ in self.slices() if f"{slice_.key}.json" not in written]


class SliceRecord(BaseModel):
    """What was written of a slice."""

    model_config = ConfigDict(frozen=True)

    shards: list[DatasetShard]  # numbered within the slice
    scripts: dict[LabelScript, int]  # rows, as heard
    origins_ms: dict[str, int]  # of segments, by the decode that their text comes from


def read_plan(lake: Lake, name: str, digest: str) -> FreezePlan:
    """Read the stored plan of a dataset that is being written.

    Raises:
        NotFound: there is none: it is finished, or was given up.
        StoreError
    """
    plan: FreezePlan = lake.datasets.record(name, digest, PLAN, FreezePlan)
    return plan


class SliceWriter:
    """Writes slices of one plan, several at once if it is called from threads.

    SliceWriter(lake, plan).write(Slice(0, 0))
    """

    def __init__(self, lake: Lake, plan: FreezePlan, *, progress: Callable[[int], None] = lambda _: None) -> None:
        self._lake, self._plan, self._progress = lake, plan, progress
        manifest = plan.manifest
        self._policy = Policy.model_validate(manifest.policy)
        self._without = revoked(plan.without)
        self._script = manifest.script.name if manifest.script is not None else Script.AS_HEARD
        self._reviewed = ReviewedTexts(plan.reviewed) if plan.reviewed is not None else None
        schema = with_raw_text(SCHEMA) if manifest.script is not None else SCHEMA
        schema = with_reviewed_columns(schema) if self._reviewed is not None else schema
        self._schema = describe(schema, {"format_version": ROWS_VERSION})
        self._lock = Lock()
        self._selections: dict[int, list[Selection]] = {}  # of the part that was asked for last
        self.stopping = False  # whether slices that wait are to be left

    def write(self, slice_: Slice) -> None:
        """Write one slice, unless it is written.

        Raises:
            Conflict: its batch changed since it was planned. What was written of the dataset is removed.
            StoreError
        """
        name, digest = self._plan.manifest.name, self._plan.digest
        part = self._plan.parts[slice_.part]
        if self.stopping or self._lake.datasets.is_finished(name):
            return
        record = read_record(self._lake, self._plan, slice_)
        if record is None or not self._lake.datasets.has_files(name, digest, map(shard_file, record.shards)):
            start, end = part.slices[slice_.number]
            record = self._write(slice_, self._of_part(slice_.part)[start:end])
            self._lake.datasets.put_record(name, digest, slice_.key, record)
            if self._lake.datasets.is_finished(name):  # by somebody who wrote the same slice meanwhile
                self._lake.datasets.drop_records(name, digest)
        else:
            self._progress(part.selected[slice_.number])

    def _write(self, slice_: Slice, chosen: Iterable[Selection]) -> SliceRecord:
        manifest, scripts, origins = self._plan.manifest, Counter[LabelScript](), Counter[str]()
        shards: list[DatasetShard] = []

        def rows() -> Iterator[dict[str, Any]]:
            for selection in chosen:
                for row in rows_of(
                    self._lake,
                    selection,
                    max_gap_s=manifest.max_gap_s,
                    origins=origins,
                    reviewed=self._reviewed.by_place.get(selection.label_key, {}) if self._reviewed else None,
                ):
                    scripts[script_of(row["text"])] += 1
                    yield row if self._script is Script.AS_HEARD else in_script(row, self._script)
                self._progress(1)

        packer = _ShardPacker(rows(), manifest.shard_bytes, self._schema)
        while not packer.done:
            file = f"{slice_.key}-{len(shards):03d}.parquet"
            size, sha256 = self._lake.datasets.put_shard(manifest.name, manifest.digest, file, packer.fill)
            shards.append(
                DatasetShard(
                    number=len(shards),
                    rows=packer.rows,
                    bytes=size,
                    sha256=sha256,
                    seconds=packer.ms / 1000,
                    file=file,
                )
            )
        return SliceRecord(shards=shards, scripts=dict(scripts), origins_ms=dict(origins))

    def _of_part(self, number: int) -> list[Selection]:
        """The selections of a part. Slices come in order, so one part at a time is remembered."""
        with self._lock:
            if number not in self._selections:
                self._selections = {number: self._select(self._plan.parts[number])}
            return self._selections[number]

    def _select(self, plan: PartPlan) -> list[Selection]:
        part = BatchIndex(self._lake, self._lake.batches.get(plan.batch)).part(plan.number)
        selections = selections_of(part, plan.skip, self._policy, self._without, reviewed=self._reviewed)
        chosen = list(selections) if part.stem == plan.stem else []
        if len(chosen) != sum(plan.selected):
            self._lake.datasets.drop_shards(self._plan.manifest.name, self._plan.digest)
            raise Conflict(
                "the batches changed while the dataset was written", hint="freeze it again when no batch is running"
            )
        return chosen


class _ShardPacker:
    """Writes a stream of rows to one shard after another."""

    def __init__(self, rows: Iterable[dict[str, Any]], shard_bytes: int, schema: pa.Schema) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)
        self._shard_bytes = shard_bytes
        self._schema = schema
        self.rows = 0  # of the shard written last
        self.ms = 0

    @property
    def done(self) -> bool:
        """Whether no row is left."""
        return self._next is None

    def fill(self, file: BinaryIO) -> None:
        """Write rows to a file until the shard is large enough or no row is left."""
        self.rows = self.ms = 0
        with writer(file, self._schema, checksums=False) as out:
            write_groups(out, self._shard_rows(), self._schema)

    def _shard_rows(self) -> Iterator[dict[str, Any]]:
        size = 0
        while self._next is not None and size < self._shard_bytes:
            row, self._next = self._next, next(self._rows, None)
            size += len(row["audio"]["bytes"])
            self.rows += 1
            self.ms += round(row["duration_s"] * 1000)
            yield row


def read_record(lake: Lake, plan: FreezePlan, slice_: Slice) -> SliceRecord | None:
    """What was written of a slice; None if it is not written, or its record is damaged."""
    try:
        record: SliceRecord = lake.datasets.record(plan.manifest.name, plan.digest, slice_.key, SliceRecord)
    except (NotFound, DamagedFile):
        return None
    return record


def finish(lake: Lake, name: str, digest: str) -> Manifest | None:
    """Write the manifest, if every slice is written; None if not. Of several that call it at once, each returns it.

    Raises:
        NotFound: there is no such plan, and no such dataset.
        Conflict: another dataset got the name meanwhile.
        StoreError
    """
    try:
        plan = read_plan(lake, name, digest)
    except NotFound:  # another was faster
        return _taken(lake, name, digest)
    records = list(lake.files.many(lambda slice_: read_record(lake, plan, slice_), plan.slices()))
    written = [record for record in records if record is not None]
    if len(written) < len(records):
        return _taken(lake, name, digest) if lake.datasets.is_finished(name) else None
    scripts, origins = Counter[LabelScript](), Counter[str]()
    for record in written:
        scripts.update(record.scripts)
        origins.update(record.origins_ms)
    shards = [shard for record in written for shard in record.shards]
    shards = [shard.model_copy(update={"number": number}) for number, shard in enumerate(shards)]
    counts = plan.manifest.counts.model_copy(update={"rows": sum(shard.rows for shard in shards)})
    manifest = plan.manifest.model_copy(
        update={
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "scripts_as_heard": script_rows(scripts),
            "origins": {origin: ms / 1000 for origin, ms in sorted(origins.items())},
            "counts": counts,
            "shards": shards,
        }
    )
    if not lake.datasets.put(manifest):
        manifest = _taken(lake, name, digest)
    lake.datasets.drop_records(name, digest)
    return manifest


def _taken(lake: Lake, name: str, digest: str) -> Manifest:
    manifest = lake.datasets.manifest(name)
    if manifest.digest != digest:
        lake.datasets.drop_shards(name, digest)
        raise other_content(name)
    return manifest


def other_content(name: str) -> Conflict:
    """The error for a name that another dataset has."""
    return Conflict(
        f"dataset {name!r} exists with other content", hint="datasets never change: use a new name", name=name
    )

"""Freeze what a policy keeps of some batches into a dataset: filter, then pack, then write, and the manifest last.

Frozen twice, a dataset is the same to the byte; interrupted, there is no manifest, and the next run writes the same
shards again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa
from pydantic import TypeAdapter

import k2d
from k2d.datasets.plan import (
    DIGEST_DIGITS,
    SALVAGED,
    Plan,
    Selection,
    content_digest,
    content_line,
    make_plan,
    selections,
)
from k2d.datasets.revoked import revoked
from k2d.datasets.rows import ROWS_PER_GROUP, SCHEMA, rows_of
from k2d.errors import BadRequest, Conflict
from k2d.filtering.policy import Policy, explain
from k2d.labeling.request import check_name
from k2d.schema import Batch, LongformOptions, Status
from k2d.store import Lake
from k2d.store.manifest import (
    FORMAT_VERSION,
    DatasetCounts,
    DatasetRevocations,
    DatasetSeconds,
    DatasetShard,
    DatasetTeacher,
    DatasetValidator,
    Manifest,
)
from k2d.store.parquet import describe, writer

# Large enough that a trainer reads sequentially, small enough to ship and retry one; what the hub advises for Parquet.
SHARD_BYTES = 256 * 1024**2
MAX_GAP_S = 2.0  # longer pauses end a row: a student need not learn to wait
FALLBACK = "perturbed:"  # how facts name a validator that is no second model


def freeze(
    lake: Lake,
    *,
    name: str,
    batches: Sequence[str],
    policy: Policy,
    without: Collection[str] = (),
    max_gap_s: float = MAX_GAP_S,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write the dataset `name` and return its manifest; nothing is written when it exists with the same content.

    `batches` are ids or names; a recording in several of them enters once, from the first. `without` are ids of chunks
    and segments (rows' chunk_ids and segment_ids) that are left out. `progress` is called with (recordings done,
    recordings in all).

    Raises:
        BadRequest: a malformed name or id, no batch, or nothing is kept.
        NotFound: no such batch.
        Conflict: the name is taken by other content, or a batch is unfinished and not cancelled.
        StoreError

    Example:
        manifest = freeze(lake, name="lectures-v1", batches=["lectures"], policy=DEFAULT)
        print(manifest.counts.rows, manifest.seconds.accepted)
    """
    check_name(name)
    chosen = list({batch.id: batch for batch in map(lake.batches.get, batches)}.values())
    if not chosen:
        raise BadRequest("a dataset needs at least one batch", hint="`k2d batches` lists them")
    gone = revoked(without)
    head = [FORMAT_VERSION, policy.model_dump(mode="json"), max_gap_s, shard_bytes, [batch.id for batch in chosen]]
    head.append(gone.hash if gone.ids else None)
    plan = make_plan(lake, chosen, policy, without=gone, head=head)
    if not plan.selected:
        raise BadRequest(f"policy {policy.name!r} keeps nothing of these batches", hint=_why(plan))
    if name in lake.datasets.names():
        return _same(lake, name, plan)

    rows = _Stream(lake, selections(lake, chosen, policy, without=gone), head=head, max_gap_s=max_gap_s)
    rows.progress = lambda done: progress(done, plan.selected) if progress is not None else None
    packer = _Packer(rows, shard_bytes)
    shards: list[DatasetShard] = []
    while not packer.done:
        size, sha256 = lake.datasets.put_shard(name, plan.digest, len(shards), packer.fill)
        shards.append(
            DatasetShard(number=len(shards), rows=packer.rows, bytes=size, sha256=sha256, seconds=packer.ms / 1000)
        )
    if rows.digest != plan.digest:
        lake.datasets.drop_shards(name, plan.digest)
        raise Conflict("the batches changed while the dataset was written", hint="freeze it again when nothing runs")
    manifest = Manifest(
        name=name,
        digest=plan.digest,
        format_version=FORMAT_VERSION,
        k2d_version=k2d.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=[batch.id for batch in chosen],
        policy=policy.model_dump(mode="json"),
        policy_hash=policy.key,
        policy_explanation=explain(policy),
        without=DatasetRevocations(ids=len(gone.ids), found=plan.sums.revoked, hash=gone.hash) if gone.ids else None,
        max_gap_s=max_gap_s,
        shard_bytes=shard_bytes,
        options=_options(chosen),
        teachers=_teachers(lake, plan),
        validators=_validators(plan),
        counts=_counts(plan, rows=sum(shard.rows for shard in shards)),
        seconds=_seconds(plan),
        shards=shards,
    )
    if not lake.datasets.put(manifest):
        return _same(lake, name, plan)  # someone else was faster
    return manifest


class _Stream:
    """All rows of the dataset in order, and the digest of what they were made from."""

    def __init__(self, lake: Lake, chosen: Iterable[Selection], *, head: Any, max_gap_s: float) -> None:
        self._lake = lake
        self._selections = chosen
        self._sha256 = content_digest(head)
        self._max_gap_s = max_gap_s
        self.progress: Callable[[int], None] = lambda _: None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for done, selected in enumerate(self._selections, start=1):
            self._sha256.update(content_line(selected))
            yield from rows_of(self._lake, selected, max_gap_s=self._max_gap_s)
            self.progress(done)

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()[:DIGEST_DIGITS]


class _Packer:
    """Fills one shard after another from a stream of rows."""

    def __init__(self, rows: Iterable[dict[str, Any]], shard_bytes: int) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)
        self._shard_bytes = shard_bytes
        self._schema = describe(SCHEMA, {"format_version": FORMAT_VERSION})
        self.rows = 0  # in the shard just filled
        self.ms = 0

    @property
    def done(self) -> bool:
        return self._next is None

    def fill(self, file: BinaryIO) -> None:
        """Write rows until the shard is large enough or none is left."""
        self.rows = self.ms = size = 0
        group: list[dict[str, Any]] = []
        with writer(file, self._schema) as out:
            while self._next is not None and size < self._shard_bytes:
                group.append(self._next)
                size += len(self._next["audio"]["bytes"])
                self.rows += 1
                self.ms += round(self._next["duration_s"] * 1000)
                self._next = next(self._rows, None)
                if len(group) == ROWS_PER_GROUP:
                    out.write_table(pa.Table.from_pylist(group, schema=self._schema))
                    group = []
            if group:
                out.write_table(pa.Table.from_pylist(group, schema=self._schema))


def _same(lake: Lake, name: str, plan: Plan) -> Manifest:
    """The manifest that is there, if it is of the same content."""
    manifest = lake.datasets.manifest(name)
    if manifest.digest != plan.digest:
        lake.datasets.drop_shards(name, plan.digest)
        raise Conflict(
            f"dataset {name!r} exists with other content", hint="datasets never change: take a new name", name=name
        )
    return manifest


def _why(plan: Plan) -> str:
    reasons = ", ".join(f"{reason} {ms / 1000:.1f} s" for reason, ms in plan.sums.reason_ms.most_common())
    return f"what they hold was rejected or set aside: {reasons or 'no speech at all'}; see `k2d chunks` or raise α"


def _options(batches: list[Batch]) -> list[dict[str, Any]]:
    different = dict.fromkeys(batch.options for batch in batches)
    return [TypeAdapter(LongformOptions).dump_python(options, mode="json") for options in different]


def _teachers(lake: Lake, plan: Plan) -> list[DatasetTeacher]:
    return [
        DatasetTeacher(fingerprint=fingerprint, model=lake.labels.meta(key).get("teacher") or {})
        for fingerprint, key in sorted(plan.sums.teachers.items())
    ]


def _validators(plan: Plan) -> list[DatasetValidator]:
    return [
        DatasetValidator(name=name, fingerprint=fingerprint, fallback=name.startswith(FALLBACK))
        for name, fingerprint in sorted(plan.sums.validators)
    ]


def _counts(plan: Plan, *, rows: int) -> DatasetCounts:
    recordings, chunks = plan.sums.recordings, plan.sums.chunks
    return DatasetCounts(
        recordings=recordings["labeled"] + recordings["quarantined"] + recordings["pending"],
        labeled=recordings["labeled"],
        quarantined=recordings["quarantined"],
        pending=recordings["pending"],
        duplicates=recordings["duplicates"],
        chunks=sum(chunks.values()),
        accepted=chunks[Status.ACCEPTED],
        salvaged=chunks[SALVAGED],
        rejected=chunks[Status.REJECTED],
        rows=rows,
    )


def _seconds(plan: Plan) -> DatasetSeconds:
    sums = plan.sums
    return DatasetSeconds(
        input=sums.input_ms / 1000,
        accepted=sums.status_ms[Status.ACCEPTED] / 1000,
        salvaged=sums.status_ms[SALVAGED] / 1000,
        rejected=sums.status_ms[Status.REJECTED] / 1000,
        quarantined=sums.quarantined_ms / 1000,
        silence=sums.silence_ms / 1000,
        by_reason={reason: ms / 1000 for reason, ms in sorted(sums.reason_ms.items())},
    )

"""Freezes what a policy keeps of some batches as a dataset: filter, pack to rows, write shards, write the manifest
last.

Freezing is deterministic: doing it again gives the same bytes. After an interruption there is no manifest, and the next
run writes the same shards again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import pyarrow as pa
from pydantic import TypeAdapter

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
from k2d.datasets.revoked import RevokedIds, revoked
from k2d.datasets.rows import ROWS_PER_GROUP, SCHEMA, rows_of
from k2d.datasets.scripts import described, in_script, script_rows, with_raw_text
from k2d.errors import BadRequest, Conflict
from k2d.filtering.policy import Policy, explain
from k2d.labeling.request import check_name
from k2d.schema import Batch, LabelScript, LongformOptions, Script, Status
from k2d.store import Lake
from k2d.store.manifest import (
    FORMAT_VERSION,
    DatasetCounts,
    DatasetRevocations,
    DatasetSeconds,
    DatasetShard,
    DatasetTeacher,
    DatasetValidator,
    DatasetVersions,
    Manifest,
)
from k2d.store.parquet import describe, writer
from k2d.text.script import script_of
from k2d.version import __version__

# Chosen: large enough to be read sequentially, small enough to be sent again; the Hugging Face hub advises this size.
SHARD_BYTES: Final = 256 * 1024**2
MAX_GAP_S: Final = 2.0  # chosen: a longer pause between two chunks ends a row
FALLBACK: Final = "perturbed:"  # prefix of validators that are not a second model


def freeze(
    lake: Lake,
    *,
    name: str,
    batches: Sequence[str],
    policy: Policy,
    without: Collection[str] = (),
    script: Script = Script.AS_HEARD,
    allow_mixed: bool = False,
    max_gap_s: float = MAX_GAP_S,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write the dataset `name` and return its manifest. If it exists with the same content, nothing is written.

        manifest = freeze(lake, name="lectures-v1", batches=["lectures"], policy=DEFAULT)
        print(manifest.counts.rows, manifest.seconds.accepted)

    Args:
        batches: ids or names. A recording that is in several of them is included once, from the first.
        without: ids of chunks and segments (as in the rows' chunk_ids and segment_ids) to leave out.
        script: the script of the labels. What the teacher wrote is then in the column `raw_text`.
        allow_mixed: whether the recordings may have been labeled or validated by different versions of k2d.
        max_gap_s: longest pause within a row.
        shard_bytes: approximate size of a shard's audio.
        progress: called with (recordings done, recordings in total).

    Raises:
        BadRequest: a malformed name or id, no batch, or nothing is kept.
        NotFound: no such batch.
        Conflict: the name is taken by other content, a batch is unfinished and not cancelled, or the recordings are of
            different versions.
        StoreError
    """
    check_name(name)
    chosen = list({batch.id: batch for batch in map(lake.batches.get, batches)}.values())
    if not chosen:
        raise BadRequest("a dataset needs at least one batch", hint="`k2d batches` lists them")
    revoked_ids = revoked(without)
    # everything that determines the content, besides the selected chunks and segments
    head = [FORMAT_VERSION, policy.model_dump(mode="json"), max_gap_s, shard_bytes, [batch.id for batch in chosen]]
    head.append(revoked_ids.hash if revoked_ids.ids else None)
    conversion = described(script)
    if conversion is not None:
        head.append(conversion.model_dump(mode="json"))
    plan = make_plan(lake, chosen, policy, without=revoked_ids, head=head)
    if not plan.selected:
        raise BadRequest(f"policy {policy.name!r} keeps nothing of these batches", hint=_why(plan))
    if name in lake.datasets.names():
        return _same(lake, name, plan)
    if len(plan.sums.versions) > 1 and not allow_mixed:
        raise _mixed(plan)

    rows = _RowStream(lake, selections(lake, chosen, policy, without=revoked_ids), head=head, max_gap_s=max_gap_s)
    rows.script = script
    rows.progress = lambda done: progress(done, plan.selected) if progress is not None else None
    packer = _ShardPacker(rows, shard_bytes, schema=with_raw_text(SCHEMA) if conversion is not None else SCHEMA)
    shards: list[DatasetShard] = []
    while not packer.done:
        size, sha256 = lake.datasets.put_shard(name, plan.digest, len(shards), packer.fill)
        shards.append(
            DatasetShard(number=len(shards), rows=packer.rows, bytes=size, sha256=sha256, seconds=packer.ms / 1000)
        )
    if rows.digest != plan.digest:
        lake.datasets.drop_shards(name, plan.digest)
        raise Conflict(
            "the batches changed while the dataset was written", hint="freeze it again when no batch is running"
        )
    manifest = Manifest(
        name=name,
        digest=plan.digest,
        format_version=FORMAT_VERSION,
        k2d_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=[batch.id for batch in chosen],
        policy=policy.model_dump(mode="json"),
        policy_hash=policy.key,
        policy_explanation=explain(policy),
        without=_revocations(revoked_ids, plan),
        script=conversion,
        scripts_as_heard=script_rows(rows.scripts),
        origins={origin: ms / 1000 for origin, ms in sorted(rows.origins.items())},
        versions=[
            DatasetVersions(**asdict(versions), recordings=recordings)
            for versions, recordings in sorted(plan.sums.versions.items())
        ],
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
        return _same(lake, name, plan)  # another process was faster
    return manifest


class _RowStream:
    """Iterates over all rows of the dataset; computes the digest of the selections, and counts scripts and origins."""

    def __init__(self, lake: Lake, chosen: Iterable[Selection], *, head: Any, max_gap_s: float) -> None:
        self._lake = lake
        self._selections = chosen
        self._sha256 = content_digest(head)
        self._max_gap_s = max_gap_s
        self.script = Script.AS_HEARD
        self.scripts: Counter[LabelScript] = Counter()  # of the rows so far, as heard
        self.origins: Counter[str] = Counter()  # milliseconds of the segments so far
        self.progress: Callable[[int], None] = lambda _: None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for done, selected in enumerate(self._selections, start=1):
            self._sha256.update(content_line(selected))
            for row in rows_of(self._lake, selected, max_gap_s=self._max_gap_s, origins=self.origins):
                self.scripts[script_of(row["text"])] += 1
                yield row if self.script is Script.AS_HEARD else in_script(row, self.script)
            self.progress(done)

    @property
    def digest(self) -> str:
        """The digest of the selections so far; after the last row, the dataset's."""
        return self._sha256.hexdigest()[:DIGEST_DIGITS]


class _ShardPacker:
    """Writes a stream of rows to one shard after another."""

    def __init__(self, rows: Iterable[dict[str, Any]], shard_bytes: int, *, schema: pa.Schema) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)
        self._shard_bytes = shard_bytes
        self._schema = describe(schema, {"format_version": FORMAT_VERSION})
        self.rows = 0  # of the shard written last
        self.ms = 0

    @property
    def done(self) -> bool:
        """Whether no row is left."""
        return self._next is None

    def fill(self, file: BinaryIO) -> None:
        """Write rows to a file until the shard is large enough or no row is left."""
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
    """Return the existing manifest, if its content is the same.

    Raises:
        Conflict: the dataset exists with other content.
    """
    manifest = lake.datasets.manifest(name)
    if manifest.digest != plan.digest:
        lake.datasets.drop_shards(name, plan.digest)
        raise Conflict(
            f"dataset {name!r} exists with other content", hint="datasets never change: use a new name", name=name
        )
    return manifest


def _mixed(plan: Plan) -> Conflict:
    kinds = "; ".join(f"{count} {versions}" for versions, count in sorted(plan.sums.versions.items()))
    return Conflict(
        f"the recordings are of different versions of k2d: {kinds}",
        hint="allow it (`--allow-mixed`, in the API `allow_mixed`), or `k2d forget` the older ones and `k2d resume`",
    )


def _why(plan: Plan) -> str:
    reasons = ", ".join(f"{reason} {ms / 1000:.1f} s" for reason, ms in plan.sums.reason_ms.most_common())
    return (
        f"all of it was rejected or quarantined: {reasons or 'no speech at all'}; see `k2d chunks`, or use a larger α"
    )


def _revocations(revoked_ids: RevokedIds, plan: Plan) -> DatasetRevocations | None:
    if not revoked_ids.ids:
        return None
    return DatasetRevocations(ids=len(revoked_ids.ids), found=plan.sums.revoked, hash=revoked_ids.hash)


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

"""Freezes what a policy keeps of some batches as a dataset: filter, pack to rows, write shards, write the manifest
last.

A freeze is a plan, a map over slices of the parts of the batches (`k2d.datasets.slices`), and a manifest. Here the map
runs in threads; workers run it as jobs. It is deterministic: the same plan gives the same bytes, whoever writes which
slice. After an interruption there is no manifest, and the next run writes the slices that are missing.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

from pydantic import TypeAdapter

from k2d.datasets.plan import Plan, digest_of_version_2, make_plan, refuse_gone
from k2d.datasets.reviewed import reviewed_texts
from k2d.datasets.revoked import RevokedIds, revoked
from k2d.datasets.rows import labels_gone
from k2d.datasets.scripts import described, script_rows
from k2d.datasets.selection import SALVAGED
from k2d.datasets.slices import FreezePlan, SliceWriter, finish, other_content
from k2d.errors import BadRequest, Conflict, NotFound
from k2d.filtering.policy import Policy, explain
from k2d.labeling.request import check_name
from k2d.schema import Batch, LongformOptions, Script, Status
from k2d.store import Lake
from k2d.store.manifest import (
    FORMAT_VERSION,
    DatasetCounts,
    DatasetRevocations,
    DatasetScript,
    DatasetSeconds,
    DatasetTeacher,
    DatasetValidator,
    DatasetVersions,
    Manifest,
)
from k2d.version import __version__

# Chosen: large enough to be read sequentially, small enough to be sent again; the Hugging Face hub advises this size.
SHARD_BYTES: Final = 256 * 1024**2
MAX_GAP_S: Final = 2.0  # chosen: a longer pause between two chunks ends a row
FALLBACK: Final = "perturbed:"  # prefix of validators that are not a second model
# Shards of a slice, which is written by one process and again if that is killed. Chosen: a gigabyte, of which the last
# shard is smaller than the others.
SLICE_SHARDS: Final = 4
FLAC_BYTES_PER_S: Final = 16_000  # of speech, about: only how much a slice has depends on it
MOST_THREADS: Final = 4  # that write slices; chosen: each holds about 100 MB


def freeze(
    lake: Lake,
    *,
    name: str,
    batches: Sequence[str],
    policy: Policy,
    without: Collection[str] = (),
    script: Script = Script.AS_HEARD,
    gold: bool = False,
    allow_mixed: bool = False,
    max_gap_s: float = MAX_GAP_S,
    shard_bytes: int = SHARD_BYTES,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write the dataset `name` and return its manifest. If it exists with the same content, nothing is written.

        manifest = freeze(lake, name="lectures-v1", batches=["lectures"], policy=DEFAULT)
        print(manifest.counts.rows, manifest.seconds.accepted)

    Args:
        batches, policy, without, script, gold, allow_mixed, max_gap_s, shard_bytes: as for `plan_freeze`.
        threads: slices that are written at the same time; None: one for each core, at most MOST_THREADS.
        progress: called with (recordings done, recordings in total).

    Raises:
        BadRequest, NotFound, Conflict, StoreError: as `plan_freeze`.
        Conflict: a batch changed meanwhile.
    """
    plan = plan_freeze(
        lake,
        name=name,
        batches=batches,
        policy=policy,
        without=without,
        script=script,
        gold=gold,
        allow_mixed=allow_mixed,
        max_gap_s=max_gap_s,
        shard_bytes=shard_bytes,
    )
    if isinstance(plan, Manifest):
        return plan
    done, lock = 0, Lock()

    def count(recordings: int) -> None:
        nonlocal done
        with lock:
            done += recordings
            if progress is not None:
                progress(done, plan.selected)

    writer = SliceWriter(lake, plan, progress=count)
    with ThreadPoolExecutor(threads or min(MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="freeze") as pool:
        try:
            for _ in pool.map(writer.write, plan.slices()):
                pass
        except BaseException:
            writer.stopping = True
            raise
    manifest = finish(lake, name, plan.digest)
    if manifest is None:
        raise Conflict(
            f"what was written of dataset {name!r} was removed meanwhile", hint="freeze it again; nothing else is lost"
        )
    return manifest


def plan_freeze(
    lake: Lake,
    *,
    name: str,
    batches: Sequence[str],
    policy: Policy,
    without: Collection[str] = (),
    script: Script = Script.AS_HEARD,
    gold: bool = False,
    allow_mixed: bool = False,
    max_gap_s: float = MAX_GAP_S,
    shard_bytes: int = SHARD_BYTES,
) -> FreezePlan | Manifest:
    """Plan a dataset and store the plan; or return the manifest of `name` if it exists with the same content.

    Args:
        batches: ids or names. A recording that is in several of them is included once, from the first.
        without: ids of chunks and segments (as in the rows' chunk_ids and segment_ids) to leave out.
        script: the script of the labels. What the teacher wrote is then in the column `raw_text`.
        gold: segments with a reviewed text enter with that text, whatever the policy says of them, and other reviewed
            segments are left out. What the models wrote is in `raw_text`, and `origins` says which texts are reviewed.
        allow_mixed: whether the recordings may have been labeled or validated by different versions of k2d.
        max_gap_s: longest pause within a row.
        shard_bytes: approximate size of a shard's audio.

    Raises:
        BadRequest: a malformed name or id, no batch, nothing is kept, or with `gold` nothing is reviewed.
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
    head = [policy.model_dump(mode="json"), max_gap_s, shard_bytes, [batch.id for batch in chosen]]
    head.append(revoked_ids.hash if revoked_ids.ids else None)
    conversion = described(script)
    if conversion is not None:
        head.append(conversion.model_dump(mode="json"))
    reviewed = reviewed_texts(lake, chosen) if gold else None
    if reviewed is not None:
        head.append(["reviews", reviewed.hash])
    slice_ms = max(1, 1000 * SLICE_SHARDS * shard_bytes // FLAC_BYTES_PER_S)
    plan = make_plan(
        lake,
        chosen,
        policy,
        without=revoked_ids,
        head=[FORMAT_VERSION, *head, slice_ms],
        slice_ms=slice_ms,
        reviewed=reviewed,
    )
    if not plan.selected:
        raise BadRequest(f"policy {policy.name!r} keeps nothing of these batches", hint=_why(plan))
    if name in lake.datasets.names():
        manifest = lake.datasets.manifest(name)
        digest = plan.digest
        if manifest.format_version < FORMAT_VERSION:
            digest = digest_of_version_2(
                lake, chosen, policy, without=revoked_ids, head=[manifest.format_version, *head]
            )
        return _same(lake, manifest, digest)
    if len(plan.sums.versions) > 1 and not allow_mixed:
        refuse_gone(lake, chosen)
        raise _mixed(plan)
    freeze_plan = FreezePlan(
        manifest=_manifest(
            lake,
            name,
            plan,
            chosen,
            policy=policy,
            revoked_ids=revoked_ids,
            conversion=conversion,
            max_gap_s=max_gap_s,
            shard_bytes=shard_bytes,
        ).model_copy(update={"reviews": reviewed.described() if reviewed is not None else None}),
        parts=list(plan.parts),
        without=list(revoked_ids.ids),
        reviewed={key: list(own) for key, own in reviewed.segments.items()} if reviewed is not None else None,
    )
    freeze_plan.store(lake)
    return freeze_plan


def _manifest(
    lake: Lake,
    name: str,
    plan: Plan,
    batches: list[Batch],
    *,
    policy: Policy,
    revoked_ids: RevokedIds,
    conversion: DatasetScript | None,
    max_gap_s: float,
    shard_bytes: int,
) -> Manifest:
    """The manifest, without what is known when the slices are written: shards, rows, scripts and origins."""
    return Manifest(
        name=name,
        digest=plan.digest,
        format_version=FORMAT_VERSION,
        k2d_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=[batch.id for batch in batches],
        policy=policy.model_dump(mode="json"),
        policy_hash=policy.key,
        policy_explanation=explain(policy),
        without=_revocations(revoked_ids, plan),
        script=conversion,
        scripts_as_heard=script_rows(Counter()),
        versions=[
            DatasetVersions(**asdict(versions), recordings=recordings)
            for versions, recordings in sorted(plan.sums.versions.items())
        ],
        max_gap_s=max_gap_s,
        shard_bytes=shard_bytes,
        options=_options(batches),
        teachers=_teachers(lake, plan),
        validators=_validators(plan),
        counts=_counts(plan),
        seconds=_seconds(plan),
        shards=[],
    )


def _same(lake: Lake, manifest: Manifest, digest: str) -> Manifest:
    """Return the existing manifest, if its content is the same.

    Raises:
        Conflict: the dataset exists with other content.
    """
    if manifest.digest != digest:
        raise other_content(manifest.name)
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
    teachers = []
    for fingerprint, (label_key, source) in sorted(plan.sums.teachers.items()):
        try:
            model = lake.labels.meta(label_key).get("teacher") or {}
        except NotFound as error:
            raise labels_gone(source, label_key) from error
        teachers.append(DatasetTeacher(fingerprint=fingerprint, model=model))
    return teachers


def _validators(plan: Plan) -> list[DatasetValidator]:
    return [
        DatasetValidator(name=name, fingerprint=fingerprint, fallback=name.startswith(FALLBACK))
        for name, fingerprint in sorted(plan.sums.validators)
    ]


def _counts(plan: Plan) -> DatasetCounts:
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
        rows=0,
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

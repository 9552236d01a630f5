"""Deletes a batch, and frees what no other batch refers to: labels, hypotheses, facts, uploads.

Datasets stay: their shards have the audio. So do examinations, which are small and spare the next batch a decode, and
reviews, which are a person's work: they count again once the same labels are made again. They go only where that is
asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from k2d.corpus.calibration.draws import draws_of_batches
from k2d.corpus.index import results
from k2d.documents import Jobs
from k2d.errors import Conflict, NotFound
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.base import key_path

STOPPED_HINT: Final = "wait until it has stopped"


class BatchUnfinished(Conflict):
    """Recordings of a batch are missing, and it is not cancelled."""

    code = "batch_unfinished"


class BatchAtWork(Conflict):
    """A process is at work on a batch, or may be."""

    code = "batch_at_work"


@dataclass(frozen=True, slots=True)
class Deletion:
    """What goes with a batch: paths in the lake by folder."""

    batch: Batch
    paths: dict[str, list[str]]
    bytes: int
    reviews: int = 0  # of the labels that go; those that stay without a label
    draws: int = 0  # for review, from this batch: over it they can be calibrated no more

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        files = {folder: len(paths) for folder, paths in self.paths.items()}
        return {
            "batch": self.batch.id,
            "name": self.batch.name,
            "files": files,
            "reviews_kept": self.reviews,
            "draws": self.draws,
            "bytes": self.bytes,
        }


def plan_deletion(lake: Lake, batch: Batch, *, reviews: bool = False) -> Deletion:
    """Find what only this batch refers to; `reviews`: also the reviews of labels that go. Nothing is removed.

        plan_deletion(lake, lake.batches.get("lectures")).bytes

    Raises:
        BatchUnfinished
        BatchAtWork
        StoreError
    """
    own = _References.of(lake, [batch])
    if own.results < len(batch.sources) and not lake.batches.is_cancelled(batch.id):
        raise BatchUnfinished(
            f"batch {batch.name!r} is unfinished: a worker may be at it", hint="`k2d cancel` first", batch=batch.id
        )
    if at_work := lake.heartbeats.of(batch.id):
        first = at_work[0]
        who = {"host": first.host, "pid": first.pid, "command": first.command, "since": first.since}
        raise BatchAtWork(f"batch {batch.name!r} is being worked on: {first}", hint=STOPPED_HINT, batch=batch.id, **who)
    others = _References.of(lake, (other for other in lake.batches.all() if other.id != batch.id))
    for draft in lake.drafts.unfinished():  # batches that are being filled
        others.uploads |= lake.uploads.paths_of(lake.drafts.sources(draft.id))
    labels, facts = sorted(own.labels - others.labels), sorted(own.facts - others.facts)
    reviewed = lake.reviews.paths_of(labels)
    kept = {key for keys in lake.files.many(lambda key: _hypotheses(lake, key), sorted(others.facts)) for key in keys}
    made = {key for keys in lake.files.many(lambda key: _hypotheses(lake, key), facts) for key in keys}
    paths = {
        "labels": [key_path("labels", key, ".parquet") for key in labels],
        "facts": [key_path("facts", key, ".parquet") for key in facts],
        "hypotheses": [key_path("hypotheses", key, ".parquet") for key in sorted(made - kept)],
        "uploads": sorted(own.uploads - others.uploads),
    }
    if reviews:
        paths["reviews"] = reviewed
    found = {folder: _sizes(lake, wanted) for folder, wanted in paths.items()}
    size = sum(sum(sizes.values()) for sizes in found.values())
    size += sum(size for _, size in lake.files.sizes(f"batches/{batch.id}"))
    return Deletion(
        batch,
        {folder: sorted(sizes) for folder, sizes in found.items()},
        size,
        reviews=0 if reviews else len(reviewed),
        draws=len(draws_of_batches(lake, [batch.id])),
    )


def refuse_while_at_work(batch: Batch, jobs: Jobs | None) -> None:
    """Raise an error if a worker may be at an unfinished batch. `jobs`: the batch's; None if Redis does not answer.

    Raises:
        BatchAtWork
    """
    if jobs is None or jobs.jobs_running:
        hint = STOPPED_HINT if jobs else "Redis does not answer: try again when it does"
        raise BatchAtWork(f"a worker may be at batch {batch.name!r}", hint=hint, batch=batch.id)


def delete_batch(lake: Lake, deletion: Deletion) -> None:
    """Remove what was planned. After a kill, plan it again and go on.

    Raises:
        StoreError
    """
    lake.batches.cancel(deletion.batch.id)  # so that no resume labels again what is gone already
    for paths in deletion.paths.values():
        for _ in lake.files.many(lake.files.remove, paths):
            pass
    lake.batches.delete(deletion.batch)


@dataclass(slots=True)
class _References:
    """What some batches refer to: keys of labels and facts, paths of uploads."""

    labels: set[str]
    facts: set[str]
    uploads: set[str]
    results: int = 0

    @classmethod
    def of(cls, lake: Lake, batches: Iterable[Batch]) -> "_References":
        references = cls(set(), set(), set())
        for batch in batches:
            references.uploads |= lake.uploads.paths_of(batch.sources)
            for result in results(lake, batch):
                references.results += 1
                references.labels |= {result.label_key} if result.label_key else set()
                references.facts |= {result.facts_key} if result.facts_key else set()
        return references


def _hypotheses(lake: Lake, facts_key: str) -> list[str]:
    """The keys of the hypotheses that facts were made from; none of facts that are gone."""
    try:
        return [str(key) for key in lake.facts.meta(facts_key).get("hypotheses") or ()]
    except NotFound:
        return []


def _sizes(lake: Lake, paths: list[str]) -> dict[str, int]:
    """The sizes of those files that are there."""
    sizes = lake.files.many(lambda path: (path, lake.files.size(path)), paths)
    return {path: size for path, size in sizes if size is not None}

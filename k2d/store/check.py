"""Checks a whole store: finds damaged and dangling files, leftovers and digests that differ, and mends what it can.

    report = check(lake)
    report.counts(), report.is_clean
    check(lake, repair=True)

Nothing that cannot be made again is deleted: it is moved to `damaged/` in the same store, under its own path. What k2d
makes again by itself (parts of the index, temporary files, marks) is removed.
"""

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

from k2d.errors import DamagedFile, K2DError, NotFound
from k2d.schema import Batch, RecordingResult
from k2d.store import contents
from k2d.store.batches import GONE_HINT, DamagedBatch, DamagedResult
from k2d.store.guard import why_damaged
from k2d.store.lake import Lake
from k2d.wording import counted

DAMAGED_FOLDER: Final = "damaged"
LEFTOVER_AGE_S: Final = 24 * 3600.0  # younger files may belong to work that goes on
_RESUME: Final = "`k2d resume` makes it again"


@dataclass(frozen=True, slots=True)
class StoreFault:
    """Something that is wrong with one file of the store."""

    kind: str  # a KINDS
    path: str  # relative to the store
    problem: str
    mended: bool = False
    can_mend: bool = False  # by a check with `repair`
    to_do: str | None = None  # what a person can do; after the mending, where it can be mended


@dataclass(slots=True)
class StoreReport:
    """What a check found."""

    set_aside: int = 0  # files that were moved to DAMAGED_FOLDER
    findings: list[StoreFault] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)  # files, by folder

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that is not mended."""
        return all(finding.mended for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Numbers of findings by kind."""
        return dict(sorted(Counter(finding.kind for finding in self.findings).items()))


def check(
    lake: Lake, *, repair: bool = False, read_contents: bool = True, leftover_age_s: float = LEFTOVER_AGE_S
) -> StoreReport:
    """Check every file of the store; with `repair`, mend what can be mended.

        check(Lake("data"), repair=True).is_clean

    Workers and servers may go on meanwhile.

    Args:
        read_contents: read and hash all of every shard and upload; otherwise documents and the ends of shards only.
        leftover_age_s: younger temporary files and uploads without a batch are not taken for leftovers.

    Raises:
        StoreError: the store does not answer, or cannot be written.
    """
    checker = _Checker(lake, repair=repair, read_contents=read_contents, leftover_age_s=leftover_age_s)
    for look in (
        checker.temporary_files,
        checker.names,
        checker.marks,
        checker.shards,  # before the results, which refer to them
        checker.journals,
        checker.batches,
        checker.examinations,
        checker.drafts,
        checker.uploads,
        checker.probes,
        checker.datasets,
        checker.keys,
        checker.properties,
    ):
        look()
    return checker.report


class _Checker:
    def __init__(self, lake: Lake, *, repair: bool, read_contents: bool, leftover_age_s: float) -> None:
        self.lake, self.files, self.repair = lake, lake.files, repair
        self.read_contents, self.leftover_age_s = read_contents, leftover_age_s
        self.report = StoreReport()

    # ---- what is done about a finding ------------------------------------------------------------------------------

    def found(
        self,
        kind: str,
        path: str,
        problem: str,
        mend: Callable[[], object] | None = None,
        *,
        to_do: str | None = None,
    ) -> None:
        """Report something; with `repair`, mend it."""
        if mend is not None and self.repair:
            mend()
        self.report.findings.append(
            StoreFault(kind, path, problem, self.repair and mend is not None, mend is not None, to_do)
        )

    def set_aside(self, path: str) -> None:
        """Move a file to DAMAGED_FOLDER, where an earlier one of its path is kept too."""
        target = f"{DAMAGED_FOLDER}/{path}"
        if self.files.exists(target):
            target += f"~{uuid.uuid4().hex[:8]}"
        self.files.move(path, target)
        self.report.set_aside += 1

    def judged(
        self, folder: str, suffix: str, problem_of: Callable[[str], str | None]
    ) -> Iterator[tuple[str, str | None]]:
        """The files of a folder that have this suffix, each with what is wrong with it."""
        paths = [path for path in self.files.listing(folder) if path.endswith(suffix)]
        for path, problem in self.files.many(lambda path: (path, problem_of(path)), paths):
            self.report.checked[folder] += 1
            yield path, problem
        for path in self.files.folders_named(folder, suffix):
            yield path, "it is a folder"

    # ---- one kind each ---------------------------------------------------------------------------------------------

    def temporary_files(self) -> None:
        for path in [*self.files.unfinished(self.leftover_age_s), *self._old(self.files.listing("checks"))]:
            self.found("temporary file", path, "its writer ended without removing it", partial(self._drop, path))

    def names(self) -> None:
        for path, problem in self.judged("names", ".json", self._name_problem):
            if problem is not None:
                self.found("name", path, problem, partial(self.set_aside, path))
        for batch in self.entries:
            if isinstance(batch, Batch) and batch.name != batch.id and self.lake.batches.owner(batch.name) is None:
                path = self.lake.batches.name_path(batch.name)
                if path not in (finding.path for finding in self.report.findings):
                    problem = f"batch {batch.id} is not found by its name {batch.name!r}"
                    self.found("name", path, problem, partial(self.lake.batches.put, batch))
                elif self.repair:
                    self.lake.batches.put(batch)

    def marks(self) -> None:
        """Marks of `recent/`: one for each batch."""
        known, marked = set(self.files.folders("batches")), set(self.lake.batches.ids())
        for path in self.files.listing("recent"):
            if path.rpartition("~")[2] not in known:
                self.found("mark", path, "there is no such batch", partial(self.files.remove, path))
        for batch_id in sorted(known - marked):
            with contextlib.suppress(NotFound, DamagedFile):
                batch = self.lake.batches.get(batch_id)
                problem = "the batch is in no list: its mark in recent/ is gone"
                self.found("mark", f"batches/{batch_id}", problem, partial(self.lake.batches.put, batch))

    def shards(self) -> None:
        for part in ("labels", "hypotheses", "facts"):
            for folder in self.lake.labels.folders_of(part):
                problem_of = contents.parquet_problem(self.files, read_all=self.read_contents)
                if part == "facts":  # after the hypotheses, which they refer to
                    problem_of = contents.facts_problem(self.lake, read_all=self.read_contents)
                for path, problem in self.judged(folder, ".parquet", problem_of):
                    if problem is not None:
                        self.found("shard", path, problem, partial(self.set_aside, path), to_do=_RESUME)

    def journals(self) -> None:
        """Answers for recordings that are not finished: a part that is lost is asked for again."""
        problem_of = contents.json_problem(self.files, self.lake.journals.read_part)
        for path, problem in self.judged("journals", ".json.gz", problem_of):
            if problem is not None:
                self.found("journal", path, problem, partial(self._drop, path))

    def batches(self) -> None:
        for entry in self.entries:
            folder = f"batches/{entry.id}"
            for path in self.files.folders_named(folder, ".json"):
                to_do = GONE_HINT if path.endswith("/batch.json") else _RESUME
                self.found("batch", path, "it is a folder", partial(self.set_aside, path), to_do=to_do)
            if isinstance(entry, DamagedBatch):
                path = f"{folder}/batch.json"
                problem = why_damaged(entry.error) if self.files.exists(path) else "it is gone"
                self.found("batch", path, problem, to_do=GONE_HINT)
            self._results(entry)
            self._index(entry.id)

    def examinations(self) -> None:
        for folder in self.lake.labels.folders_of("examinations"):
            problem_of = contents.json_problem(self.files, self.lake.examinations.read)
            for path, problem in self.judged(folder, ".json", problem_of):
                if problem is not None:
                    self.found("examination", path, problem, partial(self.set_aside, path))

    def drafts(self) -> None:
        """Batches that are being filled, whose sources cannot be read any more."""
        for draft_id in self.files.folders("drafts"):
            folder = f"drafts/{draft_id}"
            self.report.checked["drafts"] += 1
            try:
                self._draft_uploads(draft_id)
            except DamagedFile as error:
                to_do = "send or name its sources again"
                self.found("draft", folder, why_damaged(error), partial(self._set_aside_all, folder), to_do=to_do)

    def uploads(self) -> None:
        problem_of = contents.digest_problem(self.files, whole=self.read_contents)
        referred = self._referred_uploads()
        for path, problem in self.judged("uploads", "", problem_of):
            if problem is not None:
                self.found("upload", path, problem, partial(self.set_aside, path), to_do="send the file again")
            elif referred is not None and path not in referred and self._old([path]):
                self.found("leftover upload", path, "no batch refers to it", partial(self.set_aside, path))

    def probes(self) -> None:
        for folder in self.lake.probes.folders_of("probes"):
            problem_of = contents.digest_problem(self.files, whole=self.read_contents)
            for path, problem in self.judged(folder, ".safetensors", problem_of):
                if problem is not None:
                    self.found("probe", path, problem, partial(self.set_aside, path), to_do="train it again")

    def datasets(self) -> None:
        for name in self.files.folders("datasets"):
            folder = f"datasets/{name}"
            manifest = f"{folder}/manifest.json"
            if not self.files.exists(manifest):
                if paths := self._all_old(folder):
                    problem = f"an interrupted freeze left {counted(len(paths), 'shard')} and no manifest"
                    self.found("interrupted freeze", folder, problem, partial(self.files.remove_folder, folder))
                continue
            to_do = f"`k2d datasets delete {name}`, then `k2d freeze` or pull it again"
            self.report.checked["datasets"] += 1
            for path, problem in contents.dataset_problems(self.lake.datasets, name, hashes=self.read_contents):
                self.found("dataset", path, problem, to_do=to_do)

    def keys(self) -> None:
        for key in self.lake.access.all():
            self.report.checked["access"] += 1
            if key.error is not None:
                to_do = f"`k2d keys revoke {key.id}`, then make another"
                self.found("key", f"access/keys/{key.id}.json", key.error, to_do=to_do)
        problem_of = contents.json_problem(self.files, self.lake.access.read_use)
        for path, problem in self.judged("access/used", ".json", problem_of):
            if problem is not None:
                self.found("key", path, problem, partial(self._drop, path))

    def properties(self) -> None:
        problem = self.lake.mark_problem()
        if problem is not None:
            self.found("mark", "store.json", problem, partial(self._drop, "store.json"))

    # ---- helpers ---------------------------------------------------------------------------------------------------

    @cached_property
    def entries(self) -> list[Batch | DamagedBatch]:
        ids = dict.fromkeys([*self.lake.batches.ids(), *self.files.folders("batches")])
        entries = (self.lake.batches.entry(batch_id) for batch_id in ids)
        return [entry for entry in entries if entry is not None]

    def _name_problem(self, path: str) -> str | None:
        try:
            batch_id = self.lake.batches.named_by(path)
        except DamagedFile as error:
            return why_damaged(error)
        except K2DError as error:
            return error.message
        if self.lake.batches.entry(batch_id) is None:
            return f"it leads to batch {batch_id[:100]!r}, which is not there"
        return None

    def _results(self, batch: Batch | DamagedBatch) -> None:
        """Results that cannot be read, and those whose labels or facts are gone: the recording is missing then."""

        def problem_of(reading: RecordingResult | DamagedResult) -> tuple[int, str | None]:
            if isinstance(reading, DamagedResult):
                return reading.position, why_damaged(reading.error)
            return reading.position, self._dangling(reading)

        for position, problem in self.files.many(problem_of, self.lake.batches.readings(batch.id)):
            self.report.checked["results"] += 1
            if problem is not None:
                path = self.lake.batches.result_path(batch.id, position)
                self.found("result", path, problem, partial(self._redo, batch.id, position), to_do=_RESUME)

    def _dangling(self, result: RecordingResult) -> str | None:
        if result.label_key is not None and not self._has(self.lake.labels.has, result.label_key):
            return "the labels it names are gone"
        if result.facts_key is not None and not self._has(self.lake.facts.has, result.facts_key):
            return "the facts it names are gone"
        return None

    def _has(self, has: Callable[[str], bool], key: str) -> bool:
        try:
            return has(key)
        except NotFound:  # not a key
            return False

    def _redo(self, batch_id: str, position: int) -> None:
        path = self.lake.batches.result_path(batch_id, position)
        self.files.copy(path, f"{DAMAGED_FOLDER}/{path}")
        self.report.set_aside += 1
        self.lake.batches.delete_result(batch_id, position)

    def _index(self, batch_id: str) -> None:
        """Parts of the index are a cache: they are made again."""
        folder = f"batches/{batch_id}/index"
        readable = contents.json_problem(self.files, lambda path: json.loads(self.files.read(path)))
        for path, problem in self.judged(folder, ".json", readable):
            if problem is not None:
                self.found("index", path, problem, partial(self._drop, path))
        for suffix, kind in ((".parquet", contents.parquet_problem), (".arrow", contents.arrow_problem)):
            for path, problem in self.judged(folder, suffix, kind(self.files, read_all=self.read_contents)):
                if problem is not None:
                    self.found("index", path, problem, partial(self._drop, path))

    def _referred_uploads(self) -> set[str] | None:
        """The paths of uploads that batches refer to; None if some batch cannot be read, so that nobody knows."""
        paths: set[str] = set()
        for entry in self.entries:
            if isinstance(entry, DamagedBatch):
                return None
            paths |= self.lake.uploads.paths_of(entry.sources)
        for draft_id in self.files.folders("drafts"):
            try:
                paths |= self._draft_uploads(draft_id)
            except DamagedFile:
                return None
        return paths

    def _draft_uploads(self, draft_id: str) -> set[str]:
        drafts = self.lake.drafts
        with contextlib.suppress(NotFound):  # it became a batch meanwhile, or is being removed
            drafts.get(draft_id)
            return self.lake.uploads.paths_of([*drafts.sources(draft_id), *drafts.described(draft_id)])
        return set()

    def _set_aside_all(self, folder: str) -> None:
        for path in self.files.listing(folder):
            self.set_aside(path)

    def _drop(self, path: str) -> None:
        """Remove a file that is made again, or a folder in its place."""
        try:
            self.files.remove(path)
        except K2DError:
            self.set_aside(path)

    def _old(self, paths: list[str]) -> list[str]:
        return [path for path in paths if self.files.age_s(path) >= self.leftover_age_s]

    def _all_old(self, folder: str) -> list[str]:
        """The files under a folder, if all of them are old."""
        paths = self.files.listing(folder)
        return paths if len(self._old(paths)) == len(paths) else []

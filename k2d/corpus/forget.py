"""Forgets a recording: removes what was computed of it, so that it is examined and labeled again."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from k2d.documents import Forgotten
from k2d.errors import Conflict, DamagedFile, NotFound
from k2d.keys import RECORDING_ID, place_of
from k2d.store import Lake
from k2d.store.guard import decoding, guard

SUFFIX: Final = ".parquet"
Meta = Callable[[str], dict[str, Any]]  # the metadata of the shard with a key


def forget(lake: Lake, recording: str, *, keep_datasets: bool = False, dry_run: bool = False) -> Forgotten:
    """Remove examinations, labels, hypotheses, facts, results, journals and reviews of a recording; says how many.

        forget(lake, "rec_0f3c9a1be2d47c5512345678").labels  # 1

    Uploads stay: they are what someone sent. Batches with the recording have it missing then, and `k2d resume` labels
    it again. Datasets stay as they are. Reads the footer of every shard, so it takes minutes in a large store.

    Args:
        recording: its id, or the id of one of its chunks or segments.
        keep_datasets: go on where datasets have the recording.
        dry_run: only say how many would be removed.

    Raises:
        NotFound: not such an id, or nothing is known of it.
        Conflict: datasets have it, or may have it.
        StoreError
    """
    recording_id = _id_of(lake, recording)
    datasets, damaged_datasets = _datasets_with(lake, recording_id)
    if (datasets or damaged_datasets) and not keep_datasets:
        reasons = [f"is in {_names(datasets)}"] if datasets else []
        reasons += [f"may be in {_names(damaged_datasets)}, which cannot be read"] if damaged_datasets else []
        raise Conflict(
            f"{recording_id} {', and '.join(reasons)}",
            hint="freeze them again without it and delete them, or forget it with --keep-datasets",
            datasets=datasets + damaged_datasets,
        )
    unreadable: list[str] = []
    labels = _select(lake, "labels", partial(_has_meta, lake.labels.meta, recording_id, frozenset(), unreadable))
    label_keys = frozenset(map(_key, labels))

    def has(meta: Meta) -> Callable[[str], bool]:
        return partial(_has_meta, meta, recording_id, label_keys, unreadable)

    results = _results_of(lake, recording_id)
    facts = _select(lake, "facts", has(lake.facts.meta))
    hypotheses = _select(lake, "hypotheses", has(lake.hypotheses.meta))
    examinations = _select(lake, "examinations", partial(_is_examined, lake, recording_id))
    journals = lake.journals.parts_of(recording_id)
    if not any((results, facts, hypotheses, labels, examinations, journals)):
        raise NotFound(f"nothing is known of {recording_id}", hint="`k2d chunks BATCH --jsonl` prints ids")
    forgotten = Forgotten(
        recording_id=recording_id,
        results=len(results),
        reviews=len(lake.reviews.paths_of(label_keys)),
        facts=len(facts),
        hypotheses=len(hypotheses),
        labels=len(labels),
        journals=len(journals),
        examinations=len(examinations),
        datasets=datasets,
        datasets_unreadable=damaged_datasets,
        unreadable=sorted(unreadable),
    )
    if dry_run:
        return forgotten
    for batch_id, position in results:  # first: a process that is killed behind this leaves the recording missing
        lake.batches.delete_result(batch_id, position)
    for key in label_keys:
        lake.reviews.remove(key)
    for path in (*facts, *hypotheses, *labels, *journals, *examinations):
        lake.files.remove(path)
    return forgotten


def _id_of(lake: Lake, recording: str) -> str:
    if RECORDING_ID.fullmatch(recording):
        return recording
    try:
        key = place_of(recording).facts_key
    except NotFound as error:
        raise NotFound(
            f"not the id of a recording, a chunk or a segment: {recording[:100]!r}",
            hint=f"a recording's is rec_ and 24 digits of 0-9a-f; {error.hint}",
        ) from error
    facts = lake.facts.meta(key)
    with decoding(f"the metadata of facts/{key[:2]}/{key}.parquet"):
        return str(facts["recording"]["id"])


def _results_of(lake: Lake, recording_id: str) -> list[tuple[str, int]]:
    """Batch and position of each result of the recording; not by the index: nothing may be left."""
    return [
        (batch_id, result.position)
        for batch_id in lake.batches.ids()
        for result in lake.batches.results(batch_id)
        if result.recording_id == recording_id
    ]


def _select(lake: Lake, part: str, belongs: Callable[[str], bool]) -> list[str]:
    """The files of a part of the lake that belong to the recording."""
    judged = lake.files.many(lambda path: (path, belongs(path)), _paths(lake, part))
    return [path for path, selected in judged if selected]


def _paths(lake: Lake, part: str) -> Iterator[str]:
    for folder in lake.labels.folders_of(part):
        yield from lake.files.listing(folder)


def _has_meta(meta: Meta, recording_id: str, label_keys: frozenset[str], unreadable: list[str], path: str) -> bool:
    """Whether a shard is of the recording, or of one of its labels (hypotheses of 0.1 name only those).

    One that cannot be read is added to `unreadable`.
    """
    if not path.endswith(SUFFIX):
        return False
    try:
        described = meta(_key(path))
    except NotFound:
        return False
    except DamagedFile:
        unreadable.append(path)
        return False
    recording = described.get("recording")
    recording = recording if isinstance(recording, dict) else {}
    named = recording_id in (described.get("recording_id"), recording.get("id"))
    return named or described.get("label_key") in label_keys


def _is_examined(lake: Lake, recording_id: str, path: str) -> bool:
    if not path.endswith(".json"):
        return False
    examination = lake.examinations.get(_key(path))
    return examination is not None and examination.recording is not None and examination.recording.id == recording_id


def _key(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _datasets_with(lake: Lake, recording_id: str) -> tuple[list[str], list[str]]:
    """The datasets that have the recording, and those that cannot be read and so may have it."""
    having: list[str] = []
    unreadable: list[str] = []
    for name in lake.datasets.names():
        try:
            shards = lake.datasets.manifest(name).shards
            if any(recording_id in _recordings(lake, name, shard.number) for shard in shards):
                having.append(name)
        except (DamagedFile, NotFound):
            unreadable.append(name)
    return having, unreadable


def _names(datasets: list[str]) -> str:
    return f"the dataset{'s' if len(datasets) > 1 else ''} {', '.join(datasets)}"


def _recordings(lake: Lake, name: str, shard: int) -> Iterable[str]:
    """The recordings of a shard; one column is read, and the shard's hash is not checked."""
    url = lake.datasets.shard_path(name, shard)
    with lake.datasets.unverified_shard(name, shard) as file, guard(url):
        return set(file.read(columns=["recording_id"])["recording_id"].to_pylist())

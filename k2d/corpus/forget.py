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


def forget(lake: Lake, recording: str, *, keep_datasets: bool = False) -> Forgotten:
    """Remove examinations, labels, hypotheses, facts, results, journals and reviews of a recording; says how many.

        forget(lake, "rec_0f3c9a1be2d47c5512345678").labels  # 1

    Uploads stay: they are what someone sent. Batches with the recording have it missing then, and `k2d resume` labels
    it again. Datasets stay as they are. Reads the footer of every shard, so it takes minutes in a large store.

    Args:
        recording: its id, or the id of one of its chunks or segments.
        keep_datasets: go on where datasets have the recording.

    Raises:
        NotFound: not such an id, or nothing is known of it.
        Conflict: datasets have it.
        StoreError
    """
    recording_id = _id_of(lake, recording)
    datasets = [name for name in lake.datasets.names() if _is_in(lake, name, recording_id)]
    if datasets and not keep_datasets:
        raise Conflict(
            f"{recording_id} is in the datasets {', '.join(datasets)}, or they cannot be read",
            hint="freeze them again without it and delete them, or forget it with --keep-datasets",
            datasets=datasets,
        )
    unreadable: list[str] = []
    labels = _select(lake, "labels", partial(_has_meta, lake.labels.meta, recording_id, frozenset(), unreadable))
    label_keys = frozenset(map(_key, labels))

    def has(meta: Meta) -> Callable[[str], bool]:
        return partial(_has_meta, meta, recording_id, label_keys, unreadable)

    results = _remove_results(lake, recording_id)
    reviews = sum(lake.reviews.remove(key) for key in label_keys)
    forgotten = Forgotten(
        recording_id=recording_id,
        results=results,
        reviews=reviews,
        facts=_remove(lake, _select(lake, "facts", has(lake.facts.meta))),
        hypotheses=_remove(lake, _select(lake, "hypotheses", has(lake.hypotheses.meta))),
        labels=_remove(lake, labels),
        journals=lake.journals.forget(recording_id),
        examinations=_remove(lake, _select(lake, "examinations", partial(_is_examined, lake, recording_id))),
        datasets=datasets,
        unreadable=sorted(unreadable),
    )
    found = (results, forgotten.facts, forgotten.hypotheses, forgotten.labels, forgotten.examinations)
    if not any((*found, forgotten.journals)):
        raise NotFound(f"nothing is known of {recording_id}", hint="`k2d chunks BATCH --jsonl` prints ids")
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


def _remove_results(lake: Lake, recording_id: str) -> int:
    """Remove the results first: a process that is killed behind this leaves the recording missing, not dangling."""
    removed = 0
    for batch_id in lake.batches.ids():
        for result in lake.batches.results(batch_id):  # not those of the index: nothing may be left
            if result.recording_id == recording_id:
                lake.batches.delete_result(batch_id, result.position)
                removed += 1
    return removed


def _select(lake: Lake, part: str, belongs: Callable[[str], bool]) -> list[str]:
    """The files of a part of the lake that belong to the recording."""
    judged = lake.files.many(lambda path: (path, belongs(path)), _paths(lake, part))
    return [path for path, selected in judged if selected]


def _remove(lake: Lake, paths: list[str]) -> int:
    for path in paths:
        lake.files.remove(path)
    return len(paths)


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


def _is_in(lake: Lake, name: str, recording_id: str) -> bool:
    """Whether a dataset has the recording, or cannot be read and so may have it."""
    try:
        manifest = lake.datasets.manifest(name)
        return any(recording_id in _recordings(lake, name, shard.number) for shard in manifest.shards)
    except (DamagedFile, NotFound):
        return True


def _recordings(lake: Lake, name: str, shard: int) -> Iterable[str]:
    """The recordings of a shard; one column is read, and the shard's hash is not checked."""
    url = lake.datasets.shard_path(name, shard)
    with lake.datasets.unverified_shard(name, shard) as file, guard(url):
        return set(file.read(columns=["recording_id"])["recording_id"].to_pylist())

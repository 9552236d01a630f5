"""What is wrong with the content of a file of the store; each function gives one that tells it of a path, or None."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa

from k2d.errors import DamagedFile, NotFound
from k2d.store.datasets import Datasets, shard_file
from k2d.store.files import Files
from k2d.store.guard import guard, reason, why_damaged
from k2d.store.lake import Lake
from k2d.store.parquet import meta_of

Problem = Callable[[str], str | None]
_BLOCK: Final = 1 << 20


def parquet_problem(files: Files, *, read_all: bool) -> Problem:
    """Whether a Parquet file opens, with its metadata; with `read_all`, every row group of it is read."""

    def problem(path: str) -> str | None:
        with files.parquet(path) as file, guard(path):
            if file.schema_arrow.metadata:  # an index of 0.2 has none
                meta_of(file)
            for group in range(file.metadata.num_row_groups if read_all else 0):
                file.read_row_group(group, use_threads=False)
        return None

    return _damage_of(problem)


def arrow_problem(files: Files, *, read_all: bool) -> Problem:
    """Whether an Arrow file opens, and its columns are as long as it says. Such files carry no checksums."""

    def problem(path: str) -> str | None:
        with guard(path), files.open(path) as file, pa.ipc.open_file(file) as table:
            for batch in range(table.num_record_batches if read_all else 0):
                table.get_batch(batch).validate()
        return None

    return _damage_of(problem)


def json_problem(files: Files, read: Callable[[str], Any]) -> Problem:
    """Whether `read` reads a document."""

    def problem(path: str) -> str | None:
        read(path)
        return None

    return _damage_of(problem)


def facts_problem(lake: Lake, *, read_all: bool) -> Problem:
    """Whether a facts shard can be read, and the hypotheses that it was made from are there."""
    of_file = parquet_problem(lake.files, read_all=read_all)

    def problem(path: str) -> str | None:
        if (found := of_file(path)) is not None:
            return found
        with lake.files.parquet(path) as file, guard(path):
            keys = [str(key) for key in (meta_of(file).get("hypotheses") or ())]
        gone = sum(not lake.hypotheses.has(key) for key in keys)
        return f"hypotheses that it was made from are gone ({gone} of {len(keys)})" if gone else None

    return _damage_of(problem)


def digest_problem(files: Files, *, whole: bool) -> Problem:
    """Whether a file's bytes have the SHA-256 that its name begins or consists of; without `whole` nothing is read."""

    def problem(path: str) -> str | None:
        if not whole:
            return None
        sha256 = hashlib.sha256()
        with files.open(path) as file, guard(path):
            while block := file.read(_BLOCK):
                sha256.update(block)
        name = path.rpartition("/")[2].partition(".")[0]
        return None if name and sha256.hexdigest().startswith(name) else "its bytes are not those it is named by"

    return _damage_of(problem)


def dataset_problems(datasets: Datasets, name: str, *, hashes: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with a finished dataset: paths and problems of its manifest and its shards."""
    try:
        manifest = datasets.manifest(name)
        missing = set(datasets.missing_shards(name))
    except DamagedFile as error:
        yield f"datasets/{name}/manifest.json", why_damaged(error)
        return
    except NotFound:
        yield f"datasets/{name}/manifest.json", "it is gone"
        return
    for place, shard in enumerate(manifest.shards):
        path = f"datasets/{name}/{manifest.digest}/{shard_file(shard)}"
        if shard.number in missing:
            yield path, "it is gone"
        elif hashes:
            try:
                with datasets.open_shard(name, place, manifest=manifest):
                    pass
            except DamagedFile as error:
                yield path, why_damaged(error)


def _damage_of(problem: Problem) -> Problem:
    """A file that is gone meanwhile is no problem; a store that does not answer is not the file's."""

    def judged(path: str) -> str | None:
        with suppress(NotFound):
            try:
                return problem(path)
            except DamagedFile as error:
                return why_damaged(error)
            except (ValueError, MemoryError) as error:  # of Arrow, which is not foreseen, and of JSON
                return reason(error)
        return None

    return judged

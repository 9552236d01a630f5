"""Writes an export shard by shard: several at once, to a local folder or an object store, going on where it stopped.

A format has two functions. `write_shard` writes the files of one shard and returns a note, a JSON value; `finish`
writes what all shards have in common from the notes and from fragments: files of a shard under FRAGMENTS, which are
removed at the end.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from k2d.datasets.read import FrozenDataset
from k2d.errors import Conflict
from k2d.steps import OnSteps, ignore_steps
from k2d.store.files import Files

FRAGMENTS: Final = ".fragments"  # folder of what `finish` reads, in the folder of the export
NOTE: Final = "{:05d}.json"  # of a shard, among the fragments: it is complete
MOST_THREADS: Final = 4  # shards that are written at the same time; chosen: each holds about 100 MB


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A format of exports."""

    write_shard: Callable[[FrozenDataset, Path, int], Any]  # dataset, folder, number of the shard
    # dataset, folder, where the folder will be (Kaldi's files have absolute paths), notes of the shards
    finish: Callable[[FrozenDataset, Path, Path, list[Any]], None] = lambda dataset, folder, final, notes: None
    remote: bool = True  # whether its files may lie in an object store


def fragment(folder: Path, name: str, shard: int) -> Path:
    """The path of a fragment of a shard. Its folder exists then."""
    path = folder / FRAGMENTS / f"{name}.{shard:05d}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_local(
    format_: DatasetFormat, dataset: FrozenDataset, staged: Path, final: Path, on_steps: OnSteps = ignore_steps
) -> None:
    """Write an export to the folder `staged`, where some shards may be complete, and move it to `final`.

    Raises:
        Conflict: another process writes there.
    """
    staged.mkdir(parents=True, exist_ok=True)
    with _locked(staged):
        (staged / FRAGMENTS).mkdir(exist_ok=True)

        def write(shard: int) -> Any:
            note = staged / FRAGMENTS / NOTE.format(shard)
            with suppress(FileNotFoundError, ValueError):
                return json.loads(note.read_text("utf-8"))
            value = format_.write_shard(dataset, staged, shard)
            temporary = note.with_suffix(".tmp")
            temporary.write_text(json.dumps(value), "utf-8")
            temporary.replace(note)
            return value

        notes = _in_threads(write, len(dataset.manifest.shards), on_steps)
        format_.finish(dataset, staged, final, notes)
        shutil.rmtree(staged / FRAGMENTS)
        staged.rename(final)  # replaces an empty folder


def write_remote(
    format_: DatasetFormat, dataset: FrozenDataset, target: Files, on_steps: OnSteps = ignore_steps
) -> None:
    """Write an export to an object store: each shard is written to a temporary folder, put, and removed.

    What `finish` writes is put last, so an export without it is incomplete.
    """

    def write(shard: int) -> Any:
        note = f"{FRAGMENTS}/{NOTE.format(shard)}"
        if target.exists(note):
            return json.loads(target.read(note))
        with tempfile.TemporaryDirectory(prefix="k2d-export-") as temporary:
            value = format_.write_shard(dataset, Path(temporary), shard)
            _put_all(Path(temporary), target)
        target.write(note, json.dumps(value).encode())
        return value

    notes = _in_threads(write, len(dataset.manifest.shards), on_steps)
    with tempfile.TemporaryDirectory(prefix="k2d-export-") as temporary:
        folder = Path(temporary)
        for path in target.listing(FRAGMENTS):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(target.read(path))
        format_.finish(dataset, folder, folder, notes)
        shutil.rmtree(folder / FRAGMENTS, ignore_errors=True)
        _put_all(folder, target)
    target.remove_folder(FRAGMENTS)


def _put_all(folder: Path, target: Files) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target.put(path, path.relative_to(folder).as_posix())


def _in_threads(write: Callable[[int], Any], shards: int, on_steps: OnSteps) -> list[Any]:
    """Write all shards. The first error stops those that are not begun."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="export") as pool:
        try:
            notes: list[Any] = []
            for note in pool.map(write, range(shards)):
                notes.append(note)
                on_steps(len(notes), shards)
            return notes
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which ends with the process.

    Raises:
        Conflict: another process holds it.
    """
    import fcntl  # not on Windows

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another export is being written to {folder}", hint="wait for it, or stop it") from error
        yield
    finally:
        os.close(handle)

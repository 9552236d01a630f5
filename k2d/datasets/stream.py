"""Exports a dataset as a stream of a tar file: for downloads. At most one shard's files are on the disk at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k2d.datasets.formats import FORMATS
from k2d.datasets.formats.shards import FRAGMENTS, DatasetFormat
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest
from k2d.store import Lake
from k2d.tarstream import END, member_of


def stream_export(lake: Lake, name: str, format: str) -> Iterator[bytes]:
    """A dataset in `format` (a key of FORMATS) as the bytes of a tar, whose files lie in a folder of its name.

        with open("lectures-v1.tar", "wb") as out:
            out.writelines(stream_export(lake, "lectures-v1", "nemo"))

    The files are those of `k2d.datasets.formats.export`, except that paths in Kaldi's wav.scp start with the folder's
    name: Kaldi's tools run beside the folder. Lists of all rows come last.

    Raises:
        BadRequest: an unknown format.
        NotFound: no such dataset.
        StoreError: at once where a shard is gone; at the place of a damaged one.
    """
    exporter = FORMATS.get(format)
    if exporter is None:
        hint = f"formats are {', '.join(FORMATS)}"
        about = {"parameter": "format", "value": format[:40], "choices": list(FORMATS)}
        raise BadRequest(f"unknown export format: {format[:40]!r}", hint=hint, **about)
    dataset = FrozenDataset(lake, name)
    dataset.check()
    return _by_shard(dataset, exporter)


def _by_shard(dataset: FrozenDataset, exporter: DatasetFormat) -> Iterator[bytes]:
    """Write one shard's files after the other into a folder, and send them; only fragments stay for the end."""
    root = dataset.manifest.name
    notes: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="k2d-export-") as scratch:
        whole = Path(scratch) / "whole"
        (whole / FRAGMENTS).mkdir(parents=True)
        for shard in range(len(dataset.manifest.shards)):
            with tempfile.TemporaryDirectory(dir=scratch) as temporary:
                folder = Path(temporary)
                notes.append(exporter.write_shard(dataset, folder, shard))
                for path in folder.glob(f"{FRAGMENTS}/*"):  # their names have the number of the shard
                    path.rename(whole / FRAGMENTS / path.name)
                yield from _members(root, folder)
        exporter.finish(dataset, whole, Path(root), notes)
        shutil.rmtree(whole / FRAGMENTS)
        yield from _members(root, whole)
    yield END


def _members(root: str, folder: Path) -> Iterator[bytes]:
    """All files below a folder, as files of the tar."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            yield from member_of(f"{root}/{path.relative_to(folder).as_posix()}", file, path.stat().st_size)

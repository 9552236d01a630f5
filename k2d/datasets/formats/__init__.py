"""Exports frozen datasets to formats of other toolkits, shard by shard. A local folder appears once it is complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from k2d.datasets.formats.huggingface import HUGGINGFACE
from k2d.datasets.formats.kaldi import KALDI
from k2d.datasets.formats.lhotse import LHOTSE
from k2d.datasets.formats.nemo import NEMO
from k2d.datasets.formats.shards import FRAGMENTS, DatasetFormat, write_local, write_remote
from k2d.datasets.formats.webdataset import WEBDATASET
from k2d.datasets.read import FrozenDataset, ShardStore
from k2d.errors import BadRequest, Conflict, K2DError, StoreError
from k2d.schema import Script
from k2d.steps import OnSteps, ignore_steps
from k2d.store.files import Files

FORMATS: Final[dict[str, DatasetFormat]] = {
    "huggingface": HUGGINGFACE,
    "webdataset": WEBDATASET,
    "nemo": NEMO,
    "lhotse": LHOTSE,
    "kaldi": KALDI,
}


def export(
    store: ShardStore,
    name: str,
    format: str,
    folder: str | Path,
    *,
    script: Script | None = None,
    on_steps: OnSteps = ignore_steps,
) -> str:
    """Write dataset `name` of a lake in `format` (a key of FORMATS) to a folder, which must be empty or not exist.

        export(lake, "lectures-v1", "webdataset", "out/lectures-v1")

    With a `script`, the labels of a dataset as heard are converted, and what the teacher wrote is in `raw_text` (for
    Kaldi in the file of that name).

    After a kill, or when the target is full, the shards that are complete stay (beside a local folder, as
    .<folder>.….partial), and the same call goes on there. When the dataset itself cannot be read, nothing stays.

    Args:
        store: a lake, or a remote API's datasets (`k2d.datasets.pull.RemoteStore`).
        folder: a local path, or a URL such as s3://bucket/talks.
        on_steps: called with (shards done, shards in total).

    Returns the absolute path of the folder, or the URL.

    Raises:
        BadRequest: an unknown format, or one whose files cannot lie in an object store.
        NotFound: no such dataset.
        Conflict: the folder is not empty, or is a file; or the dataset is in another script.
        StoreError: the lake cannot be read, or the folder cannot be written.
    """
    exporter = FORMATS.get(format)
    if exporter is None:
        raise BadRequest(f"unknown export format: {format[:40]!r}", hint=f"formats are {', '.join(FORMATS)}")
    dataset = FrozenDataset(store, name, script=script)
    if "://" in str(folder):
        return _export_remote(exporter, dataset, str(folder), format, on_steps)
    final = Path(folder).absolute()
    with _writing(final):
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise Conflict(f"{final} is not empty", hint="export to a new folder; nothing is ever overwritten")
        staged = final.parent / f".{final.name}.{_content(dataset, format)}.partial"
        try:
            write_local(exporter, dataset, staged, final, on_steps)
        except Conflict:
            raise
        except K2DError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    return str(final)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Convert the errors of writing to a folder, which is not the store's, to a StoreError that says so."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise StoreError(
            f"the export cannot be written to {folder}: {why or error}",
            hint="name another folder, that you may write and that has room, or free some: the same command then goes "
            "on with the shards that are complete",
        ) from error


def _export_remote(exporter: DatasetFormat, dataset: FrozenDataset, url: str, format: str, on_steps: OnSteps) -> str:
    if not exporter.remote:
        raise BadRequest(
            f"an export as {format} has paths of this machine in it", hint="export to a local folder, or as nemo"
        )
    target = Files(url)
    mark = f"{FRAGMENTS}/of.txt"  # which content is being written there
    content = _content(dataset, format).encode()
    present = target.listing("")
    if present and (mark not in present or target.read(mark) != content):
        raise Conflict(f"{url} is not empty", hint="export to a new prefix; nothing is ever overwritten")
    target.write(mark, content)
    write_remote(exporter, dataset, target, on_steps)
    return url


def _content(dataset: FrozenDataset, format: str) -> str:
    """What is exported, as part of a file name: an export of something else does not go on from it."""
    script = f"-{dataset.converted_to}" if dataset.converted_to is not None else ""
    return f"{dataset.manifest.digest[:12]}-{format}{script}"

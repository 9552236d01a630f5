"""Exports frozen datasets to formats of other toolkits. Rows are streamed; the folder appears once it is complete."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from k2d.datasets.formats.huggingface import write_huggingface
from k2d.datasets.formats.kaldi import write_kaldi
from k2d.datasets.formats.lhotse import write_lhotse
from k2d.datasets.formats.nemo import write_nemo
from k2d.datasets.formats.webdataset import write_webdataset
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest, Conflict
from k2d.schema import Script
from k2d.store import Lake
from k2d.store.guard import guard

# (dataset, folder to write to, which exists, final path of that folder). Kaldi's files need absolute paths.
Exporter = Callable[[FrozenDataset, Path, Path], None]

FORMATS: Final[dict[str, Exporter]] = {
    "huggingface": write_huggingface,
    "webdataset": write_webdataset,
    "nemo": write_nemo,
    "lhotse": write_lhotse,
    "kaldi": write_kaldi,
}


def export(lake: Lake, name: str, format: str, folder: str | Path, *, script: Script | None = None) -> Path:
    """Write dataset `name` in `format` (a key of FORMATS) to a local `folder`, which must be empty or not exist.

        export(lake, "lectures-v1", "webdataset", "out/lectures-v1")

    With a `script`, the labels of a dataset as heard are converted, and what the teacher wrote is in `raw_text` (for
    Kaldi in the file of that name).

    Returns the absolute path of the folder. On an error nothing is left behind.

    Raises:
        BadRequest: an unknown format.
        NotFound: no such dataset.
        Conflict: the folder is not empty, or is a file; or the dataset is in another script.
        StoreError: the lake cannot be read, or the folder cannot be written.
    """
    exporter = FORMATS.get(format)
    if exporter is None:
        raise BadRequest(f"unknown export format: {format[:40]!r}", hint=f"formats are {', '.join(FORMATS)}")
    dataset = FrozenDataset(lake, name, script=script)
    final = Path(folder).absolute()
    with guard(str(final), writing=True):
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise Conflict(f"{final} is not empty", hint="export to a new folder; nothing is ever overwritten")
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.parent / f".{final.name}.{uuid.uuid4().hex}.tmp"
        staged.mkdir()
        try:
            exporter(dataset, staged, final)
            staged.rename(final)  # replaces an empty folder
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    return final

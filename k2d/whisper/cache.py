"""Writes folders of the model cache atomically: a folder is there completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2d.errors import ModelError


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError while writing to the cache into a ModelError that names the path."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"the model cache cannot be written: {path}: {error.strerror or error}",
            hint="set K2D_CACHE to a writable folder with enough space",
        ) from error


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` when the block succeeds, and deleted when it fails.

    Raises:
        ModelError: the cache cannot be written.
    """
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as parent:
            work = Path(parent) / "new"
            work.mkdir()
            yield work
            try:
                os.replace(work, target)
            except OSError:
                if not target.is_dir():  # if it exists, another process was faster; its files are the same
                    raise

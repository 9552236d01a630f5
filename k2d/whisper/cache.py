"""The model cache: folders appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2d.errors import ModelError


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn a cache that cannot be written into a ModelError that says where."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"the model cache cannot be written: {path}: {error.strerror or error}",
            hint="set K2D_CACHE to a folder with room that this user may write",
        ) from error


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, in one rename; else nothing remains.

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
                if not target.is_dir():  # there: another process was faster, and its files are the same
                    raise

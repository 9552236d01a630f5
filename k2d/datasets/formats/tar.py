"""Deterministic tar files: their bytes depend only on the names and content of the files in them."""

import io
import tarfile


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without modification time and owner, and with a fixed mode."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o644
    tar.addfile(entry, io.BytesIO(data))

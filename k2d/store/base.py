"""Base class of the lake's parts: JSON documents, folders of version 0.1, and safe file names."""

import re
from functools import cached_property
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from k2d.errors import NotFound
from k2d.store.files import Files
from k2d.store.guard import damaged
from k2d.store.parquet import dumps

# keys, ids and names that are used as file names: no separators, no leading dot
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# Folders that k2d 0.1 called something else. They are still read, and never written.
EARLIER_FOLDERS: Final = {"examinations": "probes", "hypotheses": "opinions", "probes": "listeners"}

_adapters: dict[type[Any], TypeAdapter[Any]] = {}


class LakePart:
    """Base class of the parts of the lake. All parts share one `Files`; none uses another's paths."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def read_document(self, path: str, kind: type[Any]) -> Any:
        """Read a JSON document as an instance of `kind` (a dataclass or a pydantic model).

        Raises:
            NotFound: there is no such document.
            StoreError: the document is damaged, or the store does not answer.
        """
        return read_json(self.files, path, kind)

    def write_document(self, path: str, value: Any) -> None:
        """Write a dataclass or JSON value atomically."""
        self.files.write(path, dumps(value))

    def located(self, path: str) -> str:
        """Return `path`, or the path that version 0.1 gave the same file if it is only there."""
        folder, _, rest = path.partition("/")
        earlier = self._earlier_folders.get(folder)
        if earlier is None or self.files.exists(path):
            return path
        return f"{earlier}/{rest}" if self.files.exists(f"{earlier}/{rest}") else path

    def folders_of(self, folder: str) -> tuple[str, ...]:
        """Return the folder and, if this lake has it, the folder of version 0.1 for the same files."""
        earlier = self._earlier_folders.get(folder)
        return (folder,) if earlier is None else (folder, earlier)

    @cached_property
    def _earlier_folders(self) -> dict[str, str]:
        """The folders of version 0.1 in this lake, by their current name. Listed once, so other lakes lose no time."""
        folders = set(self.files.folders(""))
        return {current: earlier for current, earlier in EARLIER_FOLDERS.items() if earlier in folders}


def read_json(files: Files, path: str, kind: type[Any]) -> Any:
    """Read a JSON document as an instance of `kind` (a dataclass or a pydantic model).

    Raises:
        NotFound: there is no such document.
        StoreError: the document is damaged, or the store does not answer.
    """
    try:
        return _adapter(kind).validate_json(files.read(path))
    except ValidationError as error:
        raise damaged(path, error.errors()[0]["msg"]) from error


def key_path(folder: str, key: str, suffix: str = "") -> str:
    """Return "folder/ab/abcdef….suffix": files are spread over 256 folders, since one cannot hold a million.

    Raises:
        NotFound: `key` is not a valid key, so nothing can be stored under it.
    """
    return f"{folder}/{safe_name(key)[:2]}/{key}{suffix}"


def safe_name(key: str) -> str:
    """Return `key` if it is a valid file name.

    Raises:
        NotFound: it is not, so nothing in the lake has that name.
    """
    if not _SAFE.fullmatch(key):
        raise NotFound(f"nothing in the store is called {key[:100]!r}")
    return key


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Cached: building an adapter takes milliseconds, using it microseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]

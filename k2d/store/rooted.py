"""What every part of the lake is built on: the root, JSON documents, and names that are safe in a path."""

import re
from functools import cached_property
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from k2d.errors import NotFound
from k2d.store.files import Files
from k2d.store.guard import damaged
from k2d.store.parquet import dumps

# keys, ids and names that become file names: no separators, no leading dot
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# Folders that version 0.1 called something else. They are read for ever and never written.
EARLIER_FOLDERS: Final = {"examinations": "probes", "hypotheses": "opinions", "probes": "listeners"}

_adapters: dict[type[Any], TypeAdapter[Any]] = {}


class Rooted:
    """A part of the lake. Parts share one `Files` and do not know one another's paths."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def read_document(self, path: str, kind: type[Any]) -> Any:
        """Read a JSON document as an instance of `kind` (a dataclass or a pydantic model).

        Raises:
            NotFound: there is none.
            StoreError: it is damaged, or the store does not answer.
        """
        try:
            return _adapter(kind).validate_json(self.files.read(path))
        except ValidationError as error:
            raise damaged(path, error.errors()[0]["msg"]) from error

    def write_document(self, path: str, value: Any) -> None:
        """Write a dataclass or JSON value atomically."""
        self.files.write(path, dumps(value))

    def located(self, path: str) -> str:
        """`path`, or where version 0.1 put the same file, if it is there and not at `path`."""
        folder, _, rest = path.partition("/")
        earlier = self._earlier_folders.get(folder)
        if earlier is None or self.files.exists(path):
            return path
        return f"{earlier}/{rest}" if self.files.exists(f"{earlier}/{rest}") else path

    def folders_of(self, folder: str) -> tuple[str, ...]:
        """The folder, and the one that version 0.1 kept the same files in, if this lake has it."""
        earlier = self._earlier_folders.get(folder)
        return (folder,) if earlier is None else (folder, earlier)

    @cached_property
    def _earlier_folders(self) -> dict[str, str]:
        """By today's name; looked up once, so that a lake without them pays nothing for them."""
        there = set(self.files.folders(""))
        return {now: earlier for now, earlier in EARLIER_FOLDERS.items() if earlier in there}


def fanned(folder: str, key: str, suffix: str = "") -> str:
    """folder/ab/abcdef….suffix: 256 folders instead of a million files in one.

    Raises:
        NotFound: `key` is no key, so nothing can be there.
    """
    return f"{folder}/{safe(key)[:2]}/{key}{suffix}"


def safe(key: str) -> str:
    """`key`, if it can be a file name.

    Raises:
        NotFound: it cannot, so nothing in the lake is called that.
    """
    if not _SAFE.fullmatch(key):
        raise NotFound(f"nothing in the store is called {key[:100]!r}")
    return key


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Built once for each kind: building takes milliseconds, using it microseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]

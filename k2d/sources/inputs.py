"""What a user names to be labeled: files, folders, globs, URIs, prefixes of a bucket, and manifests of any of these."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from k2d.errors import BadRequest, NotFound
from k2d.sources.allow import parse, shown
from k2d.sources.uris import MEDIA_EXTENSIONS, expand, readable, s3_listing
from k2d.textfiles import read_lines, why_unreadable

MANIFESTS: Final = frozenset({".jsonl", ".tsv"})
FIELDS: Final = ("audio", "uri", "path", "audio_filepath", "file")  # that name the recording, the first that is there
URI_SCHEMES: Final = ("s3", "https", "file")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Recordings to label: files of this machine with the names they get, and URIs that whoever labels reads."""

    files: dict[Path, str]
    uris: list[str]


def collect(names: Iterable[str | os.PathLike[str]], *, below: Sequence[str] = ()) -> Inputs:
    """Expand what a user names.

        collect(["talks/", "week-*/*.m4a", "s3://corpus/2026/", "https://host/a.mp3", "more.jsonl"])

    - A file is taken as it is; of a folder, the audio and video files at any depth.
    - A pattern with `*`, `?` or `[` that is no file: whatever of it matches; `**` for any depth.
    - `s3://bucket/prefix/` (or with a `*` at its end): the audio and video objects below it. Other URIs: themselves.
    - A manifest, `.jsonl` or `.tsv`: its recordings, in the field `audio`, `uri`, `path`, `audio_filepath` or `file`
      (of a TSV without such a heading: the first column). Relative paths are relative to the manifest.

    A recording is named by its path below what was given, the same from any current folder: `week-1/mon.m4a` of the
    folder /srv/talks/week-1 and of the pattern /srv/talks/*/mon.m4a, `mon.m4a` of the file. Of files that would have
    one name, the folders in which they differ are named too.

    Args:
        below: folders; a file in one of them is named as if the folder had been given.

    Raises:
        NotFound: a path does not exist, or a pattern or prefix matches nothing.
        BadRequest: a folder cannot be listed, or a manifest cannot be read.
    """
    files: dict[Path, str] = {}
    uris: dict[str, None] = {}
    for name in names:
        is_manifest = _is_manifest(name)
        for item in _from_manifest(Path(name)) if is_manifest else [os.fspath(name)]:
            if (uri := _uri(item)) is not None:
                uris.update(dict.fromkeys(_expand_uri(uri)))
                continue
            base = os.path.dirname(name) if is_manifest else _base(item)
            for path in expand(_matching(item)):
                files.setdefault(path, _below(path, next((_base(f) for f in below if _is_in(path, f)), base)))
    return Inputs(_distinct({path: files[path] for path in sorted(files)}), list(uris))


# ---- names --------------------------------------------------------------------------------------------------------


def _base(item: str) -> str:
    """The folder below which what is given is named: the one it lies in, or that of a pattern's first wildcard."""
    base = os.path.abspath(item)
    while base != (above := os.path.dirname(base)):
        base = above
        if not glob.has_magic(base) or os.path.lexists(base):
            break
    return base


def _below(path: Path, base: str) -> str:
    relative = os.path.relpath(path, base)
    return readable(Path(path.name if relative.startswith(os.pardir) else relative))


def _is_in(path: Path, folder: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _distinct(names: dict[Path, str]) -> dict[Path, str]:
    """Add the folders in which they differ to names that several files have."""
    alike: dict[str, list[Path]] = {}
    for path, name in names.items():
        alike.setdefault(name, []).append(path)
    for paths in alike.values():
        if len(paths) > 1:
            common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
            names |= {path: _below(path, common) for path in paths}
    return names


def _is_manifest(name: str | os.PathLike[str]) -> bool:
    return Path(name).suffix.lower() in MANIFESTS and Path(name).is_file()


def _uri(item: str) -> str | None:
    scheme, mark, _ = item.partition("://")
    return item if mark and scheme.lower() in URI_SCHEMES else None


def _expand_uri(uri: str) -> list[str]:
    if not uri.startswith("s3://") or not uri.endswith(("/", "*")):
        return [uri]
    parse(uri.rstrip("*"))
    found = [each for each in s3_listing(uri.rstrip("*")) if Path(each).suffix.lower() in MEDIA_EXTENSIONS]
    if not found:
        raise NotFound(f"no audio below {shown(uri)}", hint="a prefix ends with /; objects are chosen by extension")
    return found


def _matching(item: str) -> list[str]:
    if not glob.has_magic(item) or os.path.lexists(item):
        return [item]
    found = sorted(glob.glob(item, recursive=True))
    if not found:
        raise NotFound(f"nothing matches {item!r}", hint="check the pattern; quote it, or the shell expands it")
    return found


# ---- manifests ----------------------------------------------------------------------------------------------------


def _from_manifest(path: Path) -> Iterator[str]:
    lines = _lines(path)
    rows = _json_rows(path, lines) if path.suffix.lower() == ".jsonl" else _table_rows(lines)
    empty = True
    for number, item in rows:
        if not item:
            raise BadRequest(f"{path}, line {number}: names no recording", hint=f"in one of: {', '.join(FIELDS)}")
        empty = False
        yield item if _uri(item) else str(path.parent / item)
    if empty:
        raise BadRequest(f"{path} names no recording", hint="one a line")


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from read_lines(path)
    except (OSError, UnicodeError) as error:
        hint = "a list of recordings is a text with one a line"
        raise BadRequest(f"cannot read the list {path}: {why_unreadable(error)}", hint=hint) from error


def _json_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise BadRequest(f"{path}, line {number}: not JSON: {error}", hint="one JSON object a line") from error
        yield number, row if isinstance(row, str) else _field(row)


def _field(row: Any) -> str:
    values = (row.get(name) for name in FIELDS) if isinstance(row, dict) else ()
    return next((value for value in values if isinstance(value, str) and value), "")


def _table_rows(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    column = 0
    for number, row in enumerate(csv.reader(lines, delimiter="\t"), 1):
        if not row or row[0].startswith("#"):
            continue
        if number == 1 and (known := [name for name in FIELDS if name in row]):
            column = row.index(known[0])
            continue
        yield number, row[column].strip() if column < len(row) else ""

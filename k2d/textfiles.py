"""Reads text files that people edit and hand back: reviews, manifests, policies, recipes, lists of ids, `.env`.

Editors put a byte order mark in front, end lines with CRLF, and leave U+2028, U+2029 or U+0085 inside a text, where
`str.splitlines` would end the line. `encoding=ENCODING` does the same for files that a library opens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ENCODING: Final = "utf-8-sig"  # UTF-8 with or without a byte order mark
_NOT_TEXT: Final = "it is not a text in UTF-8"


class NotText(UnicodeDecodeError):
    """A file is not UTF-8, and says so in plain words."""

    def __str__(self) -> str:
        return _NOT_TEXT


def read_text(path: Path) -> str:
    """Read a file of UTF-8 without its byte order mark; CRLF becomes a newline.

    Raises:
        OSError: it cannot be read.
        NotText: it is not UTF-8.
    """
    try:
        return path.read_text(ENCODING)
    except UnicodeDecodeError as error:
        raise NotText(*error.args) from None


def read_lines(path: Path) -> Iterator[str]:
    """Read a file line by line, without the line ends; nothing but a newline or a carriage return ends a line.

        [json.loads(line) for line in read_lines(path) if line.strip()]

    Raises:
        OSError, NotText: as `read_text`, while it is read.
    """
    with path.open(encoding=ENCODING) as file:
        try:
            for line in file:
                yield line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise NotText(*error.args) from None


def why_unreadable(error: OSError | UnicodeError) -> str:
    """Why a file that somebody gave cannot be read as text, in plain words.

    why_unreadable(FileNotFoundError()) == "there is no such file"
    """
    if isinstance(error, UnicodeError):
        return _NOT_TEXT
    known = {FileNotFoundError: "there is no such file", IsADirectoryError: "it is a folder"}
    return known.get(type(error)) or error.strerror or str(error)

"""Reads text files that people edit and hand back: reviews, manifests, policies, recipes, lists of ids, `.env`.

Editors put a byte order mark in front, end lines with CRLF, and leave U+2028, U+2029 or U+0085 inside a text, where
`str.splitlines` would end the line. `encoding=ENCODING` does the same for files that a library opens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ENCODING: Final = "utf-8-sig"  # UTF-8 with or without a byte order mark


def read_text(path: Path) -> str:
    """Read a file of UTF-8 without its byte order mark; CRLF becomes a newline.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    return path.read_text(ENCODING)


def read_lines(path: Path) -> Iterator[str]:
    """Read a file line by line, without the line ends; nothing but a newline or a carriage return ends a line.

        [json.loads(line) for line in read_lines(path) if line.strip()]

    Raises:
        OSError, UnicodeDecodeError: as `read_text`, while it is read.
    """
    with path.open(encoding=ENCODING) as file:
        for line in file:
            yield line.removesuffix("\n")

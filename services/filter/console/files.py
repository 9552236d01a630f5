"""The files of the console: scripts, styles, and the libraries in static/vendor; nothing comes from elsewhere."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Final

from fastapi import APIRouter, Response

from k2d.errors import NotFound

router = APIRouter(include_in_schema=False)

TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
FOREVER: Final = "public, max-age=31536000, immutable"  # a file's address has its digest


@router.get("/static/{name:path}")
def file(name: str) -> Response:
    content, digest = _read(name)
    headers = {"Cache-Control": FOREVER, "ETag": f'"{digest}"'}
    return Response(content, media_type=TYPES[PurePosixPath(name).suffix], headers=headers)


def address(name: str) -> str:
    """The address of a file, which changes with its content.

    address("console.css")  # "static/console.css?v=0f3c9a1b"
    """
    return f"static/{name}?v={_read(name)[1][:8]}"


@cache
def _all() -> dict[str, tuple[bytes, str]]:
    """Every file by its name below static/, with its digest. Read once: nobody reaches another file by a name."""
    found = {}
    folders = [(files(__package__) / "static", "")]
    for folder, prefix in folders:
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((entry, f"{prefix}{entry.name}/"))
            elif PurePosixPath(entry.name).suffix in TYPES:
                content = entry.read_bytes()
                found[prefix + entry.name] = (content, hashlib.sha256(content).hexdigest())
    return found


def _read(name: str) -> tuple[bytes, str]:
    if name not in _all():
        raise NotFound(f"there is no file {name[:100]!r}")
    return _all()[name]

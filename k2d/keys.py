"""Keys and ids. A key is a hash of everything that went into a result.

The id of a chunk or a segment is made of the key of its facts and its position:

    >>> chunk_id("4f1d", 3)
    '4f1d-00003'
    >>> segment_id("4f1d-00003", 2)
    '4f1d-00003.002'
    >>> place_of("4f1d-00003.002")
    Place(facts_key='4f1d', chunk=3, segment=2)
"""

import dataclasses
import hashlib
import json
import re
from typing import Any, Final, NamedTuple

from k2d.errors import NotFound
from k2d.schema import ADDED

# Part of the keys of hypotheses, which version 0.1 called so. Never shown; a change would lose the stored ones.
HYPOTHESES_TAG: Final = "opinions"

RECORDING_ID: Final = re.compile(r"rec_[0-9a-f]{24}")
_ID: Final = re.compile(r"([0-9A-Za-z]+)-([0-9]{5}|[1-9][0-9]{5,8})(?:\.([0-9]{3}|[1-9][0-9]{3,8}))?")


def digest(*parts: Any) -> str:
    """Hash JSON values and dataclasses to 32 hex characters; equal values give equal keys on every machine.

    A dataclass's field whose metadata has `ADDED` is left out while it has its default, so that keys made before the
    field existed stay what they are.
    """
    canonical = json.dumps(parts, default=_plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def recording_id(sha256: str) -> str:
    """The id of a recording, from the SHA-256 (hex) of its samples: 16 kHz mono, little-endian int16."""
    return f"rec_{sha256[:24]}"


class Place(NamedTuple):
    """A parsed id: the key of the facts, the chunk's index in the recording, the segment's number in the chunk."""

    facts_key: str
    chunk: int
    segment: int | None  # None for the id of a chunk


def chunk_id(facts_key: str, index: int) -> str:
    """The id of a chunk, from the key of its recording's facts and its index in the recording."""
    return f"{facts_key}-{index:05d}"


def segment_id(chunk: str, number: int) -> str:
    """The id of a segment, from its chunk's id and its number in the chunk."""
    return f"{chunk}.{number:03d}"


def place_of(id_: str) -> Place:
    """Parse the id of a chunk or a segment.

    Raises:
        NotFound: not such an id.
    """
    match = _ID.fullmatch(id_)
    if match is None:
        raise NotFound(
            f"not the id of a chunk or a segment: {id_[:100]!r}",
            hint="ids are <key>-00003 (chunk) and <key>-00003.002 (segment); `k2d chunks BATCH --jsonl` prints them",
            chunk=id_[:100],
        )
    key, chunk, segment = match.groups()
    return Place(key, int(chunk), None if segment is None else int(segment))


def chunk_of(id_: str) -> tuple[str, int]:
    """The facts key and the index of a chunk, from its id.

    Raises:
        NotFound: not the id of a chunk.
    """
    place = place_of(id_)
    if place.segment is not None:
        raise NotFound(
            f"not the id of a chunk: {id_[:100]!r}",
            hint="this is the id of a segment; leave out the dot and what follows it",
            chunk=id_[:100],
        )
    return place.facts_key, place.chunk


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if not (ADDED in field.metadata and getattr(value, field.name) == field.default)
        }
    raise TypeError(f"cannot be part of a key: {type(value).__name__}")

"""Keys and ids: results are facts named by a hash of everything that went into them; chunks and segments by place.

chunk_id("4f…", 3)          -> "4f…-00003"
segment_id("4f…-00003", 2)  -> "4f…-00003.002"
"""

import dataclasses
import hashlib
import json
import re
from typing import Any, Final, NamedTuple

from k2d.errors import NotFound

# As hypotheses and facts were keyed from version 0.1 on: part of every key, never shown, never changed.
HYPOTHESES_TAG: Final = "opinions"

_ID: Final = re.compile(r"([0-9A-Za-z]+)-([0-9]{5}|[1-9][0-9]{5,})(?:\.([0-9]{3}|[1-9][0-9]{3,}))?")


def digest(*parts: Any) -> str:
    """Hash JSON-able values and dataclasses to 32 hex characters; equal values give equal keys on every machine."""
    canonical = json.dumps(parts, default=_plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Place(NamedTuple):
    """Where a chunk or a segment is: the key of its facts, its index in the recording, its number in the chunk."""

    facts_key: str
    chunk: int
    segment: int | None  # None: the id is a chunk's


def chunk_id(facts_key: str, index: int) -> str:
    """The id of a chunk: the key of its recording's facts and its index there."""
    return f"{facts_key}-{index:05d}"


def segment_id(chunk: str, number: int) -> str:
    """The id of a segment: its chunk's id and its number in that chunk."""
    return f"{chunk}.{number:03d}"


def place_of(id_: str) -> Place:
    """Read the id of a chunk or a segment.

    Raises:
        NotFound: it is neither.
    """
    found = _ID.fullmatch(id_)
    if found is None:
        raise NotFound(
            f"not the id of a chunk or a segment: {id_[:100]!r}",
            hint="ids look like <key>-00003 (chunk) and <key>-00003.002 (segment): `k2d chunks BATCH --jsonl` prints them",
        )
    key, chunk, segment = found.groups()
    return Place(key, int(chunk), None if segment is None else int(segment))


def chunk_of(id_: str) -> tuple[str, int]:
    """The facts key and the index of a chunk, from its id.

    Raises:
        NotFound: it is no chunk's id.
    """
    place = place_of(id_)
    if place.segment is not None:
        raise NotFound(
            f"not the id of a chunk: {id_[:100]!r}", hint="this is a segment's: leave out what follows the dot"
        )
    return place.facts_key, place.chunk


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be part of a key: {type(value).__name__}")

"""What a dataset must do without: chunks and segments that someone revoked, by their ids."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from k2d.errors import BadRequest
from k2d.keys import digest

# "{facts_key}-{chunk:05d}" is a chunk, with ".{segment:03d}" a segment of it (rows' chunk_ids and segment_ids)
_ID: Final = re.compile(r"([0-9A-Za-z]+)-(\d{5,})(?:\.(\d{3,}))?")


@dataclass(frozen=True, slots=True)
class Revoked:
    """Ids by the facts they are of."""

    ids: tuple[str, ...]  # sorted, each once
    chunks: dict[str, frozenset[int]]
    segments: dict[str, frozenset[tuple[int, int]]]  # (chunk, segment)

    @property
    def hash(self) -> str:
        """32 hex characters that name exactly these ids."""
        return digest("revoked", list(self.ids))

    def of(self, facts_key: str) -> bool:
        """Whether anything of these facts is revoked."""
        return facts_key in self.chunks or facts_key in self.segments


def revoked(ids: Iterable[str]) -> Revoked:
    """Read ids as datasets and `k2d chunks` write them.

    Raises:
        BadRequest: something is no id.
    """
    unique = sorted(set(ids))
    chunks: dict[str, set[int]] = {}
    segments: dict[str, set[tuple[int, int]]] = {}
    for one in unique:
        found = _ID.fullmatch(one)
        if found is None:
            raise BadRequest(
                f"no id of a chunk or a segment: {one[:80]!r}",
                hint="one a line, as in a dataset's chunk_ids and segment_ids: <key>-00003 or <key>-00003.002",
            )
        key, chunk, segment = found.groups()
        if segment is None:
            chunks.setdefault(key, set()).add(int(chunk))
        else:
            segments.setdefault(key, set()).add((int(chunk), int(segment)))
    return Revoked(
        tuple(unique),
        {key: frozenset(found) for key, found in chunks.items()},
        {key: frozenset(found) for key, found in segments.items()},
    )

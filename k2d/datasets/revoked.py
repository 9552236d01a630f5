"""Revoked ids: chunks and segments that a dataset must leave out."""

from collections.abc import Iterable
from dataclasses import dataclass

from k2d.errors import BadRequest, NotFound
from k2d.keys import digest, place_of


@dataclass(frozen=True, slots=True)
class RevokedIds:
    """Ids of chunks and segments, by the key of their facts."""

    ids: tuple[str, ...]  # sorted, each once
    chunks: dict[str, frozenset[int]]
    segments: dict[str, frozenset[tuple[int, int]]]  # (chunk, segment)

    @property
    def hash(self) -> str:
        """A hash of these ids, 32 hex characters."""
        return digest("revoked", list(self.ids))

    def of(self, facts_key: str) -> bool:
        """Whether any chunk or segment of these facts is revoked."""
        return facts_key in self.chunks or facts_key in self.segments


def revoked(ids: Iterable[str]) -> RevokedIds:
    """Parse ids of chunks and segments, as in datasets, review files and `k2d chunks` (`k2d.keys`).

        revoked(["4f…-00003", "4f…-00004.002"])

    Raises:
        BadRequest: one of them is not an id.
    """
    unique = sorted(set(ids))
    chunks: dict[str, set[int]] = {}
    segments: dict[str, set[tuple[int, int]]] = {}
    for value in unique:
        try:
            place = place_of(value)
        except NotFound as error:
            raise BadRequest(error.message, hint=f"one id a line; {error.hint}") from error
        if place.segment is None:
            chunks.setdefault(place.facts_key, set()).add(place.chunk)
        else:
            segments.setdefault(place.facts_key, set()).add((place.chunk, place.segment))
    return RevokedIds(
        tuple(unique),
        {key: frozenset(places) for key, places in chunks.items()},
        {key: frozenset(places) for key, places in segments.items()},
    )

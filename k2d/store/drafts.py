"""Drafts: batches whose sources are still being sent, named or described. Closing a draft makes the batch of it.

A batch never changes, and its id is a hash of its sources. A draft is where they are collected first: files that are
sent one by one, or URIs whose sizes and change marks are not known yet.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final

from k2d.errors import DamagedFile, NotFound
from k2d.keys import digest
from k2d.schema import Source
from k2d.store.base import LakePart, safe_name
from k2d.store.batches import PART_RECORDINGS
from k2d.store.guard import damaged, guard

PREFIX: Final = "d_"
PART: Final = PART_RECORDINGS  # sources of one entry document, and of one describing job


class DraftKind(StrEnum):
    """How the sources of a draft come."""

    FILES = "files"  # sent one by one until the draft is closed
    URIS = "uris"  # all named at once; described by jobs, after which the draft is closed


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that is being collected."""

    id: str
    kind: DraftKind
    options: dict[str, Any]  # BatchOptions, with the name
    created_at: str  # ISO 8601, UTC
    adds: bool = False  # to the batch of that name, where there is one
    parts: int = 0  # of URIs
    count: int = 0  # of URIs
    starts: tuple[int, ...] = ()  # of the parts in their file, in bytes, and its end

    @property
    def name(self) -> str:
        return str(self.options.get("name") or self.id)


@dataclass(frozen=True, slots=True)
class UriPart:
    """Up to PART URIs, and the names they are shown under where those were given."""

    uris: tuple[str, ...]
    names: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of a draft."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class _Entries:
    """Sources that were added together; of equal names the later counts."""

    sources: tuple[Source, ...] = field(default=())


class Drafts(LakePart):
    """Drafts: drafts/<id>/draft.json, …/entries/<time>-<random>.json, …/described/000000.json, …/closed.json, and
    …/uris.jsonl, a part a line (one file, so that a request is answered soon). drafts-by-name/<hash>.json has the id of
    the newest draft of a name.

        draft = lake.drafts.open(DraftKind.FILES, {"name": "lectures"})
        lake.drafts.add(draft.id, [source])
        lake.drafts.sources(draft.id)
    """

    def open(
        self, kind: DraftKind, options: dict[str, Any], *, adds: bool = False, uris: Sequence[UriPart] = ()
    ) -> Draft:
        """Store a new draft; one of URIs comes with all of them.

        Raises:
            StoreError
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        count = sum(len(part.uris) for part in uris)
        lines = [_line(part) for part in uris]
        starts = tuple(accumulate(map(len, lines), initial=0))
        draft = Draft(f"{PREFIX}{uuid.uuid4().hex[:16]}", kind, options, now, adds, len(uris), count, starts)
        if lines:
            self.files.write(f"{_folder(draft.id)}/uris.jsonl", b"".join(lines))
        self.write_document(f"{_folder(draft.id)}/draft.json", draft)
        if options.get("name"):
            self.write_document(_alias(draft.name), {"id": draft.id})
        return draft

    def get(self, id_or_name: str) -> Draft:
        """Return the draft with this id, or the newest with this name.

        Raises:
            NotFound: there is none.
            StoreError
        """
        try:
            return self._read(id_or_name)
        except NotFound:
            pass
        try:
            alias: dict[str, str] = self.read_document(_alias(id_or_name), dict[str, str])
            return self._read(alias["id"])
        except (NotFound, KeyError):
            hint = "POST /v1/batches?open=true opens one"
            raise NotFound(f"no batch is being filled under {id_or_name[:100]!r}", hint=hint) from None

    def unfinished(self) -> Iterator[Draft]:
        """Iterate over drafts of URIs that have not become a batch yet: their jobs may be lost."""
        for draft_id in self.files.folders("drafts"):
            try:
                draft = self._read(draft_id)
                is_open = draft.kind is DraftKind.URIS and self.closed(draft_id) is None
            except (NotFound, DamagedFile):  # it costs that draft; `k2d store check` says so
                continue
            if is_open:
                yield draft

    def remove(self, draft_id: str) -> None:
        """Remove a draft; uploads stay."""
        self.files.remove_folder(_folder(draft_id))

    def sweep(self, older_than_s: float) -> int:
        """Remove drafts of files that were opened, or became a batch, longer ago than this; returns their number."""
        limit, removed = datetime.fromtimestamp(time.time() - older_than_s, UTC), 0
        for draft_id in self.files.folders("drafts"):
            try:
                draft = self._read(draft_id)
                done = draft.kind is DraftKind.FILES or self.closed(draft_id) is not None
            except (NotFound, DamagedFile):
                continue
            if done and datetime.fromisoformat(draft.created_at) < limit:
                self.remove(draft_id)
                removed += 1
        return removed

    # ---- files ----------------------------------------------------------------------------------------------------

    def add(self, draft_id: str, sources: Iterable[Source]) -> None:
        """Add sources; one of the same name is replaced.

        Raises:
            StoreError
        """
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self.write_document(f"{_folder(draft_id)}/entries/{name}.json", _Entries(tuple(sources)))

    def sources(self, draft_id: str) -> list[Source]:
        """The sources that were added, by name: of equal names the latest."""
        paths = self.files.listing(f"{_folder(draft_id)}/entries")
        by_name: dict[str, Source] = {}
        for entries in self.files.many(lambda path: self.read_document(path, _Entries), paths):
            by_name.update({source.name: source for source in entries.sources})
        return sorted(by_name.values(), key=lambda source: source.name)

    # ---- URIs -----------------------------------------------------------------------------------------------------

    def uris(self, draft_id: str, part: int) -> UriPart:
        """One part of a draft's URIs."""
        starts, path = self._read(draft_id).starts, f"{_folder(draft_id)}/uris.jsonl"
        with self.files.open(path) as file, guard(path):
            file.seek(starts[part])
            line = file.read(starts[part + 1] - starts[part])
        try:
            return UriPart(**{name: tuple(values) for name, values in json.loads(line).items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error

    def put_described(self, draft_id: str, part: int, sources: Sequence[Source]) -> None:
        """Store what was found out about a part of the URIs."""
        self.write_document(f"{_folder(draft_id)}/described/{part:06d}.json", _Entries(tuple(sources)))

    def described_parts(self, draft_id: str) -> set[int]:
        """The parts that are described."""
        paths = self.files.listing(f"{_folder(draft_id)}/described")
        numbers = (path.rpartition("/")[2].removesuffix(".json") for path in paths)
        return {int(number) for number in numbers if number.isascii() and number.isdigit()}

    def described(self, draft_id: str) -> list[Source]:
        """What was found out about all parts, in their order."""
        paths = self.files.listing(f"{_folder(draft_id)}/described")
        parts = self.files.many(lambda path: self.read_document(path, _Entries), paths)
        return [source for part in parts for source in part.sources]

    # ---- closing --------------------------------------------------------------------------------------------------

    def close(self, draft_id: str, batch_id: str) -> None:
        """Note which batch a draft became."""
        self.write_document(f"{_folder(draft_id)}/closed.json", Closed(batch_id))

    def closed(self, draft_id: str) -> str | None:
        """The id of the batch that a draft became; None while it is open."""
        try:
            closed: Closed = self.read_document(f"{_folder(draft_id)}/closed.json", Closed)
        except NotFound:
            return None
        return closed.batch_id

    def _read(self, draft_id: str) -> Draft:
        draft: Draft = self.read_document(f"{_folder(draft_id)}/draft.json", Draft)
        return draft


def _line(part: UriPart) -> bytes:
    """A part as one line of JSON."""
    return json.dumps({"uris": part.uris, "names": part.names}, ensure_ascii=True).encode() + b"\n"


def _folder(draft_id: str) -> str:
    return f"drafts/{safe_name(draft_id)}"


def _alias(name: str) -> str:
    return f"drafts-by-name/{digest('draft name', name)}.json"

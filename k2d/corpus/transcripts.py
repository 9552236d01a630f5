"""A batch's labels as files: subtitles of each recording, and a table of its chunks. Made while they are sent."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from k2d.corpus import chunk_pages
from k2d.corpus.index import results
from k2d.corpus.tables import csv_table
from k2d.documents import ChunkFilter
from k2d.errors import BadRequest
from k2d.filtering.policy import Policy
from k2d.schema import Batch, Outcome, Segment
from k2d.store import Lake
from k2d.text.subtitles import srt, vtt

SUBTITLES: Final[dict[str, Callable[[Iterable[Segment]], str]]] = {"srt": srt, "vtt": vtt}


def subtitle_files(lake: Lake, batch: Batch, form: str) -> Iterator[tuple[str, bytes]]:
    """The labels of each recording as subtitles: names of files and their contents.

        dict(subtitle_files(lake, batch, "srt"))  # {"talk-1.wav.srt": b"1\\n00:00:00,000 …"}

    All labels are in them, whatever a policy makes of them. Two recordings of one name get their position too.

    Raises:
        BadRequest: a form that is not in SUBTITLES.
        StoreError: labels are gone or damaged.
    """
    write = SUBTITLES.get(form)
    if write is None:
        hint = f"forms are {', '.join(SUBTITLES)}"
        about = {"parameter": "form", "value": form[:40], "choices": list(SUBTITLES)}
        raise BadRequest(f"unknown form of subtitles: {form[:40]!r}", hint=hint, **about)
    return _subtitles(lake, batch, form, write)


def _subtitles(
    lake: Lake, batch: Batch, form: str, write: Callable[[Iterable[Segment]], str]
) -> Iterator[tuple[str, bytes]]:
    names: set[str] = set()
    for result in results(lake, batch):
        if result.outcome is not Outcome.LABELED or result.label_key is None:
            continue
        name = file_name(result.name)
        if name in names:
            name = f"{result.position}-{name}"
        names.add(name)
        chunks = (chunk for chunk, _ in lake.labels.read(result.label_key))
        yield f"{name}.{form}", write(segment for chunk in chunks for segment in chunk.segments).encode()


def chunk_table(lake: Lake, batch: Batch, policy: Policy, where: ChunkFilter) -> Iterator[bytes]:
    """The chunks of a batch as CSV, a page at a time.

    list(chunk_table(lake, batch, DEFAULT, ChunkFilter(verdict=Status.REJECTED)))
    """
    return csv_table(chunk_pages.all_chunks(lake, batch, policy, where=where), policy)


def file_name(name: str) -> str:
    """A recording's name as a path in an archive that stays below its folder: "../a/b.wav" → "a/b.wav"."""
    printable = "".join(c if c.isprintable() else "_" for c in name.replace("\\", "/"))
    parts = [part for part in printable.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"

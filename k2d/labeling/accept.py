"""Accepts the sources of a batch: splits their channels where that is asked for, stores the batch or adds to one."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import BinaryIO

from k2d import sources
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.documents import BatchOptions
from k2d.errors import AudioError
from k2d.labeling.request import extended, make_batch, split_channels
from k2d.schema import Batch, Source
from k2d.settings import Settings
from k2d.store import Lake


def accept(
    files: Sequence[Source],
    options: BatchOptions,
    lake: Lake,
    settings: Settings,
    *,
    adds: bool = False,
    trusted: bool = False,
) -> Batch:
    """Store the batch of these sources; with `adds`, add what is new to the batch of that name, if there is one.

        batch = accept([sources.from_path("talk.m4a")], BatchOptions(name="talks"), lake, settings)

    An equal batch that is there already keeps its record (`lake.batches.get(batch.id)`).

    Raises:
        BadRequest: as `make_batch`.
        Conflict: the name belongs to another batch, or the batch was extended by somebody else at the same time.
        StoreError
    """
    before = lake.batches.find(options.name) if adds and options.name else None
    if before is None:
        batch = make_batch(files, options, settings, trusted=trusted)
        lake.batches.put(batch)
        return batch
    batch = extended(before, files)
    if batch.id != before.id:
        lake.batches.put_extended(batch, of=before)
    return batch


def split_stored(
    files: Sequence[Source],
    options: BatchOptions,
    lake: Lake,
    settings: Settings,
    *,
    allowed: Sequence[str] | None = None,
) -> list[Source]:
    """`split_channels` of sources that can be opened by their URIs; those outside the prefixes `allowed` are not."""

    def channels_of(source: Source) -> int | None:
        return count_channels(partial(sources.open_source, source, lake.open, allowed=allowed), settings)

    return split_channels(files, options, settings, channels_of=channels_of)


def count_channels(opened: Callable[[], BinaryIO], settings: Settings) -> int | None:
    """How many channels a file has, by its header; None if it cannot be read."""
    with suppress(AudioError, OSError), opened() as file:
        return isolated.probe_channels(file, limits=DecodeLimits.of(settings))
    return None

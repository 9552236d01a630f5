"""Accepts the sources of a batch: splits their channels where that is asked for, stores the batch or adds to one."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from k2d import sources
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.documents import BatchOptions
from k2d.errors import AudioError, Conflict
from k2d.labeling.request import extended, make_batch, split_channels
from k2d.schema import Batch, Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.batches import options_of


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

    An equal batch that is there already keeps its record (`lake.batches.get(batch.id)`). The batch of that name is also
    the one that is meant if it has all of these files, and perhaps more, under whatever names.

    Raises:
        BadRequest: as `make_batch`.
        Conflict: the name belongs to another batch, the batch to add to has other options than those given, or it was
            extended by somebody else at the same time.
        StoreError
    """
    before = batch_before(files, options, lake, settings) if adds else None
    if before is None:
        batch = make_batch(files, options, settings, trusted=trusted)
        if (named := batch_with_all(batch, lake)) is not None:
            return named
        lake.batches.put(batch)
        return batch
    if options.name != before.id:  # the name that is meant; equal batches are one, which may have several
        before = replace(before, name=str(options.name))
    batch = extended(before, files)
    if batch.id != before.id:
        lake.batches.put_extended(batch, of=before)
    return batch


def batch_before(files: Sequence[Source], options: BatchOptions, lake: Lake, settings: Settings) -> Batch | None:
    """The batch of the options' name, to which these sources are added; None if there is none.

    Raises:
        Conflict: it has other options than those given.
    """
    before = lake.batches.find(options.name) if options.name else None
    if before is not None:
        _refuse_other_options(before, files, options, settings)
    return before


def _refuse_other_options(before: Batch, files: Sequence[Source], options: BatchOptions, settings: Settings) -> None:
    """A batch keeps its options, so that all of it is labeled alike; what is left out is not compared."""
    given = {name for name, value in options if value is not None} - {"name"}
    if not given or not files:
        return
    asked, has = options_of(make_batch(files[:1], options, settings)), options_of(before)
    names = sorted("initial_prompt" if name == "terms" else name for name in given)
    if changed := [f"{name} {has[name]}, not {asked[name]}" for name in names if has[name] != asked[name]]:
        raise Conflict(
            f"batch {options.name!r} has {'; '.join(changed)}",
            hint="leave the options out: what is added is labeled as the rest is; or make it another batch",
        )


def batch_with_all(batch: Batch, lake: Lake) -> Batch | None:
    """The batch that has the name of a new one, if it has the same options and all of its files, perhaps more.

    The content counts, of which copies may lie elsewhere; but one copy of it at least is where that batch looks.
    """
    owner = lake.batches.owner(batch.name)
    other = lake.batches.entry(owner) if owner else None
    if not isinstance(other, Batch) or options_of(other) != options_of(batch):
        return None
    there = {(source.key, source.uri) for source in other.sources}
    found = {source.key for source in batch.sources if (source.key, source.uri) in there}
    return other if all(source.key in found for source in batch.sources) else None


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

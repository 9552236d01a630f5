"""What a command needs done, and the two who can do it: a labeling API over HTTP, or this process.

from k2d.client import Client, Embedded

backend = Client("http://127.0.0.1:8080")  # or Embedded(k2d.settings.load())
status = backend.label(["talk.m4a"], BatchOptions(name="talks"), wait=True)
print(status.ledger.seconds.accepted)
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from k2d.documents import (
    BatchListed,
    BatchOptions,
    BatchStatus,
    ChunkDetail,
    ChunkFilter,
    ChunkRow,
    DatasetListed,
    Forecast,
    PartialResult,
    Preview,
)
from k2d.filtering.policy import DEFAULT, Policy
from k2d.schema import Metric
from k2d.store.manifest import Manifest

OnStatus = Callable[[PartialResult], None]


def ignore(_: PartialResult) -> None:
    """An OnStatus that does nothing."""


class Backend(Protocol):
    """The acts of the labeling service; results are its documents (`k2d.documents`), whoever does the work."""

    @property
    def where(self) -> str:
        """Who answers, for a person."""
        ...

    def label(
        self, paths: Sequence[str], options: BatchOptions, *, wait: bool = False, on_status: OnStatus = ignore
    ) -> BatchStatus:
        """Start (or find) the batch of these files and options; returns its status, final when `wait`."""
        ...

    def forecast(self, paths: Sequence[str], options: BatchOptions) -> Forecast:
        """Estimate what that would cost."""
        ...

    def batches(self) -> list[BatchListed]:
        """All batches, newest first."""
        ...

    def status(self, batch: str, policy: Policy = DEFAULT) -> BatchStatus:
        """A batch's state, and its ledger under a policy."""
        ...

    def chunks(self, batch: str, policy: Policy = DEFAULT, where: ChunkFilter | None = None) -> Iterator[ChunkRow]:
        """The batch's chunks in order, all or those that match."""
        ...

    def chunk(self, chunk_id: str, policy: Policy = DEFAULT) -> ChunkDetail:
        """Everything known of one chunk."""
        ...

    def preview(
        self, batches: Sequence[str], policy: Policy = DEFAULT, *, metrics: Sequence[Metric] | None = None
    ) -> Preview:
        """What a policy would keep, with the curve over α for `metrics` (its own when None)."""
        ...

    def freeze(
        self, name: str, batches: Sequence[str], policy: Policy = DEFAULT, *, without: Collection[str] = ()
    ) -> Manifest:
        """Freeze a dataset, without the chunks and segments of these ids, and wait for it."""
        ...

    def datasets(self) -> list[DatasetListed]:
        """All datasets, by name."""
        ...

    def manifest(self, name: str) -> Manifest:
        """A frozen dataset's manifest."""
        ...

    def delete_dataset(self, name: str) -> DatasetListed:
        """Delete a dataset and its shards; returns what it was."""
        ...

    def export(self, name: str, format_: str, folder: Path) -> Manifest:
        """Write a dataset into `folder` in another format."""
        ...

    def resume(self) -> dict[str, int]:
        """Do, or queue again, exactly what is missing; returns recordings missing by batch."""
        ...

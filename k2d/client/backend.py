"""What a command needs done, and the two who can do it: a labeling API, or this process."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from k2d.corpus.views import ChunkFilter
from k2d.filtering.policy import Policy
from k2d.labeling.request import LabelRequest
from k2d.schema import Metric

OnStatus = Callable[[dict[str, Any]], None]


class Backend(Protocol):
    """The acts of the labeling service. Results are the API's JSON documents (services/filter/models.py)."""

    @property
    def where(self) -> str:
        """Who answers, for a person."""
        ...

    def label(self, paths: Sequence[str], request: LabelRequest, *, wait: bool, on_status: OnStatus) -> dict[str, Any]:
        """Start (or find) the batch of these files and options; returns its status, final when `wait`.

        `on_status` hears of progress: {"seconds": heard so far, "recordings": finished, "total": of them, "error": what
        a worker failed at last and will try again, or None}.
        """
        ...

    def forecast(self, paths: Sequence[str], request: LabelRequest) -> dict[str, Any]:
        """What that would cost."""
        ...

    def batches(self) -> list[dict[str, Any]]: ...

    def status(self, batch: str, policy: Policy) -> dict[str, Any]: ...

    def chunks(self, batch: str, policy: Policy, where: ChunkFilter) -> Iterator[dict[str, Any]]: ...

    def chunk(self, chunk_id: str, policy: Policy) -> dict[str, Any]:
        """Everything known of one chunk."""
        ...

    def preview(
        self, batches: Sequence[str], policy: Policy, *, metrics: Sequence[Metric] | None = None
    ) -> dict[str, Any]:
        """What a policy would keep, with the curve over α for `metrics` (its own when None)."""
        ...

    def freeze(
        self, name: str, batches: Sequence[str], policy: Policy, *, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """Freeze a dataset, without the chunks and segments of these ids, and wait for it; returns its manifest."""
        ...

    def export(self, name: str, format_: str, folder: Path) -> dict[str, Any]:
        """Write a dataset into `folder` in another format; returns its manifest."""
        ...

    def resume(self) -> dict[str, int]:
        """Do, or queue again, exactly what is missing; returns recordings missing by batch."""
        ...

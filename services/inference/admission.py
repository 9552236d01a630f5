"""Limits how many requests an inference server holds in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from k2d.errors import Overloaded
from services.inference import batch_metrics


class RequestKind(StrEnum):
    """A single window, or a whole recording."""

    WINDOW = "window"
    RECORDING = "recording"


class Admission:
    """Counts the requests whose audio is in memory, and refuses those beyond the limit of their kind.

    All kinds count together. Twice `max_waiting` windows are let in, so that the micro-batcher can choose among them. A
    recording stays for long, so half of the places are for single windows only.

        admission = Admission(max_waiting=256, retry_after_s=lambda: batcher.retry_after_s)
        with admission.admit(RequestKind.WINDOW):
            ...
    """

    def __init__(self, max_waiting: int, *, retry_after_s: Callable[[], float]) -> None:
        self.limits = {RequestKind.WINDOW: 2 * max_waiting, RequestKind.RECORDING: max_waiting}
        self.count = 0
        self._retry_after_s = retry_after_s

    @contextmanager
    def admit(self, kind: RequestKind) -> Iterator[None]:
        """Count a request for as long as the `with` lasts.

        Raises:
            Overloaded: as many are there as the kind may see; nothing of the body has been read.
        """
        if self.count >= self.limits[kind]:
            batch_metrics.REFUSED.labels(Overloaded.code).inc()
            raise Overloaded(
                f"{self.count} requests are being read or answered",
                hint="ask again later, or add servers",
                retry_after_s=round(self._retry_after_s(), 1),
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

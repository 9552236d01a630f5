"""How many hours of a batch are labeled."""

from threading import Lock

from k2d.errors import AudioError
from k2d.schema import Batch, Outcome, QuarantineReason
from k2d.store import Lake
from k2d.wording import audio_length


class HoursQuota:
    """Limits the hours of a batch that are labeled: a file of 174 KB can hold 24 hours.

    HoursQuota(lake, batch, 10.0).take(3600.0)

    Counts what has a result when this process begins with the batch, and what this process adds. Workers do not see one
    another's recordings in flight, so that a batch may have as many hours more as others do in their present jobs.
    """

    def __init__(self, lake: Lake, batch: Batch, hours: float) -> None:
        self._lake = lake
        self._batch = batch
        self._hours = hours
        self._taken_s: float | None = None
        self._lock = Lock()

    def take(self, seconds: float) -> None:
        """Count a recording in. Thread-safe.

        Raises:
            AudioError: with `reason` over_quota; it is not counted.
        """
        if not self._hours:
            return
        with self._lock:
            if self._taken_s is None:
                self._taken_s = sum(
                    result.duration_s
                    for result in self._lake.batches.results(self._batch.id)
                    if result.outcome is Outcome.LABELED
                )
            if self._taken_s + seconds > self._hours * 3600:
                raise AudioError(
                    f"The batch has more than {self._hours:g} hours of audio: {audio_length(self._taken_s)} before"
                    f" this recording of {audio_length(seconds)}.",
                    reason=QuarantineReason.OVER_QUOTA,
                    hint="post it in another batch; or raise K2D_MAX_BATCH_HOURS, and retry the batch",
                    duration_s=seconds,
                )
            self._taken_s += seconds

"""Examinations: what decoding a source for the first time told: a recording, or why it is quarantined."""

from dataclasses import dataclass

from k2d.errors import NotFound
from k2d.schema import Recording
from k2d.store.rooted import Rooted, fanned


@dataclass(frozen=True, slots=True)
class Examination:
    """The outcome of examining a source. Exactly one of `recording` and `reason` is set."""

    recording: Recording | None
    reason: str | None  # QuarantineReason
    detail: str | None  # one sentence for a person
    duration_s: float  # of the recording, or what could be decoded of it


class Examinations(Rooted):
    """examinations/ab/<key>.json (probes/ in stores of version 0.1)"""

    def put(self, key: str, examination: Examination) -> None:
        """Store what the source with this key holds."""
        self.write_document(_path(key), examination)

    def get(self, key: str) -> Examination | None:
        """What is known of the source with this key; None when it was never examined."""
        try:
            examination: Examination = self.read_document(self.located(_path(key)), Examination)
        except NotFound:
            return None
        return examination


def _path(key: str) -> str:
    return fanned("examinations", key, ".json")

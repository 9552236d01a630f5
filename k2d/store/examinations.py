"""Examinations: the result of decoding a source for the first time, either a recording or a reason to quarantine it."""

from dataclasses import dataclass

from k2d.errors import DamagedFile, NotFound
from k2d.schema import Recording
from k2d.store.base import LakePart, key_path


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of examining a source. Exactly one of `recording` and `reason` is set."""

    recording: Recording | None
    reason: str | None  # QuarantineReason
    detail: str | None  # one sentence for a person
    duration_s: float  # of the recording, or of the part that could be decoded


class Examinations(LakePart):
    """Examinations by the key of their source: examinations/ab/<key>.json (probes/ in stores of version 0.1).

    lake.examinations.get(source_key)  # None, or Examination(recording=Recording(id='rec_…', …), …)
    """

    def put(self, key: str, examination: Examination) -> None:
        """Store the examination of the source with this key."""
        self.write_document(_path(key), examination)

    def read(self, path: str) -> Examination:
        """Read an examination by its path.

        Raises:
            NotFound, DamagedFile, StoreError
        """
        examination: Examination = self.read_document(path, Examination)
        return examination

    def get(self, key: str) -> Examination | None:
        """Return the examination of the source with this key; None if it was never examined."""
        try:
            return self.read(self.located(_path(key)))
        except (NotFound, DamagedFile):  # a damaged record is made again
            return None


def _path(key: str) -> str:
    return key_path("examinations", key, ".json")

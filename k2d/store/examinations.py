"""What was found when a source was decoded for the first time: a recording, or why it is set aside."""

from dataclasses import dataclass

from k2d.errors import NotFound
from k2d.schema import Recording
from k2d.store.rooted import Rooted, fanned


@dataclass(frozen=True, slots=True)
class Probe:
    """The outcome of examining a source. Exactly one of `recording` and `reason` is set."""

    recording: Recording | None
    reason: str | None  # QuarantineReason
    detail: str | None  # one sentence for a person
    duration_s: float  # of the recording, or what could be decoded of it


class Probes(Rooted):
    """probes/ab/<key>.json"""

    def put_probe(self, key: str, probe: Probe) -> None:
        """Remember what the source with this key holds."""
        self.write_document(fanned("probes", key, ".json"), probe)

    def probe(self, key: str) -> Probe | None:
        """What is known of the source with this key; None when it was never examined."""
        try:
            probe: Probe = self.read_document(fanned("probes", key, ".json"), Probe)
        except NotFound:
            return None
        return probe

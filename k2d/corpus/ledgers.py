"""Ledgers of parts: what a status needs of up to 1,024 recordings, summed up once and stored as one small document.

Sums that depend on the policy are stored for one policy, the default; those of another are computed from the columns.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from k2d.corpus.sweep import salvaged_ms
from k2d.documents import QuarantinedRecording, RecordingNotes, VersionCount
from k2d.filtering.policy import PartColumns, Policy, thresholds
from k2d.keys import RECORDING_ID
from k2d.schema import NoLabel, Outcome, QuarantineReason, RecordingResult, Versions

SHOWN: Final = 100  # quarantined recordings, and recordings with notes, in a status; chosen
_ID_BYTES: Final = 12  # of a recording's id


@dataclass(frozen=True, slots=True)
class KeptSums:
    """Chunks and milliseconds under one policy."""

    accepted: int = 0  # chunks
    salvaged: int = 0
    rejected: int = 0
    accepted_ms: int = 0
    salvaged_ms: int = 0
    rejected_ms: int = 0  # the rest of salvaged chunks included

    def __add__(self, other: "KeptSums") -> "KeptSums":
        return KeptSums(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    @property
    def total_ms(self) -> int:
        """Milliseconds of all chunks."""
        return self.accepted_ms + self.salvaged_ms + self.rejected_ms


class PartLedger(BaseModel):
    """The sums of the recordings of a part that have a result and are in the index."""

    model_config = ConfigDict(frozen=True)

    labeled: int
    quarantined: int
    partial: int  # labeled recordings whose end is quarantined
    unknown_length: int
    input_ms: int
    quarantined_ms: int  # ends of labeled recordings included
    wall_s: float
    quarantined_shown: list[QuarantinedRecording]
    noted: list[RecordingNotes]
    versions: list[VersionCount]
    ids: str  # of the labeled recordings, base64 of 12 bytes each: a batch may have a recording twice
    duplicates: int = 0  # labeled recordings with the same audio as another one; in ledgers of whole batches
    policy: str  # key of the policy of `kept`
    kept: KeptSums
    no_label: NoLabel  # of the recordings of which it was measured

    @property
    def recordings(self) -> int:
        """How many recordings it has."""
        return self.labeled + self.quarantined

    def as_json(self) -> dict[str, Any]:
        """The document as JSON values."""
        return self.model_dump(mode="json")


def part_ledger(results: Sequence[RecordingResult], kept: KeptSums, policy: Policy) -> PartLedger:
    """Sum up the results of a part."""
    quarantined = [result for result in results if result.outcome is Outcome.QUARANTINED]
    labeled = [result for result in results if result.outcome is Outcome.LABELED]
    versions = Counter(result.versions or Versions() for result in labeled)
    return PartLedger(
        labeled=len(labeled),
        quarantined=len(quarantined),
        partial=sum(result.quarantined_s > 0 for result in results),
        unknown_length=sum(_is_unknown_length(result) for result in quarantined),
        input_ms=sum(_ms(result.duration_s) for result in results),
        quarantined_ms=sum(_ms(result.duration_s) for result in quarantined)
        + sum(_ms(result.quarantined_s) for result in results),
        wall_s=sum(result.wall_s for result in results),
        quarantined_shown=[_quarantined(result) for result in quarantined[:SHOWN]],
        noted=[RecordingNotes(recording=r.name, notes=list(r.notes)) for r in results if r.notes][:SHOWN],
        versions=_version_counts(versions),
        ids=_packed([str(result.recording_id) for result in labeled]),
        policy=policy.key,
        kept=kept,
        no_label=sum((result.no_label for result in labeled if result.no_label), NoLabel()),
    )


def join_ledgers(ledgers: Sequence[PartLedger]) -> PartLedger:
    """The sums of several sets of recordings, with what is shown of the first ones. All are under one policy."""
    versions: Counter[Versions] = Counter()
    for ledger in ledgers:
        for count in ledger.versions:
            versions[Versions(**count.model_dump(exclude={"recordings"}))] += count.recordings
    return PartLedger(
        labeled=sum(ledger.labeled for ledger in ledgers),
        quarantined=sum(ledger.quarantined for ledger in ledgers),
        partial=sum(ledger.partial for ledger in ledgers),
        unknown_length=sum(ledger.unknown_length for ledger in ledgers),
        input_ms=sum(ledger.input_ms for ledger in ledgers),
        quarantined_ms=sum(ledger.quarantined_ms for ledger in ledgers),
        wall_s=sum(ledger.wall_s for ledger in ledgers),
        quarantined_shown=[shown for ledger in ledgers for shown in ledger.quarantined_shown][:SHOWN],
        noted=[noted for ledger in ledgers for noted in ledger.noted][:SHOWN],
        versions=_version_counts(versions),
        ids="".join(ledger.ids for ledger in ledgers),  # 12 bytes are 16 characters, without padding
        policy=ledgers[0].policy if ledgers else "",
        kept=sum((ledger.kept for ledger in ledgers), KeptSums()),
        no_label=sum((ledger.no_label for ledger in ledgers), NoLabel()),
    )


def kept_sums(policy: Policy, part: PartColumns) -> KeptSums:
    """What a policy keeps of the chunks of a part; exact."""
    least = thresholds(policy, part, alpha=policy.alpha)
    whole, ms = least.whole(policy.alpha), part.chunks["ms"].astype(np.int64)
    salvaged = salvaged_ms(part.segments, least, policy.alpha)
    accepted, partly = int(np.count_nonzero(whole)), int(np.count_nonzero(salvaged))
    accepted_ms, partly_ms = int(ms[whole].sum()), int(salvaged.sum())
    return KeptSums(
        accepted, partly, len(ms) - accepted - partly, accepted_ms, partly_ms, int(ms.sum()) - accepted_ms - partly_ms
    )


def batch_ledger(ledgers: Sequence[PartLedger]) -> PartLedger:
    """The ledger of a whole batch: that of its parts, with the duplicates counted instead of the ids."""
    joined = join_ledgers(ledgers)
    return joined.model_copy(update={"duplicates": _duplicates(joined), "ids": ""})


def _duplicates(ledger: PartLedger) -> int:
    ids = np.frombuffer(base64.b64decode(ledger.ids), np.uint32).reshape(-1, _ID_BYTES // 4)
    return len(ids) - len(np.unique(ids, axis=0)) if len(ids) else 0


def _version_counts(versions: Mapping[Versions, int]) -> list[VersionCount]:
    return [VersionCount(**asdict(key), recordings=count) for key, count in sorted(versions.items())]


def _packed(ids: Sequence[str]) -> str:
    return base64.b64encode(b"".join(map(_id_bytes, ids))).decode()


def _id_bytes(recording_id: str) -> bytes:
    if RECORDING_ID.fullmatch(recording_id):
        return bytes.fromhex(recording_id.removeprefix("rec_"))
    return recording_id.encode()[-_ID_BYTES:].rjust(_ID_BYTES, b"\0")  # not one of k2d's ids, in a store of tests


def _is_unknown_length(result: RecordingResult) -> bool:
    return not result.duration_s and result.reason != QuarantineReason.TOO_SHORT


def _quarantined(result: RecordingResult) -> QuarantinedRecording:
    return QuarantinedRecording(
        recording=result.name, reason=result.reason, detail=result.detail, duration_s=result.duration_s
    )


def _values(sums: KeptSums) -> tuple[int, ...]:
    return (
        sums.accepted,
        sums.salvaged,
        sums.rejected,
        sums.accepted_ms,
        sums.salvaged_ms,
        sums.rejected_ms,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

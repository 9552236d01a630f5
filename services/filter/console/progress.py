"""How far a batch is: the ledger as a bar that sums to 100 %, and speed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from k2d.corpus.views import pending_s
from k2d.documents import BatchStatus, LedgerSeconds
from k2d.store.manifest import DatasetSeconds

BAR: Final = 1000.0  # units of the bar's width
NO_LABEL: Final = "no label"


@dataclass(frozen=True, slots=True)
class LedgerPart:
    """One outcome's part of the bar; `tenths` of per cent, over all parts exactly 1000."""

    name: str  # as people see it
    kind: str  # the CSS class of its colour
    seconds: float | None  # None: not known
    tenths: int
    start: float  # in units of BAR
    width: float

    @property
    def share(self) -> str:
        return share_of(self)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """What a page says of a batch. None: not known yet."""

    total_s: float | None  # audio of the whole batch; estimated while recordings are pending
    finished_s: float  # labeled and validated, or quarantined
    in_flight_s: float  # transcribed, in recordings that are not finished
    pending_s: float | None
    real_time: float | None  # of all workers that have jobs of this batch
    bar: tuple[LedgerPart, ...]


def progress_of(status: BatchStatus) -> BatchProgress:
    """Derive a batch's progress from its status."""
    seconds, jobs = status.ledger.seconds, status.jobs
    left_s = pending_s(status.ledger, jobs)
    return BatchProgress(
        total_s=None if left_s is None else seconds.input + left_s,
        finished_s=seconds.input,
        in_flight_s=jobs.seconds_in_flight if jobs else 0.0,
        pending_s=left_s,
        real_time=jobs.times_real_time if jobs and jobs.jobs_running else None,
        bar=ledger_bar(seconds, left_s),
    )


def ledger_bar(seconds: LedgerSeconds | DatasetSeconds, pending_s: float | None) -> tuple[LedgerPart, ...]:
    """The ledger with what is pending as parts of a bar. Where nothing has a length, all of it is pending.

    sum(part.tenths for part in ledger_bar(seconds, 60.0)) == 1000
    """
    values = [
        ("accepted", seconds.accepted),
        ("salvaged", seconds.salvaged),
        ("rejected", seconds.rejected),
        (NO_LABEL, seconds.silence),
        ("quarantined", seconds.quarantined),
        ("pending", pending_s),
    ]
    weights = [max(0.0, value or 0.0) for _, value in values]
    if not sum(weights):
        weights = [0.0] * (len(values) - 1) + [1.0]
    total, at, parts = sum(weights), 0.0, []
    for (name, value), weight, tenths in zip(values, weights, rounded_shares(weights, 1000), strict=True):
        width = BAR * weight / total
        parts.append(LedgerPart(name, "unlabeled" if name == NO_LABEL else name, value, tenths, at, width))
        at += width
    return tuple(parts)


def share_of(*parts: LedgerPart) -> str:
    """The share of some parts together, as the bar has it: the sum of what is shown of each."""
    return f"{sum(part.tenths for part in parts) / 10:.1f} %"


def rounded_shares(weights: Sequence[float], whole: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `whole`: largest remainders get the rest.

    rounded_shares([1, 1, 1], 100) == [34, 33, 33]
    """
    total = sum(weights)
    exact = [whole * weight / total for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (shares[place] - exact[place], place))
    for place in by_remainder[: whole - sum(shares)]:
        shares[place] += 1
    return shares

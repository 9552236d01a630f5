"""Estimates the cost of a batch before it runs: hours, windows, seconds, and what the estimate is based on."""

from collections.abc import Iterable
from typing import Final

from k2d.documents import Forecast
from k2d.store import Lake

# Average distance between two windows: Whisper seeks to the last timestamp, a little less than 30 s. An estimate.
WINDOW_ADVANCE_S: Final = 27.0
# Speed (× real time) of labeling and validation before any was measured: about that of Whisper base in int8 with the
# perturbed validator on 2 cores. Large models on a GPU differ; the first finished batch replaces it.
ASSUMED_SPEED: Final = 2.0
RECENT: Final = 200  # number of results for the measured speed


def forecast(durations_s: Iterable[float | None], lake: Lake, *, workers: int = 1) -> Forecast:
    """Estimate the cost of a batch.

        forecast([61.3, None, 3600.0], lake).hours

    Args:
        durations_s: of the recordings, by their headers; an unknown one (None) counts as the mean of the others.
        lake: whose finished batches give the speed.
    """
    durations = list(durations_s)
    known = [duration for duration in durations if duration is not None]
    mean = sum(known) / len(known) if known else 0.0
    total = sum(known) + mean * (len(durations) - len(known))
    windows = sum(max(1, round(duration / WINDOW_ADVANCE_S + 0.49)) for duration in known)
    speed, basis = measured_speed(lake)
    return Forecast(
        recordings=len(durations),
        unknown=len(durations) - len(known),
        hours=round(total / 3600, 4),
        windows=windows,
        estimated_s=round(total / speed / max(1, workers), 1),
        basis=f"{speed:.1f} × real time with {workers} worker{'s' if workers != 1 else ''}: {basis}",
    )


def measured_speed(lake: Lake) -> tuple[float, str]:
    """The speed (× real time) of the latest batch with enough results, and a phrase that names it."""
    for batch in lake.batches.all():
        finished = [r for _, r in zip(range(RECENT), lake.batches.results(batch.id), strict=False) if r.wall_s > 0.05]
        seconds = sum(r.duration_s - r.quarantined_s for r in finished)
        spent = sum(r.wall_s for r in finished)
        if seconds > 30:
            return max(0.1, seconds / spent), f"measured on {len(finished)} recordings of batch {batch.name}"
    return ASSUMED_SPEED, "assumed (Whisper base int8 on 2 cores); nothing has been labeled in this store yet"

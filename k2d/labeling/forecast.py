"""Estimates what a batch will cost before it runs: hours, windows, seconds, and what the estimate is based on."""

from collections.abc import Iterable

from k2d.documents import Forecast
from k2d.store import Lake

# Seconds a window moves forward on average: Whisper seeks to its last timestamp, a little short of 30. An estimate.
WINDOW_ADVANCE_S = 27.0
# × real time of the whole walk (teacher and validator) where nothing was measured yet: about what Whisper base in int8
# with the perturbed validator does on 2 cores. Large models on a GPU differ; the first finished batch replaces it.
ASSUMED_SPEED = 2.0
RECENT = 200  # results looked at for the measured speed


def forecast(durations_s: Iterable[float | None], lake: Lake, *, workers: int = 1) -> Forecast:
    """Estimate a batch from its recordings' header durations (None where unknown, counted as the mean of the rest)."""
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
    """× real time of the latest finished batches in this lake, and a phrase that says so."""
    for batch in lake.batches.all():
        done = [r for _, r in zip(range(RECENT), lake.batches.results(batch.id), strict=False) if r.wall_s > 0.05]
        seconds = sum(r.duration_s for r in done)
        spent = sum(r.wall_s for r in done)
        if seconds > 30:
            return max(0.1, seconds / spent), f"measured on {len(done)} recordings of batch {batch.name}"
    return ASSUMED_SPEED, "assumed (Whisper base int8 on 2 cores); nothing has been labeled in this store yet"

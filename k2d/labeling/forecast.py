"""Estimates the cost of a batch before it runs: hours, windows, seconds, and what the estimate is based on."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.documents import Forecast
from k2d.errors import AudioError, DamagedFile
from k2d.schema import Batch, RecordingResult
from k2d.store import Lake
from k2d.wording import counted

# Average distance between two windows: Whisper seeks to the last timestamp, a little less than 30 s. An estimate.
WINDOW_ADVANCE_S: Final = 27.0
# Speed (× real time) of labeling and validation that is assumed where none was measured: about that of Whisper base in
# int8 with the perturbed validator on 2 cores. Large models on a GPU differ; the first finished batch replaces it.
ASSUMED_SPEED: Final = 2.0
RECENT: Final = 200  # number of results for the measured speed


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says."""

    name: str
    is_audio: bool
    duration_s: float | None = None  # None if the header does not state it


def probe_header(name: str, open_: Callable[[], BinaryIO], limits: DecodeLimits) -> Header:
    """Read the header of a file, in a process of its own. Nothing is decoded.

    probe_header("talk.m4a", lambda: open("talk.m4a", "rb"), DecodeLimits.of(settings))
    """
    try:
        with open_() as file:
            duration_s = isolated.probe_duration_s(file, limits=limits)
            file.seek(0)
            is_audio = duration_s is not None or isolated.probe_channels(file, limits=limits) is not None
            return Header(name, is_audio, duration_s)
    except (AudioError, OSError):
        return Header(name, False)


def forecast(headers: Iterable[Header], lake: Lake, batch: Batch, *, workers: int = 1) -> Forecast:
    """Estimate the cost of a batch.

        forecast([probe_header(path, open_)], lake, batch).hours

    Args:
        headers: of the files; a recording of unknown length counts as the mean of the others.
        lake: whose finished batches give the speed.
        batch: whose teacher and validator the speed is looked for.
    """
    files = list(headers)
    durations = [header.duration_s for header in files if header.is_audio]
    known = [duration for duration in durations if duration is not None]
    mean = sum(known) / len(known) if known else 0.0
    total = sum(known) + mean * (len(durations) - len(known))
    windows = sum(max(1, round(duration / WINDOW_ADVANCE_S + 0.49)) for duration in known)
    speed, basis = measured_speed(lake, batch)
    return Forecast(
        recordings=len(files),
        unknown=len(files) - len(known),
        not_audio=[header.name for header in files if not header.is_audio],
        hours=round(total / 3600, 4),
        windows=windows,
        estimated_s=round(total / speed / max(1, workers), 1),
        basis=f"{speed:.1f} × real time with {counted(workers, 'worker')}: {basis}",
    )


def measured_speed(lake: Lake, batch: Batch) -> tuple[float, str]:
    """The speed (× real time) of the latest batch with this teacher and validator that has enough results, and a phrase
    that names it; else the assumed speed, and that it is assumed."""
    for earlier in lake.batches.all():
        if (earlier.teacher, earlier.validator) != (batch.teacher, batch.validator):
            continue
        finished: list[RecordingResult] = []
        with suppress(DamagedFile):  # it is of no concern here
            results = islice(lake.batches.results(earlier.id), RECENT)
            finished += (result for result in results if result.wall_s > 0.05)
        seconds = sum(r.duration_s - r.quarantined_s for r in finished)
        spent = sum(r.wall_s for r in finished)
        if seconds > 30:
            measured = f"measured on {counted(len(finished), 'recording')} of batch {earlier.name}"
            return max(0.1, seconds / spent), measured
    return ASSUMED_SPEED, (
        f"assumed, as of Whisper base int8 on 2 cores; this store has not measured teacher {batch.teacher} with "
        f"validator {batch.validator} yet"
    )

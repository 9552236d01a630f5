"""Estimates the cost of a batch before it runs: hours, what of it is new, seconds, and what that is based on."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, Final

from k2d.audio import isolated
from k2d.audio.examine import lacks_channel
from k2d.audio.isolated import DecodeLimits
from k2d.corpus.index import results
from k2d.corpus.time_left import LABEL_SHARE
from k2d.documents import Forecast
from k2d.errors import AudioError, DamagedFile, NotFound
from k2d.schema import Batch, Outcome, RecordingResult, Source
from k2d.store import Lake
from k2d.store.batches import options_of
from k2d.wording import counted

# Average distance between two windows: Whisper seeks to the last timestamp, a little less than 30 s. An estimate.
WINDOW_ADVANCE_S: Final = 27.0
RECENT: Final = 200  # number of results for the measured speed
LEAST_WALL_S: Final = 0.05  # no model works for less; older results do not say whether one did
# options that change the work on a second of audio; a batch that has others of these is a worse measure than one alike
SPEED_OPTIONS: Final = ("beam_size", "rescore", "vad", "condition_on_previous_text")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says."""

    name: str
    is_audio: bool
    duration_s: float | None = None  # None if the header does not state it
    channels: int | None = None  # looked at only where one is asked for


def probe_header(
    name: str, open_: Callable[[], BinaryIO], limits: DecodeLimits, *, counts_channels: bool = False
) -> Header:
    """Read the header of a file, in a process of its own. Nothing is decoded.

    probe_header("talk.m4a", lambda: open("talk.m4a", "rb"), DecodeLimits.of(settings))
    """
    try:
        with open_() as file:
            duration_s = isolated.probe_duration_s(file, limits=limits)
            file.seek(0)
            looks = counts_channels or duration_s is None
            channels = isolated.probe_channels(file, limits=limits) if looks else None
            return Header(name, duration_s is not None or channels is not None, duration_s, channels)
    except (AudioError, OSError):
        return Header(name, False)


def forecast(
    files: Iterable[Source],
    lake: Lake,
    batch: Batch,
    *,
    header_of: Callable[[Source], Header],
    workers: int = 1,
    unread: int = 0,
) -> Forecast:
    """Estimate the cost of labeling files.

        forecast(batch.sources, lake, batch, header_of=lambda source: probe_header(source.name, open_)).hours

    Args:
        files: a recording of unknown length counts as the mean of the others.
        lake: whose batches give the speed, and say what is labeled already.
        batch: whose models and options they are labeled with.
        header_of: called for what is not labeled already.
        unread: how many of the files have no key of their content, so that nobody knows what is there of them.
    """
    known = known_work(lake, batch)
    sources = list(files)
    works = [known.get(source.key) for source in sources]
    headers = [
        header_of(source) if work is None else Header(source.name, True, work.duration_s)
        for source, work in zip(sources, works, strict=True)
    ]
    channel = batch.audio.channel or 0
    no_channel = {h.name: lacks_channel(h.channels, channel) for h in headers if h.channels and h.channels < channel}
    headers = [replace(h, is_audio=False) if h.channels and h.channels < channel else h for h in headers]
    durations = [header.duration_s for header in headers if header.is_audio and header.duration_s is not None]
    mean = sum(durations) / len(durations) if durations else 0.0
    lengths = [(mean if h.duration_s is None else h.duration_s) if h.is_audio else 0.0 for h in headers]
    to_work_s = sum(length * (1.0 if work is None else work.left) for length, work in zip(lengths, works, strict=True))
    new = [h.duration_s for h, work in zip(headers, works, strict=True) if work is None and h.is_audio]
    done = [work.duration_s for work in works if work is not None and not work.left]
    speed = measured_speed(lake, batch)
    return Forecast(
        recordings=len(headers),
        unknown=len(headers) - len(durations),
        not_audio=[header.name for header in headers if not header.is_audio and not header.channels],
        no_channel=no_channel,
        done=len(done),
        done_hours=round(sum(done) / 3600, 6),
        labeled=sum(work is not None and work.left > 0 for work in works),
        at_most=bool(unread and known),
        hours=round(sum(lengths) / 3600, 6),
        windows=sum(max(1, round((mean if s is None else s) / WINDOW_ADVANCE_S + 0.49)) for s in new),
        estimated_s=None if speed is None else round(to_work_s / speed.times_real_time / max(1, workers), 1),
        basis=_unmeasured(batch) if speed is None else speed.basis(workers),
    )


@dataclass(frozen=True, slots=True)
class KnownWork:
    """A recording whose labels are in the lake."""

    duration_s: float
    left: float  # share of the work that is left: 0.0, or that of validators


def known_work(lake: Lake, batch: Batch) -> dict[str, KnownWork]:
    """What is there of the recordings that batches of this lake have, with the models and options of a batch, by the
    key of the source. Models count as the same that have the same name."""
    known: dict[str, KnownWork] = {}
    for other in lake.batches.all():
        if (other.teacher, other.options, other.audio) != (batch.teacher, batch.options, batch.audio):
            continue
        left = 0.0 if other.validator == batch.validator else 1 - LABEL_SHARE
        with suppress(DamagedFile):  # it is of no concern here
            for result in results(lake, other):
                # what is quarantined is tried again in another batch
                if result.outcome is Outcome.LABELED or other.id == batch.id:
                    key = other.sources[result.position].key
                    if key not in known or left < known[key].left:
                        known[key] = KnownWork(result.duration_s, left)
    return known


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """The speed of labeling and validation of an earlier batch with the same teacher and validators."""

    times_real_time: float  # of one worker
    recordings: int
    batch: Batch
    machine: str | None  # engine, precision and device of the teacher; None if no label says it
    other_options: tuple[str, ...] = ()  # SPEED_OPTIONS in which the batch differs, each with its value

    def basis(self, workers: int) -> str:
        """What the speed is and was measured with, as a phrase."""
        machine = f" ({self.machine})" if self.machine else ""
        other = f"; it was labeled with {', '.join(self.other_options)}" if self.other_options else ""
        return (
            f"{self.times_real_time:.1f} × real time with {counted(workers, 'worker')}: measured on "
            f"{counted(self.recordings, 'recording')} of batch {self.batch.name}, teacher "
            f"{self.batch.teacher}{machine}, validator {self.batch.validator}{other}"
        )


def measured_speed(lake: Lake, batch: Batch) -> MeasuredSpeed | None:
    """The speed of the latest batch with this teacher and validator that has enough results; None if there is none.

    A batch with the same SPEED_OPTIONS is preferred to a later one with others. Other models say nothing: a large model
    is ten times slower than a small one.
    """
    best: MeasuredSpeed | None = None
    asked = options_of(batch)
    for earlier in lake.batches.all():
        if (earlier.teacher, earlier.validator) != (batch.teacher, batch.validator):
            continue
        had = options_of(earlier)
        other = tuple(f"{name} {had[name]}" for name in SPEED_OPTIONS if had[name] != asked[name])
        if other and best is not None:
            continue
        speed = _speed_of(lake, earlier, other)
        if speed is not None and not other:
            return speed
        best = best or speed
    return best


def _speed_of(lake: Lake, batch: Batch, other_options: tuple[str, ...]) -> MeasuredSpeed | None:
    finished: list[RecordingResult] = []
    with suppress(DamagedFile):  # it is of no concern here
        finished += islice(filter(_is_measure, lake.batches.results(batch.id)), RECENT)
    seconds = sum(r.duration_s - r.quarantined_s if r.worked_s is None else r.worked_s for r in finished)
    spent = sum(result.wall_s for result in finished)
    if seconds <= 30:
        return None
    machine = next((_machine(lake, r.label_key) for r in finished if r.label_key), None)
    return MeasuredSpeed(max(0.1, seconds / spent), len(finished), batch, machine, other_options)


def _is_measure(result: RecordingResult) -> bool:
    """Whether models worked on most of a recording. Where only validation was left it is none: the share of that in the
    work is assumed."""
    if result.wall_s <= LEAST_WALL_S:
        return False
    return result.worked_s is None or result.worked_s > (result.duration_s - result.quarantined_s) / 2


def _machine(lake: Lake, label_key: str) -> str | None:
    with suppress(DamagedFile, NotFound):
        teacher = lake.labels.meta(label_key).get("teacher")
        if isinstance(teacher, dict) and "device" in teacher:
            return f"{teacher['engine']} {teacher['compute_type']} on {teacher['device']}"
    return None


def _unmeasured(batch: Batch) -> str:
    return (
        f"no time can be estimated: this store has not measured teacher {batch.teacher} with validator "
        f"{batch.validator}; label a few minutes of audio with them first"
    )

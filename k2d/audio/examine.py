"""Examines a file: decodes it once from end to end, hashes its samples, and decides whether it can be labeled."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from k2d.audio.channels import ChannelSurvey
from k2d.audio.decode import Findings, decode
from k2d.audio.media import AudioFile, Media
from k2d.audio.timeline import LIVE_CLOCK_S
from k2d.errors import AudioError
from k2d.keys import recording_id
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Recording, Samples
from k2d.wording import counted

# Reasons for which a recording can be kept in part: what is before the damage is as it was recorded.
_PARTIAL: Final = (QuarantineReason.TRUNCATED, QuarantineReason.DAMAGED)

# Sound moves: in a tenth of a second of it more than a tenth of the samples differ from the one before. Chosen: of a
# step of a constant level a resampler makes about a hundred moving samples.
_STILL_SAMPLES: Final = SAMPLE_RATE_HZ // 10
_MOVING_SHARE: Final = 0.1
_STILL_S: Final = 30.0  # seconds of a recording for which this is worth looking: one window costs little


@dataclass(slots=True)
class _Measurement:
    """What a pass over the samples finds."""

    samples: int = 0
    peak: int = 0
    swing: int = 0  # see _swing
    paused_s: float = 0.0
    source_format: str = ""
    notes: list[str] = field(default_factory=list)  # for the reader, one sentence each
    survey: ChannelSurvey = field(default_factory=ChannelSurvey)
    damage: AudioError | None = None
    digest: str = ""


def examine(
    file: AudioFile,
    *,
    min_s: float,
    max_s: float,
    silence_peak: float,
    channel: int | None = None,
    keep_partial: bool = False,
    on_progress: Callable[[float], object] = lambda _: None,
) -> Recording:
    """Decode a file and return its length, peak and id, a SHA-256 over the little-endian int16 samples.

        examine("talk.m4a", min_s=0.1, max_s=86_400.0, silence_peak=0.001).duration_s

    Equal samples have an equal id, whatever lossless format the file has. The samples are the mean of the channels,
    except silent ones; where that would cancel (opposite phase), those of the loudest channel. `Recording.channels`
    says which, for `SampleReader`.

    Args:
        file: a path, or a seekable binary file, which is not closed.
        min_s: shorter recordings are refused.
        max_s: longer recordings are refused.
        silence_peak: recordings whose largest |sample| (0…1) is below this are refused; such channels are left out.
        channel: take this channel alone, counted from 1.
        keep_partial: of a truncated or damaged file, take what is before the damage; the rest is in `quarantined_s`.
        on_progress: called with the seconds of each block that was decoded, of each pass.

    Raises:
        AudioError: with `reason` not_audio, truncated, damaged, too_short, too_long, silent, no_channel or unreadable,
            and `details["duration_s"]`, the seconds decoded so far (for too_long: as the header declares, if it does).
    """
    selection: tuple[int, ...] = () if channel is None else (channel,)
    measure = partial(_measure, file, max_s=max_s, silence_peak=silence_peak, on_progress=on_progress)
    measured = measure(selection, keep_partial=keep_partial)
    if channel is None and (selection := measured.survey.selection(silence_peak)):
        notes = measured.notes
        measured = measure(selection, keep_partial=keep_partial)
        measured.notes = notes
    damage, quarantined_s = measured.damage, 0.0
    duration_s = round(measured.samples / SAMPLE_RATE_HZ, 3)
    if damage is not None:
        total_s = round(float(damage.details["total_s"]), 3)
        stop = min(int(float(damage.details["intact_s"]) * SAMPLE_RATE_HZ), measured.samples)
        if stop < max(1.0, min_s * SAMPLE_RATE_HZ):
            raise damage  # nothing before the damage is long enough
        notes = measured.notes
        measured = measure(selection, stop=stop)
        duration_s = round(stop / SAMPLE_RATE_HZ, 3)
        quarantined_s = round(max(0.0, total_s - duration_s), 3)
        measured.notes = [*notes, f"Labeled in part, up to {duration_s:.1f} s. {damage.message}"]
    if measured.samples < min_s * SAMPLE_RATE_HZ or not measured.samples:
        raise AudioError(
            f"The recording lasts {duration_s:.3f} s; the minimum is {min_s:g} s.",
            reason=QuarantineReason.TOO_SHORT,
            hint="leave it out, or lower K2D_MIN_RECORDING_S",
            duration_s=duration_s,
        )
    if measured.peak < silence_peak * 2**15:
        level = f"{20 * np.log10(measured.peak / 2**15):.0f} dB" if measured.peak else "digital silence"
        subject = "The recording" if channel is None else f"Channel {channel} of the recording"
        raise AudioError(
            f"{subject} is silent: its loudest sample is at {level}.",
            reason=QuarantineReason.SILENT,
            hint="check the microphone or the channel; K2D_SILENCE_PEAK is the threshold",
            duration_s=duration_s,
        )
    if measured.swing < silence_peak * 2**15 and duration_s >= _STILL_S:
        raise AudioError(
            "The recording holds no sound: its samples stand still.",
            reason=QuarantineReason.SILENT,
            hint="a microphone that is off may give a constant level",
            duration_s=duration_s,
        )
    return Recording(
        id=recording_id(measured.digest),
        duration_s=duration_s,
        samples=measured.samples,
        peak=round(measured.peak / 2**15, 6),
        source_format=measured.source_format,
        channels=selection,
        paused_s=round(measured.paused_s, 3),
        quarantined_s=quarantined_s,
        quarantine_reason=None if damage is None else damage.reason,
        notes=tuple(measured.notes),
    )


def probe_duration_s(file: AudioFile) -> float | None:
    """The duration that the header states or FFmpeg estimates, without decoding; None if it is unknown.

    For forecasts only: an estimate from the bit rate may be far off, and a truncated file declares its full length.
    """
    try:
        with Media(file) as media:
            return media.duration_s
    except AudioError:
        return None


def probe_channels(file: AudioFile) -> int | None:
    """The number of channels that the header declares, without decoding; None if the file cannot be opened."""
    try:
        with Media(file) as media:
            return media.channels
    except AudioError:
        return None


def _measure(
    file: AudioFile,
    selection: tuple[int, ...],
    *,
    max_s: float,
    silence_peak: float,
    on_progress: Callable[[float], object],
    keep_partial: bool = False,
    stop: int | None = None,
) -> _Measurement:
    """Decode a file, up to the sample `stop` where it is given. Damage is raised, or with `keep_partial` returned."""
    measured = _Measurement()
    findings = Findings(survey=measured.survey, silence_peak=silence_peak)
    digest = hashlib.sha256()
    with Media(file) as media:
        if media.states_length and (media.duration_s or 0.0) > max_s:
            raise _too_long(media.duration_s or 0.0, max_s)  # the header is reliable: no need to decode
        _check_channels(media, selection)
        try:
            for block in decode(media, channels=selection, findings=findings):
                on_progress(len(block) / SAMPLE_RATE_HZ)
                samples = block if stop is None else block[: stop - measured.samples]
                digest.update(samples.astype("<i2", copy=False).tobytes())
                measured.samples += len(samples)
                measured.peak = max(measured.peak, int(samples.max()), -int(samples.min()))
                measured.swing = max(measured.swing, _swing(samples))
                if measured.samples > max_s * SAMPLE_RATE_HZ:
                    raise _too_long(measured.samples / SAMPLE_RATE_HZ, max_s)
                if measured.samples == stop:
                    break
        except AudioError as error:
            if not keep_partial or error.reason not in _PARTIAL:
                raise
            measured.damage = error
        measured.source_format = media.source_format
        measured.notes = _notes(media, findings)
        measured.paused_s = findings.paused_s
    if not selection:
        measured.notes += measured.survey.notes(silence_peak)
    measured.digest = digest.hexdigest()
    return measured


def _swing(samples: Samples) -> int:
    """The largest difference between two samples of one tenth of a second in which the samples move.

    A constant level, or one that steps now and then, is no sound, however far from zero; a few kilobytes may hold a day
    of it.
    """
    count = -(-len(samples) // _STILL_SAMPLES)
    if not count:
        return 0
    windows = np.pad(samples, (0, count * _STILL_SAMPLES - len(samples)), mode="edge").reshape(count, _STILL_SAMPLES)
    moving = np.count_nonzero(windows[:, 1:] != windows[:, :-1], axis=1) >= _MOVING_SHARE * _STILL_SAMPLES
    swings = windows.max(axis=1).astype(np.int32) - windows.min(axis=1)
    return int(swings[moving].max(initial=0))


def lacks_channel(channels: int, asked: int) -> str:
    """What is said of a file that has fewer channels than the one asked for."""
    return f"The file has {counted(channels, 'channel')}; channel {asked} was asked for."


def _check_channels(media: Media, selection: tuple[int, ...]) -> None:
    if selection and media.channels and max(selection) > media.channels:
        raise AudioError(
            lacks_channel(media.channels, max(selection)),
            reason=QuarantineReason.NO_CHANNEL,
            hint="name another one in --channels, or use `mix`",
            duration_s=0.0,
        )


def _notes(media: Media, findings: Findings) -> list[str]:
    """What was decided about tracks and time, for the reader; nothing for most files."""
    notes = []
    if media.tracks > 1:
        notes.append(f"Track {media.track} of {media.tracks} is labeled: {media.track_choice}.")
    if findings.origin_s >= LIVE_CLOCK_S:
        notes.append(f"The file's clock begins at {_clock(findings.origin_s)}: times count from its first packet.")
    if findings.clock_settings:
        notes.append(f"The file's clock was set {findings.clock_settings} times: its parts follow without pauses.")
    if findings.links > 1:
        notes.append(f"The file has {findings.links} parts, one behind the other (chained Ogg).")
    return notes


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _too_long(duration_s: float, max_s: float) -> AudioError:
    return AudioError(
        f"The recording is longer than {max_s:g} s, the maximum.",
        reason=QuarantineReason.TOO_LONG,
        hint="split it, or raise K2D_MAX_RECORDING_S",
        duration_s=round(duration_s, 3),
    )

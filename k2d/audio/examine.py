"""Examines a file: decodes it once from end to end, hashes its samples, and decides whether it can be labeled."""

import hashlib

import numpy as np

from k2d.audio.decode import decode
from k2d.audio.media import AudioFile, Media
from k2d.errors import AudioError
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Recording


def examine(file: AudioFile, *, min_s: float, max_s: float, silence_peak: float) -> Recording:
    """Decode a file once and return its length, peak and id, a SHA-256 over the little-endian int16 samples.

        examine("talk.m4a", min_s=0.1, max_s=86_400.0, silence_peak=0.001).duration_s

    Equal samples have an equal id, whatever lossless format the file has.

    Args:
        file: a path, or a seekable binary file, which is not closed.
        min_s: shorter recordings are refused.
        max_s: longer recordings are refused.
        silence_peak: recordings whose largest |sample| (0…1) is below this are refused.

    Raises:
        AudioError: with `reason` not_audio, truncated, damaged, too_short, too_long, silent or unreadable, and
            `details["duration_s"]`, the seconds decoded so far (for too_long: as the header declares, if it does).
    """
    with Media(file) as media:
        if media.tolerance_s is not None and (media.duration_s or 0.0) > max_s and not media.missing_bytes:
            raise _too_long(media.duration_s or 0.0, max_s)  # the header is reliable: no need to decode
        digest = hashlib.sha256()
        samples, peak = 0, 0
        for block in decode(media):
            digest.update(block.astype("<i2", copy=False).tobytes())
            samples += len(block)
            peak = max(peak, int(block.max()), -int(block.min()))
            if samples > max_s * SAMPLE_RATE_HZ:
                raise _too_long(samples / SAMPLE_RATE_HZ, max_s)
        source_format = media.source_format
    duration_s = round(samples / SAMPLE_RATE_HZ, 3)
    if samples < min_s * SAMPLE_RATE_HZ or not samples:
        raise AudioError(
            f"The recording lasts {duration_s:.3f} s; the minimum is {min_s:g} s.",
            reason=QuarantineReason.TOO_SHORT,
            hint="leave it out, or lower K2D_MIN_RECORDING_S",
            duration_s=duration_s,
        )
    if peak < silence_peak * 2**15:
        level = f"{20 * np.log10(peak / 2**15):.0f} dB" if peak else "digital silence"
        raise AudioError(
            f"The recording is silent: its loudest sample is at {level}.",
            reason=QuarantineReason.SILENT,
            hint="check the microphone or the channel; K2D_SILENCE_PEAK is the threshold",
            duration_s=duration_s,
        )
    return Recording(
        id=f"rec_{digest.hexdigest()[:24]}",
        duration_s=duration_s,
        samples=samples,
        peak=round(peak / 2**15, 6),
        source_format=source_format,
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


def _too_long(duration_s: float, max_s: float) -> AudioError:
    return AudioError(
        f"The recording is longer than {max_s:g} s, the maximum.",
        reason=QuarantineReason.TOO_LONG,
        hint="split it, or raise K2D_MAX_RECORDING_S",
        duration_s=round(duration_s, 3),
    )

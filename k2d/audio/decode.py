"""Decodes a media file to 16 kHz mono int16, as a stream, and checks that none of it is missing or damaged."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

import av
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from k2d.audio.media import FORMAT_HINT, AudioFile, Media
from k2d.errors import AudioError
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Samples

_RATES_HZ: Final = (1_000, 1_536_000)  # sample rates outside this range only occur in damaged headers
_BLOCK_S: Final = 1.0  # decoders give frames of 20–90 ms; resampling them one by one costs more than decoding
# undecodable packets accepted at the start: a stream that was recorded from its middle begins inside a frame
_JOINED_PACKETS: Final = 8
_CUT_PACKETS: Final = 2  # so many undecodable packets at the very end, or fewer, mean truncation; more mean damage
# full scale of FFmpeg's integer sample formats
_INT_SCALE: Final = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}
_TAGS: Final = (b"ID3", b"TAG", b"APE", b"LYR")  # how tags begin; in concatenated files they also occur in the middle
# Formats without an index, where FFmpeg takes a tag for a packet: mask and value of a real frame's second byte (the
# first is 0xFF)
_SYNC: Final = {"mp3": (0xE0, 0xE0), "aac": (0xF6, 0xF0)}

Mono = npt.NDArray[np.float32]  # shape (n,), full scale ±1


@dataclass(slots=True)
class _DecodeStats:
    """What has been decoded so far, and what could not be."""

    decoded_s: float = 0.0
    end_s: float = 0.0  # end of the last frame by its own timestamp
    failed_at_start: int = 0  # packets that failed before the first frame
    failed_at_end: int = 0  # packets that failed since the last frame
    damaged_at_s: float | None = None  # position of the first failure with audio before and after it
    last_failed: bytes = b""  # first bytes of the last packet that failed


@dataclass(frozen=True, slots=True)
class _FrameFormat:
    """The properties that frames must share to be concatenated."""

    rate_hz: int
    format: str  # FFmpeg's sample format, such as "s16" (packed) or "fltp" (planar)
    channels: int


def blocks(file: AudioFile) -> Generator[Samples, None, None]:
    """Decode a file to 16 kHz mono samples, about a second at a time, in memory that does not grow.

        with open("talk.m4a", "rb") as file:
            for block in blocks(file):  # int16, shape (n,)
                print(len(block) / 16_000, "s")

    Channels are averaged in float32, resampled by soxr (HQ), rounded and clipped to int16; the same file gives the same
    samples. Gaps in a container's timestamps are not filled in. Closing the iterator early frees all resources.

    Args:
        file: a path, or a seekable binary file, which is not closed.

    Raises:
        AudioError: with `reason` not_audio or unreadable, before any block; damaged, where samples are not finite;
            truncated or damaged, after the last block that could be decoded. `details["duration_s"]` is the length of
            what was decoded.
    """
    with Media(file) as media:
        yield from decode(media)


def decode(media: Media) -> Iterator[Samples]:
    """Decode an open file; blocks and errors as of `blocks`."""
    stats = _DecodeStats()
    samples = 0
    try:
        for block in _resampled(_frames(media, stats)):
            samples += len(block)
            yield block
        _check_complete(media, stats)
    except AudioError as error:
        error.details["duration_s"] = round(samples / SAMPLE_RATE_HZ, 3)
        raise


def _frames(media: Media, stats: _DecodeStats) -> Iterator[AudioFrame]:
    """Decode frames. Failures are counted in `stats`, not raised, so that all audio that can be decoded is."""
    start = media.stream.start_time or 0
    tick_s = float(media.stream.time_base or 0)
    for packet in _packets(media, stats):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            failed = bytes(packet)[:4]
            if not failed or (media.format in _SYNC and failed[:3] in _TAGS):  # the flush at the end; a tag
                continue
            if not stats.decoded_s:
                stats.failed_at_start += 1
            stats.failed_at_end += 1
            stats.last_failed = failed
            continue
        for frame in frames:
            if stats.failed_at_end and stats.decoded_s and stats.damaged_at_s is None:
                stats.damaged_at_s = stats.decoded_s
            stats.failed_at_end = 0
            length_s = frame.samples / max(1, frame.sample_rate)
            stats.decoded_s += length_s
            if frame.pts is not None:
                stats.end_s = max(stats.end_s, (frame.pts - start) * tick_s + length_s)
            yield frame


def _packets(media: Media, stats: _DecodeStats) -> "Iterator[Packet[AudioStream]]":
    packets = media.container.demux(media.stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError):  # the container ends early, or reading failed (see media.bytes.failure)
            stats.failed_at_end += 1
            return
        yield packet


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[Samples]:
    """Resample frames to int16 blocks. Sample rate, format and channels may change between frames."""
    stream: soxr.ResampleStream | None = None
    current: _FrameFormat | None = None
    pending: list[npt.NDArray[np.generic]] = []
    count = 0
    for frame in frames:
        frame_format = _FrameFormat(frame.sample_rate, frame.format.name, frame.layout.nb_channels)
        if frame_format != current:
            changed = current is None or frame_format.rate_hz != current.rate_hz
            yield from _converted(stream, current, pending, last=changed)
            pending, count = [], 0
            if changed:
                stream = _resampler(frame_format.rate_hz)
            current = frame_format
        pending.append(frame.to_ndarray())
        count += frame.samples
        if count >= _BLOCK_S * frame_format.rate_hz:
            yield from _converted(stream, current, pending, last=False)
            pending, count = [], 0
    yield from _converted(stream, current, pending, last=True)


def _resampler(rate_hz: int) -> "soxr.ResampleStream | None":
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        _damaged(f"The file states an impossible sample rate ({rate_hz} Hz).")
    if rate_hz == SAMPLE_RATE_HZ:
        return None
    return soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")


def _converted(
    stream: "soxr.ResampleStream | None",
    format_: _FrameFormat | None,
    pending: list[npt.NDArray[np.generic]],
    *,
    last: bool,
) -> Iterator[Samples]:
    signal = _mono(np.concatenate(pending, axis=1), format_) if pending and format_ else np.zeros(0, np.float32)
    if stream is not None:
        signal = stream.resample_chunk(signal, last=last)
    if len(signal):
        scaled = np.rint(signal * np.float32(2**15))
        yield np.clip(scaled, -(2**15), 2**15 - 1).astype(np.int16)


def _mono(array: npt.NDArray[np.generic], format_: _FrameFormat) -> Mono:
    """The mean of the channels, full scale ±1, shape (n,). `array` is FFmpeg's: planar (c, n) or packed (1, n · c)."""
    name = format_.format.removesuffix("p")
    if name == format_.format:  # packed
        array = array.reshape(-1, format_.channels).T
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        signal = array.mean(axis=0, dtype=np.float64 if name in ("dbl", "s32", "s64") else np.float32)
        if name in _INT_SCALE:
            signal = signal / _INT_SCALE[name] - (1.0 if name == "u8" else 0.0)
        mono: Mono = signal.astype(np.float32)
    if not np.isfinite(mono).all():
        _damaged("The file holds samples that are not finite numbers (NaN or infinity).")
    return mono


def _check_complete(media: Media, stats: _DecodeStats) -> None:
    """Check a completely decoded file: raise if audio is missing or damaged."""
    if media.bytes.failure:
        raise media.unreadable(media.bytes.failure)
    if media.missing_bytes:
        _truncated("The file is cut off: it is shorter than its own header says.")
    if stats.damaged_at_s is not None or (stats.failed_at_start > _JOINED_PACKETS and stats.decoded_s):
        _damaged(f"The audio is damaged about {stats.damaged_at_s or 0.0:.1f} s from the start.")
    if stats.failed_at_end and not stats.decoded_s:
        raise AudioError(
            "Nothing in the file can be decoded as audio.",
            reason=QuarantineReason.NOT_AUDIO,
            hint=FORMAT_HINT,
        )
    if (declared_s := media.duration_s) and (tolerance_s := media.tolerance_s) is not None:
        lost_s = declared_s - stats.decoded_s
        if lost_s > tolerance_s and declared_s - stats.end_s > tolerance_s:
            _truncated(f"The file is cut off: {stats.decoded_s:.1f} s of the declared {declared_s:.1f} s are there.")
        if lost_s > tolerance_s:
            _damaged(f"The audio has holes: {lost_s:.2f} s of the declared {declared_s:.1f} s cannot be decoded.")
        if media.format == "mp3":
            return  # all declared frames were decoded: what failed behind them is not audio
    if stats.failed_at_end and not _ends_in_tag(media, stats):
        if stats.failed_at_end <= _CUT_PACKETS:
            _truncated(f"The file is cut off in the middle of a frame, {stats.decoded_s:.1f} s from its start.")
        _damaged(f"The audio is damaged from {stats.decoded_s:.1f} s to its end.")


def _ends_in_tag(media: Media, stats: _DecodeStats) -> bool:
    """Whether what failed at the end is a tag that some tool appended (APE, Lyrics3, …), not an audio frame."""
    if media.format not in _SYNC or stats.failed_at_end > _CUT_PACKETS or len(stats.last_failed) < 2:
        return False
    mask, value = _SYNC[media.format]
    first, second = stats.last_failed[:2]
    return first != 0xFF or second & mask != value


def _truncated(message: str) -> NoReturn:
    raise AudioError(
        message, reason=QuarantineReason.TRUNCATED, hint="copy it again from where it was recorded, or repair it"
    )


def _damaged(message: str) -> NoReturn:
    raise AudioError(
        message,
        reason=QuarantineReason.DAMAGED,
        hint="copy it again from where it was recorded; re-encoding keeps what can still be decoded",
    )

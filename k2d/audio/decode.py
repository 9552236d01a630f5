"""Media → 16 kHz mono int16, as a stream; and the judgement whether all of it was there."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NoReturn

import av
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from k2d.audio.media import AudioFile, Media
from k2d.errors import AudioError
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Samples

_RATES_HZ = (1_000, 1_536_000)  # beyond lies only what a damaged header states
_BLOCK_S = 1.0  # decoders give frames of 20–90 ms; resampling them one by one costs more than decoding
_JOINED_PACKETS = 8  # undecodable packets forgiven at the start: a stream recorded from its middle begins in a frame
_CUT_PACKETS = 2  # undecodable packets at the very end that still look like a cut rather than damage
_INT_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}  # full scale of FFmpeg's sample formats
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR")  # how those tags begin, also between two files put one behind the other
# Formats without an index, where a tag looks like a packet: mask and value of a real frame's second byte (the first is
# 0xFF)
_SYNC = {"mp3": (0xE0, 0xE0), "aac": (0xF6, 0xF0)}

Mono = npt.NDArray[np.float32]  # shape (n,), full scale ±1


@dataclass(slots=True)
class _Tally:
    """What the decoder has been through so far."""

    heard_s: float = 0.0
    end_s: float = 0.0  # where the last frame ends by its own timestamp
    leading: int = 0  # packets that failed before the first frame
    trailing: int = 0  # packets that failed since the last frame
    damaged_at_s: float | None = None  # first failure with audio before and behind it
    last_failed: bytes = b""  # first bytes of the last packet that failed


@dataclass(frozen=True, slots=True)
class _Shape:
    """What must stay the same for frames to be put together."""

    rate_hz: int
    format: str  # FFmpeg's sample format, such as "s16" (packed) or "fltp" (planar)
    channels: int


def blocks(file: AudioFile) -> Generator[Samples, None, None]:
    """Decode a file to 16 kHz mono samples, about a second at a time, in memory that does not grow.

    Channels are averaged in float32, resampled by soxr (HQ), rounded and clipped to int16; the same file gives the same
    samples. Silent gaps in a container's timestamps are not filled in. Closing the iterator early frees everything.

    Raises:
        AudioError: not_audio or unreadable at once; damaged where samples are not finite; truncated and damaged after
            the last block that could be decoded. `details["duration_s"]` says how much that was.
    """
    with Media(file) as media:
        yield from decode(media)


def decode(media: Media) -> Iterator[Samples]:
    """The samples of an open file; see `blocks`."""
    tally = _Tally()
    samples = 0
    try:
        for block in _resampled(_frames(media, tally)):
            samples += len(block)
            yield block
        _judge(media, tally)
    except AudioError as error:
        error.details["duration_s"] = round(samples / SAMPLE_RATE_HZ, 3)
        raise


def _frames(media: Media, tally: _Tally) -> Iterator[AudioFrame]:
    """Decoded frames. Failures are counted, not raised, so that it is known how much audio there is."""
    start = media.stream.start_time or 0
    tick_s = float(media.stream.time_base or 0)
    for packet in _packets(media, tally):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            failed = bytes(packet)[:4]
            if not failed or (media.format in _SYNC and failed[:3] in _TAGS):  # the flush at the end; a tag
                continue
            if not tally.heard_s:
                tally.leading += 1
            tally.trailing += 1
            tally.last_failed = failed
            continue
        for frame in frames:
            if tally.trailing and tally.heard_s and tally.damaged_at_s is None:
                tally.damaged_at_s = tally.heard_s
            tally.trailing = 0
            length_s = frame.samples / max(1, frame.sample_rate)
            tally.heard_s += length_s
            if frame.pts is not None:
                tally.end_s = max(tally.end_s, (frame.pts - start) * tick_s + length_s)
            yield frame


def _packets(media: Media, tally: _Tally) -> "Iterator[Packet[AudioStream]]":
    packets = media.container.demux(media.stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError):  # the container breaks off, or the storage does (media.bytes knows)
            tally.trailing += 1
            return
        yield packet


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[Samples]:
    """Frames of any rate and shape, which may change on the way, to int16 blocks."""
    stream: soxr.ResampleStream | None = None
    shape: _Shape | None = None
    held: list[npt.NDArray[np.generic]] = []
    count = 0
    for frame in frames:
        found = _Shape(frame.sample_rate, frame.format.name, frame.layout.nb_channels)
        if found != shape:
            changed = shape is None or found.rate_hz != shape.rate_hz
            yield from _converted(stream, shape, held, last=changed)
            held, count = [], 0
            if changed:
                stream = _resampler(found.rate_hz)
            shape = found
        held.append(frame.to_ndarray())
        count += frame.samples
        if count >= _BLOCK_S * found.rate_hz:
            yield from _converted(stream, shape, held, last=False)
            held, count = [], 0
    yield from _converted(stream, shape, held, last=True)


def _resampler(rate_hz: int) -> "soxr.ResampleStream | None":
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        _damaged(f"The file states an impossible sample rate ({rate_hz} Hz).")
    if rate_hz == SAMPLE_RATE_HZ:
        return None
    return soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")


def _converted(
    stream: "soxr.ResampleStream | None", shape: _Shape | None, held: list[npt.NDArray[np.generic]], *, last: bool
) -> Iterator[Samples]:
    signal = _mono(np.concatenate(held, axis=1), shape) if held and shape else np.zeros(0, np.float32)
    if stream is not None:
        signal = stream.resample_chunk(signal, last=last)
    if len(signal):
        scaled = np.rint(signal * np.float32(2**15))
        yield np.clip(scaled, -(2**15), 2**15 - 1).astype(np.int16)


def _mono(array: npt.NDArray[np.generic], shape: _Shape) -> Mono:
    """The mean of the channels, full scale ±1, shape (n,). `array` is FFmpeg's: planar (c, n) or packed (1, n · c)."""
    name = shape.format.removesuffix("p")
    if name == shape.format:  # packed
        array = array.reshape(-1, shape.channels).T
    with np.errstate(over="ignore", invalid="ignore"):  # judged below
        signal = array.mean(axis=0, dtype=np.float64 if name in ("dbl", "s32", "s64") else np.float32)
        if name in _INT_SCALE:
            signal = signal / _INT_SCALE[name] - (1.0 if name == "u8" else 0.0)
        mono: Mono = signal.astype(np.float32)
    if not np.isfinite(mono).all():
        _damaged("The file holds samples that are not finite numbers (NaN or infinity).")
    return mono


def _judge(media: Media, tally: _Tally) -> None:
    """Raise when something was missing or broken, now that the decoder has seen all of it."""
    if media.bytes.failure:
        raise media.unreadable(media.bytes.failure)
    if media.missing_bytes:
        _truncated("The file is cut off: it is shorter than its own header says.")
    if tally.damaged_at_s is not None or (tally.leading > _JOINED_PACKETS and tally.heard_s):
        _damaged(f"The audio is damaged about {tally.damaged_at_s or 0.0:.1f} s from the start.")
    if tally.trailing and not tally.heard_s:
        raise AudioError(
            "Nothing in the file can be decoded as audio.",
            reason=QuarantineReason.NOT_AUDIO,
            hint="play the file to see what it is, and send it again in a common format (wav, flac, mp3, m4a, ogg)",
        )
    if (declared_s := media.duration_s) and (tolerance_s := media.tolerance_s) is not None:
        lost_s = declared_s - tally.heard_s
        if lost_s > tolerance_s and declared_s - tally.end_s > tolerance_s:
            _truncated(f"The file is cut off: {tally.heard_s:.1f} s of the declared {declared_s:.1f} s are there.")
        if lost_s > tolerance_s:
            _damaged(f"The audio has holes: {lost_s:.2f} s of the declared {declared_s:.1f} s cannot be decoded.")
        if media.format == "mp3":
            return  # all declared frames were heard: what failed behind them is no audio
    if tally.trailing and not _is_tag(media, tally):
        if tally.trailing <= _CUT_PACKETS:
            _truncated(f"The file is cut off in the middle of a frame, {tally.heard_s:.1f} s from its start.")
        _damaged(f"The audio is damaged from {tally.heard_s:.1f} s to its end.")


def _is_tag(media: Media, tally: _Tally) -> bool:
    """Whether what failed at the end is no audio frame at all, but a tag some tool appended (APE, Lyrics3, …)."""
    if media.format not in _SYNC or tally.trailing > _CUT_PACKETS or len(tally.last_failed) < 2:
        return False
    mask, value = _SYNC[media.format]
    first, second = tally.last_failed[:2]
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

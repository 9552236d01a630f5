"""Decodes a media file to 16 kHz mono int16, as a stream, and checks that none of it is missing or damaged."""

import math
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from k2d.audio import ogg
from k2d.audio.channels import ChannelSurvey, selected
from k2d.audio.media import DECODER_ERRORS, FORMAT_HINT, AudioFile, Media
from k2d.audio.timeline import TimeLine
from k2d.errors import AudioError
from k2d.schema import SAMPLE_RATE_HZ, QuarantineReason, Samples

_RATES_HZ: Final = (1_000, 1_536_000)  # sample rates outside this range only occur in damaged headers
_BLOCK_S: Final = 1.0  # decoders give frames of 20–90 ms; resampling them one by one costs more than decoding
# undecodable packets accepted at the start: a stream that was recorded from its middle begins inside a frame
_JOINED_PACKETS: Final = 8
_CUT_PACKETS: Final = 2  # so many undecodable packets at the very end, or fewer, mean truncation; more mean damage
# PyAV finds the planes of a planar frame in an array of 8 pointers: with more channels it reads whatever lies behind
_PLANES_MAX: Final = 8
# Codecs whose channels are declared once, for the whole stream, unless their packets carry headers of their own (ADTS);
# in others the channels of a frame may differ (MP3, AC-3 …)
_FIXED_CHANNELS: Final = frozenset(("aac", "alac", "flac", "opus", "vorbis"))
_SELF_DESCRIBED: Final = frozenset(("aac", "loas", "mpegts", "mpeg"))
_NUMPY_SAMPLES: Final = frozenset(("u8", "s16", "s32", "flt", "dbl"))  # that PyAV converts
_DTYPES: Final = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
# full scale of FFmpeg's integer sample formats
_INT_SCALE: Final = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}
_TAGS: Final = (b"ID3", b"TAG", b"APE", b"LYR")  # how tags begin; in concatenated files they also occur in the middle
# Formats without an index, where FFmpeg takes a tag for a packet: mask and value of a real frame's second byte (the
# first is 0xFF)
_SYNC: Final = {"mp3": (0xE0, 0xE0), "aac": (0xF6, 0xF0)}
_ONE_FRAME_A_PACKET: Final = frozenset(("ogg", "matroska", "flv", "mov"))  # in others decoders collect some
_PACKETS_BACK: Final = 3  # a frame may come out one or two packets after its own

PARTIAL_HINT: Final = "--keep-partial labels what is there before the damage"

Mono = npt.NDArray[np.float32]  # shape (n,), full scale ±1


class _Mark(NamedTuple):
    """A packet's offset in the file, and the position on the line where it was read."""

    offset: int
    position_s: float


@dataclass(slots=True)
class DecodeStats:
    """What has been decoded so far of a file or a link, and what could not be."""

    decoded_s: float = 0.0  # without pauses
    failed_at_start: int = 0  # packets that failed before the first frame
    failed_at_end: int = 0  # packets that failed since the last frame
    failed_from_s: float = 0.0  # position of the first of those
    decoded_bytes: int = 0  # of the packets
    failed_bytes: int = 0
    swallowed: int = 0  # packets since the last frame that gave none
    damaged_at_s: float | None = None  # position of the first damage with audio before and after it
    last_failed: bytes = b""  # first bytes of the last packet that failed
    channels: int = 0  # of the first frame
    is_start_checked: bool = False  # for a hole before the first packet
    marks: list[_Mark] = field(default_factory=list)  # where packets are, without repetitions

    def mark(self, offset: int | None, position_s: float, *, keep: bool) -> None:
        """Note where a packet is, in the file and on the line; only the last ones unless `keep` is set."""
        if offset is None or (self.marks and self.marks[-1].offset == offset):
            return
        self.marks.append(_Mark(offset, position_s))
        if not keep:
            del self.marks[:-_PACKETS_BACK]

    def damage(self, position_s: float) -> None:
        if self.damaged_at_s is None:
            self.damaged_at_s = position_s


@dataclass(frozen=True, slots=True)
class _FrameFormat:
    """The properties that frames must share to be concatenated."""

    rate_hz: int
    format: str  # FFmpeg's sample format, such as "s16" (packed) or "fltp" (planar)
    channels: int

    @property
    def sample(self) -> str:
        """The sample format without its layout, such as "flt"."""
        return self.format.removesuffix("p")

    @property
    def is_planar(self) -> bool:
        return self.format.endswith("p")


@dataclass(frozen=True, slots=True)
class _Silence:
    """A pause before a frame."""

    samples: int
    format: _FrameFormat


@dataclass(slots=True)
class Findings:
    """What decoding finds out about a whole file, beside its samples."""

    survey: ChannelSurvey | None = None  # of the channels; only where it is set before
    silence_peak: float = 0.0  # below it a channel is silent; for the survey
    links: int = 1
    origin_s: float = 0.0  # the time of the file's clock from which times count
    stats: DecodeStats = field(default_factory=DecodeStats)  # of the link that is decoded
    clock_settings: int = 0  # how often the file's clock was set
    paused_s: float = 0.0  # silence laid open, that at the start included


def blocks(
    file: AudioFile, *, channels: tuple[int, ...] = (), stop: int | None = None
) -> Generator[Samples, None, None]:
    """Decode a file to 16 kHz mono samples, about a second at a time, in memory that does not grow.

        with open("talk.m4a", "rb") as file:
            for block in blocks(file):  # int16, shape (n,)
                print(len(block) / 16_000, "s")

    Channels are averaged in float32, resampled by soxr (HQ), rounded and clipped to int16; the same file gives the same
    samples. Pauses in the file's time stamps are laid open as silence (`k2d.audio.timeline`). Closing the
    iterator early frees all resources.

    Args:
        file: a path, or a seekable binary file, which is not closed.
        channels: numbers, from 1, of those to average; all where it is empty. `examine` says which a recording is of.
        stop: end after so many samples; what comes then is not decoded or checked.

    Raises:
        AudioError: with `reason` not_audio or unreadable, before any block; damaged, where samples are not finite;
            truncated or damaged, after the last block that could be decoded. `details["duration_s"]` is the length of
            what was decoded.
    """
    with Media(file) as media:
        left = math.inf if stop is None else stop
        for block in decode(media, channels=channels):
            yield block[: int(min(len(block), left))]
            left -= len(block)
            if left <= 0:
                return


def decode(media: Media, *, channels: tuple[int, ...] = (), findings: Findings | None = None) -> Iterator[Samples]:
    """Decode an open file; blocks and errors as of `blocks`.

    An error's `details` also have `intact_s`, the seconds before the first damage, and `total_s`, the seconds that the
    recording would have, as far as that is known. Both count pauses. `findings` are complete when nothing was raised.
    """
    findings = findings or Findings()
    samples = 0
    try:
        errors: list[AudioError] = []  # raised when what was decoded before them is out
        for block in _resampled(_frames_of_links(media, findings, errors), channels, findings):
            samples += len(block)
            yield block
        if errors:
            raise errors[0]
    except AudioError as error:
        duration_s = samples / SAMPLE_RATE_HZ
        error.details["duration_s"] = round(duration_s, 3)
        error.details["intact_s"] = min(float(error.details.get("intact_s", duration_s)), duration_s)
        error.details["total_s"] = max(float(error.details.get("total_s", 0.0)), duration_s)
        raise


def _frames_of_links(media: Media, findings: Findings, errors: list[AudioError]) -> Iterator[AudioFrame | _Silence]:
    """Decode all links of a chained Ogg file, or the file; what is wrong with them is added to `errors`.

    FFmpeg refuses links whose rate, channels or codec differ from the first one's. So each is opened as a file.
    """
    position_s = 0.0
    parts = _links(media)
    findings.links = len(parts)
    for number, part in enumerate(parts):
        try:
            with Media(media.file, part=part) if part else nullcontext(media) as link:
                origin_s = link.start_s if number else link.origin_s
                line = TimeLine(
                    origin_s=origin_s,
                    declared_s=None if link.is_broadcast else link.declared_s,
                    position_s=position_s,
                    smallest_s=link.pause_s,
                    alone=len(link.container.streams) == 1,
                )
                yield from _frames(link, line, findings)
                if not number:
                    findings.origin_s = line.first_origin_s
                position_s = line.position_s
                findings.clock_settings += line.settings
                _check_complete(link, line, findings.stats)
        except AudioError as error:
            error.details.setdefault("intact_s", position_s)
            errors.append(error)
    for damage in errors:
        damage.details["total_s"] = max(float(damage.details.get("total_s", 0.0)), position_s)


def _links(media: Media) -> list[tuple[int, int] | None]:
    """The parts of the file to open one by one; None: the open file."""
    if media.format != "ogg":
        return [None]
    try:
        parts = [(media.bytes.start + start, media.bytes.start + stop) for start, stop in ogg.links(media.bytes)]
    except OSError as error:
        raise media.unreadable(error) from error
    return [*parts] if len(parts) > 1 else [None]


def _frames(media: Media, line: TimeLine, findings: Findings) -> Iterator[AudioFrame | _Silence]:
    """Decode frames, with the pauses between them. Failures are counted in `findings.stats`, so that all audio that can
    be decoded is."""
    stats = findings.stats = DecodeStats()
    for packet in _packets(media, line, stats):
        try:
            frames = packet.decode()
        except DECODER_ERRORS:
            failed = bytes(packet)[:4]
            if failed and not (media.format in _SYNC and failed[:3] in _TAGS):  # not the flush at the end, nor a tag
                _count_failure(stats, line, packet)
            continue
        stats.decoded_bytes += packet.size
        stats.mark(packet.pos, line.position_s, keep=media.format == "ogg")
        stats.swallowed += packet.size > 0 and not frames
        for frame in frames:
            if not _is_plausible(frame, media, stats):
                _count_failure(stats, line, packet)
                continue
            if stats.failed_at_end and stats.decoded_s:
                stats.damage(stats.failed_from_s)
            pause_s = line.pause_before(_clock_s(frame, media)) if media.is_clocked else 0.0
            if pause_s:
                if (hole_s := _hole_s(media, packet, stats, before_s=line.position_s - pause_s)) is not None:
                    stats.damage(hole_s)
                findings.paused_s += pause_s
                yield _Silence(round(pause_s * frame.sample_rate), _format_of(frame))
            length_s = frame.samples / frame.sample_rate
            stats.decoded_s += length_s
            stats.failed_at_end = stats.swallowed = 0
            line.advance(length_s)
            yield frame


def _packets(media: Media, line: TimeLine, stats: DecodeStats) -> "Iterator[Packet[AudioStream]]":
    packets = media.container.demux(media.stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError:  # PyAV's, for a packet of a stream that begins behind the header (a camera switched on)
            packets = media.container.demux(media.stream)
            continue
        except (*DECODER_ERRORS, OSError):  # the container ends early, or reading failed (see media.bytes.failure)
            _count_failure(stats, line, None)
            return
        yield packet


def _count_failure(stats: DecodeStats, line: TimeLine, packet: "Packet[AudioStream] | None") -> None:
    if not stats.decoded_s:
        stats.failed_at_start += 1
    if not stats.failed_at_end:
        stats.failed_from_s = line.position_s
    stats.failed_at_end += 1
    stats.last_failed = b"" if packet is None else bytes(packet)[:4]
    stats.failed_bytes += 0 if packet is None else packet.size


def _clock_s(frame: AudioFrame, media: Media) -> float | None:
    tick = frame.time_base or media.stream.time_base
    return None if frame.pts is None or not tick else frame.pts * float(tick)


def _is_plausible(frame: AudioFrame, media: Media, stats: DecodeStats) -> bool:
    """Whether a frame has a form that its stream can have; checked before anything touches its samples."""
    channels = frame.layout.nb_channels
    if not channels or not frame.samples or not _RATES_HZ[0] <= frame.sample_rate <= _RATES_HZ[1]:
        return False
    if channels > _PLANES_MAX and channels != media.channels:
        return False
    stats.channels = stats.channels or channels
    codec = media.stream.codec_context.name
    if codec not in _FIXED_CHANNELS or media.format in _SELF_DESCRIBED:
        return True
    # parametric stereo: HE-AAC v2 declares one channel, and may begin with frames of one
    return channels == stats.channels or (codec == "aac" and (stats.channels, channels) == (1, 2))


def _hole_s(media: Media, packet: "Packet[AudioStream]", stats: DecodeStats, *, before_s: float) -> float | None:
    """Where something is missing if the time stamps leave a pause at `before_s`, before a packet's frame; None if
    nothing is."""
    if packet.is_corrupt or (stats.decoded_s and stats.swallowed and media.format in _ONE_FRAME_A_PACKET):
        return before_s
    if packet.pos is None or not stats.marks:
        return None
    is_ogg = media.format == "ogg"
    try:
        if not stats.is_start_checked and (not stats.decoded_s or is_ogg):
            stats.is_start_checked = True
            if media.structure.hole(None, stats.marks[0].offset) is not None:
                return 0.0
        # FFmpeg learns the times of Ogg packets from a later page: all pages since the last pause may have the hole
        mark = stats.marks[0] if is_ogg else stats.marks[max(0, len(stats.marks) - _PACKETS_BACK)]
        hole = media.structure.hole(mark.offset, packet.pos)
    except OSError:
        return None  # recorded in media.bytes.failure
    if hole is None:
        del stats.marks[:-1]
        return None
    return min(next((mark.position_s for mark in stats.marks if mark.offset >= hole), before_s), before_s)


def _resampled(
    frames: Iterator[AudioFrame | _Silence], channels: tuple[int, ...], findings: Findings
) -> Iterator[Samples]:
    """Resample frames to int16 blocks. Sample rate, format and channels may change between frames."""
    stream: soxr.ResampleStream | None = None
    current: _FrameFormat | None = None
    pending: list[npt.NDArray[np.generic]] = []
    packer: AudioResampler | None = None
    count = 0
    for frame in frames:
        frame_format = frame.format if isinstance(frame, _Silence) else _format_of(frame)
        if frame_format != current:
            changed = current is None or frame_format.rate_hz != current.rate_hz
            yield from _converted(stream, _mono(pending, current, channels, findings), last=changed)
            pending, count, packer = [], 0, None
            if changed:
                stream = _resampler(frame_format.rate_hz)
            current = frame_format
        block = round(_BLOCK_S * frame_format.rate_hz)
        if isinstance(frame, _Silence):
            for start in range(0, frame.samples, block):
                pending.append(_silence(min(block, frame.samples - start), frame_format))
                yield from _converted(stream, _mono(pending, current, channels, findings), last=False)
                pending, count = [], 0
            continue
        if frame.format.is_planar and not frame_format.is_planar:
            packer = packer or AudioResampler(frame_format.format, frame.layout, frame.sample_rate)
            frame.pts = None
            pending += [_array(packed, frame_format) for packed in packer.resample(frame)]
        else:
            pending.append(_array(frame, frame_format))
        count += frame.samples
        if count >= block:
            yield from _converted(stream, _mono(pending, current, channels, findings), last=False)
            pending, count = [], 0
    yield from _converted(stream, _mono(pending, current, channels, findings), last=True)


def _format_of(frame: AudioFrame) -> _FrameFormat:
    """The format in which a frame is converted: packed where it has too many planes for PyAV."""
    channels, name = frame.layout.nb_channels, frame.format.name
    return _FrameFormat(frame.sample_rate, name.removesuffix("p") if channels > _PLANES_MAX else name, channels)


def _array(frame: AudioFrame, format_: _FrameFormat) -> npt.NDArray[np.generic]:
    """A frame's samples: planar (channels, n) or packed (1, n · channels)."""
    if format_.sample in _NUMPY_SAMPLES:
        return frame.to_ndarray()
    values = frame.samples if format_.is_planar else frame.samples * format_.channels
    return np.vstack([np.frombuffer(bytes(plane), np.int64)[:values] for plane in frame.planes])


def _silence(samples: int, format_: _FrameFormat) -> npt.NDArray[np.generic]:
    shape = (format_.channels, samples) if format_.is_planar else (1, samples * format_.channels)
    return np.full(shape, 2**7, np.uint8) if format_.sample == "u8" else np.zeros(shape, _DTYPES[format_.sample])


def _resampler(rate_hz: int) -> "soxr.ResampleStream | None":
    if rate_hz == SAMPLE_RATE_HZ:
        return None
    return soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")


def _converted(stream: "soxr.ResampleStream | None", signal: Mono, *, last: bool) -> Iterator[Samples]:
    if stream is not None:
        signal = stream.resample_chunk(signal, last=last)
    if len(signal):
        scaled = np.rint(signal * np.float32(2**15))
        yield np.clip(scaled, -(2**15), 2**15 - 1).astype(np.int16)


def _mono(
    pending: list[npt.NDArray[np.generic]],
    format_: _FrameFormat | None,
    channels: tuple[int, ...],
    findings: Findings,
) -> Mono:
    """The mean of the selected channels, full scale ±1, shape (n,)."""
    if not pending or format_ is None:
        return np.zeros(0, np.float32)
    array = np.concatenate(pending, axis=1)
    if not format_.is_planar:
        array = array.reshape(-1, format_.channels).T
    rows = selected(len(array), channels)
    chosen = array if len(rows) == len(array) else array[rows]
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        signal = chosen.mean(axis=0, dtype=np.float64 if format_.sample in ("dbl", "s32", "s64") else np.float32)
        mono = _scaled(signal, format_)
    if not np.isfinite(mono).all():
        raise AudioError(
            "The file holds samples that are not finite numbers (NaN or infinity).",
            reason=QuarantineReason.DAMAGED,
            hint=f"export it again, or copy it again from where it was recorded; {PARTIAL_HINT}",
        )
    if findings.survey is not None:
        findings.survey.add(_scaled(array, format_), findings.silence_peak)
    return mono


def _scaled(array: npt.NDArray[Any], format_: _FrameFormat) -> Mono:
    """Samples of FFmpeg's scale at full scale ±1."""
    if format_.sample in _INT_SCALE:
        array = array / _INT_SCALE[format_.sample] - (1.0 if format_.sample == "u8" else 0.0)
    return array.astype(np.float32)


def _check_complete(media: Media, line: TimeLine, stats: DecodeStats) -> None:
    """Check a completely decoded file: raise if audio is missing or damaged."""
    if media.bytes.failure:
        raise media.unreadable(media.bytes.failure)
    position_s, failed_from_s = line.position_s, stats.failed_from_s if stats.failed_at_end else line.position_s
    intact_s = failed_from_s if stats.damaged_at_s is None else stats.damaged_at_s
    if media.missing_bytes:
        _truncated("The file is cut off: it is shorter than its own header says.", media, stats, intact_s, position_s)
    if stats.damaged_at_s is not None or (stats.failed_at_start > _JOINED_PACKETS and stats.decoded_s):
        at_s = stats.damaged_at_s or 0.0
        _damaged(f"The audio is damaged about {at_s:.1f} s from the start.", media, stats, at_s, position_s)
    if stats.failed_at_end and not stats.decoded_s:
        raise AudioError(
            "Nothing in the file can be decoded as audio.",
            reason=QuarantineReason.NOT_AUDIO,
            hint=FORMAT_HINT,
        )
    if (declared_s := media.declared_s) and (tolerance_s := media.tolerance_s) is not None:
        lost_s = declared_s - max(stats.decoded_s, line.clock_s)
        if lost_s > tolerance_s and stats.failed_at_end > _CUT_PACKETS:
            _damaged(f"The audio is damaged from {failed_from_s:.1f} s to its end.", media, stats, intact_s, position_s)
        if lost_s > tolerance_s and not _counts_wrong(media, stats):
            expected = f"{stats.decoded_s:.1f} s of the declared {media.duration_s:.1f} s"
            _truncated(f"The file is cut off: {expected} are there.", media, stats, intact_s, position_s)
        if media.format == "mp3" and lost_s <= tolerance_s:
            return  # all declared frames were decoded: what failed behind them is not audio
    if stats.failed_at_end and not _ends_in_tag(media, stats):
        if stats.failed_at_end <= _CUT_PACKETS:
            message = f"The file is cut off in the middle of a frame, {stats.decoded_s:.1f} s from its start."
            _truncated(message, media, stats, intact_s, position_s)
        _damaged(f"The audio is damaged from {failed_from_s:.1f} s to its end.", media, stats, intact_s, position_s)


def _counts_wrong(media: Media, stats: DecodeStats) -> bool:
    """Whether the header's length is wrong: all bytes are there, and all of them were decoded."""
    if not media.counts_all_bytes or stats.failed_at_end or stats.swallowed:
        return False
    try:
        return media.structure.hole(stats.marks[-1].offset if stats.marks else None, None) is None
    except OSError as error:
        raise media.unreadable(error) from error


def _ends_in_tag(media: Media, stats: DecodeStats) -> bool:
    """Whether what failed at the end is a tag that some tool appended (APE, Lyrics3, …), not an audio frame."""
    if media.format not in _SYNC or stats.failed_at_end > _CUT_PACKETS or len(stats.last_failed) < 2:
        return False
    mask, value = _SYNC[media.format]
    first, second = stats.last_failed[:2]
    return first != 0xFF or second & mask != value


def _extent(media: Media, stats: DecodeStats, intact_s: float, position_s: float) -> dict[str, Any]:
    """`intact_s` and `total_s` of an error. What is missing is known from the header, or by its share of the bytes."""
    total_s = position_s
    if media.missing_share:
        total_s = position_s / (1 - media.missing_share)
    elif stats.decoded_bytes and not media.is_clocked:
        total_s = position_s * (1 + stats.failed_bytes / stats.decoded_bytes)
    if media.tolerance_s is not None and not (media.format == "mp3" and media.counts_all_bytes):
        total_s = max(position_s, media.duration_s or 0.0)
    return {"intact_s": intact_s, "total_s": total_s}


def _truncated(message: str, media: Media, stats: DecodeStats, intact_s: float, position_s: float) -> NoReturn:
    raise AudioError(
        message,
        reason=QuarantineReason.TRUNCATED,
        hint=f"copy it again from where it was recorded, or repair it; {PARTIAL_HINT}",
        **_extent(media, stats, intact_s, position_s),
    )


def _damaged(message: str, media: Media, stats: DecodeStats, intact_s: float, position_s: float) -> NoReturn:
    raise AudioError(
        message,
        reason=QuarantineReason.DAMAGED,
        hint=f"copy it again from where it was recorded; {PARTIAL_HINT}",
        **_extent(media, stats, intact_s, position_s),
    )

"""An open media file: the formats FFmpeg may read it as, its audio track, its clock, and the length it declares."""

import os
from functools import cached_property
from types import TracebackType
from typing import BinaryIO, Final, Self

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from k2d.audio.byte_range import ByteRange, behind_tags
from k2d.audio.declared import declared_bytes, xing_header
from k2d.audio.structure import Structure
from k2d.audio.timeline import LIVE_CLOCK_S, PAUSE_S
from k2d.errors import AudioError
from k2d.schema import QuarantineReason

AudioFile = str | os.PathLike[str] | BinaryIO  # a path, or a seekable binary file

# Demuxers that read one stream of bytes and open nothing else. Playlists and session descriptions (hls, dash, concat,
# sdp, rtsp, imf, …), devices and raw formats without a signature are left out: a crafted file must reach no other file
# and no network. Names are FFmpeg's; FFmpeg ignores those that a build does not know.
FORMATS: Final = (
    "aac,ac3,act,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,iff,ircam,loas,matroska,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,pvf,qcp,qoa,rm,sds,sox,tak,tta,voc,w64,wav,webm,wsd,wtv,wv"
)
# Formats whose headers state the length exactly enough to detect missing audio: format → tolerance in seconds. Formats
# whose length FFmpeg estimates from the bit rate (aac, amr, mp3 without a Xing header …) are left out. Half a second
# covers codec delay and edit lists, which decoders trim.
_TOLERANCES_S: Final = {
    "flac": 0.01,
    "aiff": 0.05,
    "au": 0.05,
    "caf": 0.5,
    "mov": 0.5,
    "mp3": 0.25,
    "matroska": 0.5,
    "ogg": 0.5,
}

# Formats whose packets carry times (FLAC's are numbered). In the others a packet follows the one before it, and the
# clock counts samples.
_CLOCKED: Final = frozenset(
    ["asf", "avi", "flac", "flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg", "rm", "wtv"]
)
_BROADCAST: Final = frozenset(("mpeg", "mpegts", "wtv"))  # their clock starts anywhere
_HEADERLESS: Final = frozenset(("flv", "mpeg", "mpegts", "wtv"))  # streams are listed nowhere, or may come later
# What FFmpeg reads of a file whose header does not list its streams, to find a sound that starts late; its default is
# 5 s and 5 MB.
_LATE_STREAMS: Final = {"analyzeduration": str(int(LIVE_CLOCK_S) * 1_000_000), "probesize": str(256 << 20)}

# What PyAV raises on damaged files, beside its own FFmpegError: for streams that were not announced, impossible
# layouts and formats, sizes that overflow
DECODER_ERRORS: Final = (av.FFmpegError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, MemoryError)

FORMAT_HINT: Final = "play the file to see what it is, and send it again in a common format (wav, flac, mp3, m4a, ogg)"


class Media:
    """A media file and its best audio stream, open for decoding; a context manager.

        with Media("talk.m4a") as media:
            print(media.source_format, media.duration_s)  # mov (aac), 48000 Hz, 2 channels 61.3

    FFmpeg gets bytes, never the file's name: a name can neither be taken for a protocol (`concat:`, `http:`) nor
    change how the content is read.

    Raises:
        AudioError: unreadable (cannot be opened or read), not_audio, or truncated (cut before the index).
    """

    def __init__(self, file: AudioFile, *, part: tuple[int, int] | None = None) -> None:
        """Open a file; of a chained Ogg file the `part` (offsets in bytes) that is one link."""
        self._own: BinaryIO | None = None
        self.file = self._open(file) if isinstance(file, str | os.PathLike) else file
        self.bytes = ByteRange(self.file)
        try:
            self.bytes = ByteRange(self.file, *part) if part else self._content()
            self.missing_bytes = self._missing_bytes()
            self.container = self._container({})
            self.stream = self._stream()
            self._channels = self.stream.codec_context.channels  # as declared: decoders change it
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the decoder, and the file where this object opened it."""
        if container := getattr(self, "container", None):
            container.close()
        if self._own:
            self._own.close()

    @property
    def format(self) -> str:
        """FFmpeg's first name for the container, such as "mov"."""
        return str(self.container.format.name).split(",")[0]

    @property
    def source_format(self) -> str:
        """Container, codec if its name differs, sample rate and channels, for the reader."""
        codec = self.stream.codec_context
        kind = self.format if codec.name.startswith(self.format) else f"{self.format} ({codec.name})"
        channels = codec.channels
        return f"{kind}, {codec.sample_rate} Hz, {channels} channel{'' if channels == 1 else 's'}"

    @property
    def channels(self) -> int:
        """The number of channels that the header declares."""
        return self._channels

    @cached_property
    def structure(self) -> Structure:
        return Structure(self.format, self.bytes)

    # ---- clock ----------------------------------------------------------------------------------------------------

    @property
    def is_clocked(self) -> bool:
        """Whether packets carry times, so that there may be pauses between them."""
        return self.format in _CLOCKED

    @cached_property
    def origin_s(self) -> float:
        """The time on the file's clock from which the recording's times count (see k2d.audio.timeline)."""
        if not self.is_clocked:
            return 0.0
        if self.format in _BROADCAST or self.start_s < 0:
            return self.start_s
        return self.start_s if self.start_s >= LIVE_CLOCK_S else 0.0

    @property
    def is_broadcast(self) -> bool:
        """Whether the clock may be set in the middle of the file: FFmpeg calls such formats discontinuous."""
        return self.format == "ogg" or self.format in _BROADCAST

    @property
    def pause_s(self) -> float:
        """The shortest pause in the time stamps that is no rounding; FLAC's are exact to the sample."""
        return _TOLERANCES_S["flac"] if self.format == "flac" else PAUSE_S

    @property
    def start_s(self) -> float:
        """The first time on the file's clock, of any track."""
        return (self.container.start_time or 0) / 1_000_000  # libavformat counts in microseconds

    # ---- length ---------------------------------------------------------------------------------------------------

    @property
    def tolerance_s(self) -> float | None:
        """By how much the decoded length may fall short of `declared_s`; None if that is an estimate."""
        if self.format == "matroska" and len(self.container.streams) > 1 and self._tagged_s is None:
            return None  # only the longest stream's length is stated
        if self.format == "mp3" and self._xing is None:
            return None
        return _TOLERANCES_S.get(self.format)

    @property
    def declared_s(self) -> float | None:
        """The duration that the header states or FFmpeg estimates, from 0 on the file's clock; None if unknown."""
        if self._xing is not None and self.format == "mp3":
            return self._xing.duration_s
        if self.format == "matroska" and self._tagged_s is not None:
            return self._tagged_s
        durations_s = [duration for duration in (_header_s(self.stream), self._container_s) if duration]
        return min(durations_s, default=None)

    @property
    def duration_s(self) -> float | None:
        """The length of the recording by its header or FFmpeg's estimate; None if it is unknown."""
        if self.declared_s is None:
            return None
        return self.declared_s - self.origin_s if self.declared_s > self.origin_s else self.declared_s

    @property
    def states_length(self) -> bool:
        """Whether `duration_s` needs no decoding to be believed. An MP3's count of frames may be wrong by far, and an
        Ogg file's clock may turn out to be a live one."""
        return self.tolerance_s is not None and self.format not in ("mp3", "ogg") and not self.missing_bytes

    @property
    def missing_share(self) -> float:
        """Share of the declared bytes that are missing."""
        if not self.missing_bytes or not self._declared_bytes:
            return 0.0
        return 1 - self.size_bytes / self._declared_bytes

    @property
    def counts_all_bytes(self) -> bool:
        """Whether the container states how many bytes it has, and all of them are there: a length in seconds that is
        larger than what they hold is wrong then, and nothing is missing."""
        if self.format == "mp3":
            return self._xing is not None and self._xing.is_complete(self.size_bytes)
        states_bytes = self.format in ("aiff", "caf", "matroska", "mov") and self._declared_bytes is not None
        return states_bytes and not self.missing_bytes

    @property
    def _tagged_s(self) -> float | None:
        return _tagged_s(self.stream)

    @property
    def _container_s(self) -> float | None:
        return None if self.container.duration is None else self.container.duration / 1_000_000

    # ---- errors, opening ------------------------------------------------------------------------------------------

    def unreadable(self, error: OSError) -> AudioError:
        """The error for a file that cannot be read from its storage."""
        return AudioError(
            f"The file cannot be read: {error.strerror or error}.",
            reason=QuarantineReason.UNREADABLE,
            hint="check that it exists and that the worker may read it, then resume the batch",
            duration_s=0.0,
        )

    def _open(self, path: str | os.PathLike[str]) -> BinaryIO:
        try:
            self._own = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise self.unreadable(error) from error
        return self._own

    def _content(self) -> ByteRange:
        try:
            return behind_tags(self.file)
        except OSError as error:
            raise self.unreadable(error) from error

    def _missing_bytes(self) -> bool:
        try:
            self.size_bytes = self.bytes.size
            self._declared_bytes = declared_bytes(self.bytes, self.size_bytes)
            self._xing = xing_header(self.bytes)
            self.bytes.seek(0)
        except OSError as error:
            raise self.unreadable(error) from error
        if not self.size_bytes:
            raise _not_audio("The file is empty (zero bytes).", hint="copy it again from where it was recorded")
        return self._declared_bytes is not None and self._declared_bytes > self.size_bytes

    def _container(self, options: dict[str, str]) -> InputContainer:
        try:
            return av.open(
                self.bytes,
                mode="r",
                container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none", **options},
                metadata_errors="replace",  # tags in GBK or Big5 are common, and are not used here
                io_open=_refuse,
            )
        except (*DECODER_ERRORS, OSError) as error:
            if self.bytes.failure:
                raise self.unreadable(self.bytes.failure) from error
            if self.missing_bytes:
                raise AudioError(
                    "The file is cut off before the index that is needed to decode it.",
                    reason=QuarantineReason.TRUNCATED,
                    hint="copy it again from where it was recorded; a recorder that crashed may offer to repair it",
                    duration_s=0.0,
                ) from error
            raise _not_audio("The content is not audio in a format that can be decoded.", hint=FORMAT_HINT) from error

    def _stream(self) -> AudioStream:
        if not self.container.streams.audio and self.format in _HEADERLESS:
            self.container.close()
            self.bytes.seek(0)
            self.container = self._container(_LATE_STREAMS)
        self.tracks = len(self.container.streams.audio)
        if not self.tracks:
            raise _not_audio("The file has no audio stream.", hint="export it again with sound")
        stream, self.track_choice = self._choose()
        if stream is None:
            raise _not_audio("There is no decoder for the file's audio stream.", hint=FORMAT_HINT)
        self.track = self.container.streams.audio.index(stream) + 1
        codec = stream.codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"  # parallelism is across recordings; one thread is exact
        if codec.name == "flac":
            codec.options = {"err_detect": "crccheck+explode"}  # otherwise a flipped bit is decoded to noise
        return stream

    def _choose(self) -> tuple[AudioStream | None, str]:
        """The track to take, and why: among those marked as default (without such a mark, among all), the longest;
        the first where lengths are equal or unknown. A track without a decoder is never taken."""
        usable = [stream for stream in self.container.streams.audio if stream.codec_context is not None]
        if not usable:
            return None, ""
        marked = [stream for stream in usable if stream.disposition & Disposition.default]
        candidates = marked or usable
        if len(candidates) == 1:
            return candidates[0], "marked as default" if marked else "the only one with a decoder"
        lengths = [_track_length_s(stream) for stream in candidates]
        best = lengths.index(max(lengths))
        return candidates[best], "the longest" if lengths.count(lengths[best]) == 1 else "the first"


def _header_s(stream: AudioStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _tagged_s(stream: AudioStream) -> float | None:
    """Matroska: the length of the track, which FFmpeg and mkvmerge write as a tag (HH:MM:SS.fraction)."""
    parts = (stream.metadata.get("DURATION") or stream.metadata.get("DURATION-eng") or "").split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def _track_length_s(stream: AudioStream) -> float:
    return _tagged_s(stream) or _header_s(stream) or 0.0


def _refuse(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError("a media file may not open another one")


def _not_audio(message: str, *, hint: str) -> AudioError:
    return AudioError(message, reason=QuarantineReason.NOT_AUDIO, hint=hint, duration_s=0.0)

"""An open media file: the formats FFmpeg may read it as, its audio stream, and the length its header declares."""

import os
from types import TracebackType
from typing import BinaryIO, Final, Self

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from k2d.audio.declared import declared_bytes, xing_duration_s
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

    def __init__(self, file: AudioFile) -> None:
        self._own: BinaryIO | None = None
        self.bytes = _Bytes(self._open(file) if isinstance(file, str | os.PathLike) else file)
        try:
            self.missing_bytes = self._missing_bytes()
            self.container = self._container()
            self.stream = self._stream()
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
    def tolerance_s(self) -> float | None:
        """By how much the decoded length may fall short of `duration_s`; None if that is an estimate."""
        if self.format == "matroska" and self.container.streams.video:
            return None  # only the longest stream's length is stated, and that is the video's
        if self.format == "mp3" and self._xing_s is None:
            return None
        return _TOLERANCES_S.get(self.format)

    @property
    def duration_s(self) -> float | None:
        """The duration that the header states or FFmpeg estimates; None if it is unknown."""
        if self._xing_s is not None and self.format == "mp3":
            return self._xing_s
        durations_s = []
        if self.stream.duration is not None and self.stream.time_base is not None:
            durations_s.append(float(self.stream.duration * self.stream.time_base))
        if self.container.duration is not None:
            durations_s.append(self.container.duration / 1_000_000)  # libavformat counts in microseconds
        return min((duration for duration in durations_s if duration > 0), default=None)

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

    def _missing_bytes(self) -> bool:
        try:
            self.size_bytes = self.bytes.seek(0, os.SEEK_END)
            declared = declared_bytes(self.bytes.file, self.size_bytes)
            self._xing_s = xing_duration_s(self.bytes.file)
            self.bytes.seek(0)
        except OSError as error:
            raise self.unreadable(error) from error
        if not self.size_bytes:
            raise _not_audio("The file is empty (zero bytes).", hint="copy it again from where it was recorded")
        return declared is not None and declared > self.size_bytes

    def _container(self) -> InputContainer:
        try:
            return av.open(
                self.bytes,
                mode="r",
                container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
                metadata_errors="replace",  # tags in GBK or Big5 are common, and are not used here
                io_open=_refuse,
            )
        except (av.FFmpegError, OSError) as error:
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
        stream = self.container.streams.best("audio")
        if stream is None:
            raise _not_audio("The file has no audio stream.", hint="export it again with sound")
        if not isinstance(stream, AudioStream) or stream.codec_context is None:
            raise _not_audio("There is no decoder for the file's audio stream.", hint=FORMAT_HINT)
        codec = stream.codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"  # parallelism is across recordings; one thread is exact
        if codec.name == "flac":
            codec.options = {"err_detect": "crccheck+explode"}  # otherwise a flipped bit is decoded to noise
        return stream


class _Bytes:
    """A file object for FFmpeg. Records a failed read, to distinguish it from damaged audio."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.failure: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self.file.read(size)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _refuse(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError("a media file may not open another one")


def _not_audio(message: str, *, hint: str) -> AudioError:
    return AudioError(message, reason=QuarantineReason.NOT_AUDIO, hint=hint, duration_s=0.0)

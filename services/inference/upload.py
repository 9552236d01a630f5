"""An uploaded recording: examined once, then read forward window by window."""

import asyncio
import errno
import io
import tempfile
from contextlib import suppress
from typing import BinaryIO, cast

from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.errors import StoreError
from k2d.schema import Samples
from k2d.settings import Settings
from services.web.pools import DECODING


class DiskFile:
    """A file of a form on disk, unnamed (`services.web.forms.PartSink`); no byte of it stays in memory."""

    def __init__(self) -> None:
        self.file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed by `close`

    def write(self, block: bytes) -> None:
        """
        Raises:
            StoreError: there is no room.
        """
        try:
            self.file.write(block)
        except OSError as error:
            hint = "free space in the temporary folder (TMPDIR)"
            raise StoreError(f"there is no room for the upload: {error.strerror}", hint=hint) from error

    def finish(self) -> None:
        self.file.seek(0)

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()


class UploadedRecording:
    """Samples of an uploaded file, decoded as they are asked for (`k2d.inference.longform.Reader`), in bounded memory.

    `samples` and `duration_s` are known once it was examined.

        recording = UploadedRecording(form.files[0].sink.file)
        await recording.examine(settings)
        recording.read(0, WINDOW_SAMPLES)
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = _InterruptibleFile(file)
        self._reader: isolated.IsolatedReader | None = None
        self.samples = 0
        self.duration_s = 0.0
        self.has_pauses = False  # as of `transcribe`'s skip_pauses

    async def examine(self, settings: Settings) -> None:
        """Decode the file from end to end, before the model spends a second on it. Silence is accepted here.

        Raises:
            AudioError: no audio, damaged, cut off, too short or too long; or the decoder crashed, or reached a limit.
        """
        limits = DecodeLimits.of(settings)
        examination = await DECODING.run(
            isolated.examine,
            cast(BinaryIO, self._file),
            min_s=settings.min_recording_s,
            max_s=settings.max_recording_s,
            silence_peak=0.0,
            limits=limits,
        )
        self.samples, self.duration_s = examination.samples, examination.duration_s
        self.has_pauses = examination.paused_s > 0
        self._file.seek(0)
        self._reader = isolated.IsolatedReader(cast(BinaryIO, self._file), recording=examination, limits=limits)

    def read(self, start: int, stop: int) -> Samples:
        assert self._reader is not None, "examine first"
        self._reader.forget(start)
        return self._reader.read(start, stop)

    async def close(self) -> None:
        """Release the file; a thread that still decodes it gets an error, so that it ends soon."""
        self._file.interrupted = True
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)


class _InterruptibleFile(io.RawIOBase):
    """A file whose reads fail once it is `interrupted`: a thread that decodes it cannot be cancelled otherwise."""

    def __init__(self, file: BinaryIO) -> None:
        self._wrapped = file
        self.interrupted = False

    def read(self, size: int = -1) -> bytes:
        if self.interrupted:
            raise OSError(errno.ECANCELED, "the recording was closed while it was read")
        return self._wrapped.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._wrapped.seek(offset, whence)

    def tell(self) -> int:
        return self._wrapped.tell()

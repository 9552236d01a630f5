"""An uploaded recording: examined once, then read forward window by window, and let go at any moment."""

import asyncio
import errno
import io
from typing import BinaryIO, cast

from k2d import audio
from k2d.schema import Samples
from k2d.settings import Settings


class Recording:
    """Samples of an uploaded file, decoded as they are asked for (`k2d.inference.longform.Reader`); memory does not grow.

    `samples` and `duration_s` are known once it was examined.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = _Abandonable(file)
        self._reader: audio.SampleReader | None = None
        self.samples = 0
        self.duration_s = 0.0

    async def examine(self, settings: Settings) -> None:
        """Decode the file once from end to end, before the model spends a second on it. Silence is no fault here.

        Raises:
            AudioError: no audio, damaged, cut off, too short or too long.
        """
        found = await asyncio.to_thread(
            audio.examine,
            cast(BinaryIO, self._file),
            min_s=settings.min_recording_s,
            max_s=settings.max_recording_s,
            silence_peak=0.0,
        )
        self.samples, self.duration_s = found.samples, found.duration_s
        self._file.seek(0)
        self._reader = audio.SampleReader(cast(BinaryIO, self._file))

    def read(self, start: int, stop: int) -> Samples:
        assert self._reader is not None, "examine first"
        self._reader.forget(start)
        return self._reader.read(start, stop)

    async def close(self) -> None:
        """Drop everything; a thread that decodes is told that its file is gone, so nobody waits for it."""
        self._file.abandoned = True
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)


class _Abandonable(io.RawIOBase):
    """A file that can be taken away from the thread that reads it: a thread cannot be cancelled."""

    def __init__(self, file: BinaryIO) -> None:
        self._held = file
        self.abandoned = False

    def read(self, size: int = -1) -> bytes:
        if self.abandoned:
            raise OSError(errno.ECANCELED, "nobody wants it any more")
        return self._held.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._held.seek(offset, whence)

    def tell(self) -> int:
        return self._held.tell()

"""Between the stream of samples and the chunks: reads for the teacher, packs what it says, cuts the audio."""

from collections.abc import Iterable

from k2d import audio
from k2d.labeling.chunks import Packer
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Samples, Segment
from k2d.store import LabelWriter


class Cutter:
    """Feeds the teacher windows, packs its segments into chunks, and cuts each chunk's audio from the same stream.

    Keeps no more audio than the open chunk and the current window need, however long the recording is.
    """

    def __init__(self, reader: audio.SampleReader, writer: LabelWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.packer = Packer()

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) of the recording. The teacher only moves forward, so what lies behind is let go."""
        self._write(self.packer.advance(start / SAMPLE_RATE_HZ))
        open_s = self.packer.open_start_s
        self.reader.forget(start if open_s is None else min(start, round(open_s * SAMPLE_RATE_HZ)))
        return self.reader.read(start, stop)

    def push(self, segment: Segment) -> None:
        self._write(self.packer.push(segment))

    def close(self) -> None:
        """Write the last, partial chunk."""
        self._write(self.packer.close())

    def _write(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            start, stop = (round(t * SAMPLE_RATE_HZ) for t in (chunk.start_s, chunk.end_s))
            self.writer.write(chunk, audio.encode_flac(self.reader.read(start, stop)))

"""The time line of a recording: which second of it is which second of the file.

Times of labels, chunks and subtitles are times of the file's own clock, as a player shows them:

- **A pause** in the packets' time stamps (a muted microphone, discontinuous transmission, lost packets) is laid open
  as silence, so that 5.0 s of a video is 5.0 s of its labels. Pauses below 0.1 s are collected until they make 0.1 s.
- **Sound that starts late** has silence before it, from the start of the clock: 0.
- **A live clock.** A piece of a live stream keeps the stream's clock, which may be at any hour. Then times count from
  the file's first packet of any track, and the recording has a note that says by how much. That is so where the first
  packet is at 600 s or later. The clocks of MPEG transport and program streams start anywhere: they always count from
  the first packet, with a note from 600 s.
- **A clock that is set** in the middle of a file (parts of a stream put one behind the other) does not count: where
  time jumps back by more than a second, or forward by more than an hour beyond the declared length, the sound goes on
  without a pause. Links of a chained Ogg file follow one another in the same way. The recording has a note about it.

Formats without time stamps (WAV, FLAC, MP3 …) have the clock of their samples: nothing is laid open.
"""

from typing import Final

# Silence is laid open from this much on; smaller differences are rounding (Matroska: milliseconds), delay or jitter.
# libswresample fills gaps from the same size on (option min_hard_comp).
PAUSE_S: Final = 0.1
# A clock whose first time is this or later is that of a live stream of which the file is a piece; below it the sound
# starts late. Chosen: longer than anyone waits for a microphone, shorter than a lesson.
LIVE_CLOCK_S: Final = 600.0
RESTART_S: Final = 1.0  # a clock that goes back by more was set; chosen: well above what frames overlap
PAUSE_MAX_S: Final = 3600.0  # a clock that goes on by more was set; chosen


class TimeLine:
    """Places frames, one after the other, on the time line; all values in seconds.

    line = TimeLine(origin_s=0.0, declared_s=8.0)
    line.pause_before(2.0)  # 2.0: the first frame is at 2.0 s, so 2 s of silence come before it
    line.advance(0.02)
    """

    def __init__(
        self,
        *,
        origin_s: float,
        declared_s: float | None,
        position_s: float = 0.0,
        smallest_s: float = PAUSE_S,
        alone: bool = False,
    ) -> None:
        """Begin a line.

        Args:
            origin_s: the time of the clock that is `position_s` here.
            declared_s: the length that the file declares.
            smallest_s: the shortest pause.
            alone: the track has no other beside it, so that its first frame tells whether the clock is a live one.
        """
        self._alone = alone
        self._smallest_s = smallest_s
        self.position_s = position_s  # end of what was placed, silence included
        self.settings = 0  # how often the clock was set
        self.first_origin_s = self._origin_s = origin_s - position_s  # the time of the clock that is 0 here
        self._declared_s = declared_s or 0.0
        self._clock_s: float | None = None  # end of the last frame by the clock, on this line

    def pause_before(self, clock_s: float | None) -> float:
        """The silence to lay before a frame that begins at `clock_s` of the file's clock; 0.0 for most."""
        if clock_s is None:
            return 0.0
        start_s = clock_s - self._origin_s
        if self._clock_s is None and self._alone and clock_s >= LIVE_CLOCK_S:
            self.first_origin_s = self._origin_s = clock_s - self.position_s
            start_s = self.position_s
        elif self._clock_s is not None:
            jump_s = start_s - self._clock_s
            beyond = clock_s > self._declared_s + PAUSE_S
            if jump_s < -RESTART_S or (jump_s > PAUSE_MAX_S and beyond):
                self._origin_s += start_s - self.position_s
                self.settings += 1
                start_s = self.position_s
        self._clock_s = start_s
        pause_s = start_s - self.position_s
        if pause_s < self._smallest_s:
            return 0.0
        self.position_s += pause_s
        return pause_s

    def advance(self, length_s: float) -> None:
        """Place a frame of this length."""
        self.position_s += length_s
        if self._clock_s is not None:
            self._clock_s += length_s

    @property
    def clock_s(self) -> float:
        """The position on the file's clock."""
        return self.position_s + self._origin_s

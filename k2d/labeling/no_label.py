"""What of a labeled recording has no label, and how it sounds there: pauses, silence, or sound without a text. Pure."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.audio.levels import FRAME_S, LevelMeter
from k2d.schema import Chunk, NoLabel, Samples

# A quiet stretch that is shorter is a pause. Chosen: in speech, pauses from 1 s on count as long (Campione and Veronis,
# "A large-scale multilingual study of silent pause duration", 2002).
PAUSE_S: Final = 2.0
_FRAME_MS: Final = round(FRAME_S * 1000)


class NoLabelMeter:
    """Measures what no chunk covers, while a recording is labeled.

    meter = NoLabelMeter()
    meter.hear(samples)  # all of the recording, in order
    meter.cover(chunk)  # each chunk, in order
    meter.sums(duration_s)  # NoLabel(pauses_ms=12_400, silence_ms=0, sound_ms=24_000)
    """

    def __init__(self) -> None:
        self._levels = LevelMeter()
        self._ends_ms: list[int] = [0]  # of what has no label, start and end by turns

    def hear(self, samples: Samples) -> None:
        """Take the next samples of the recording, 16 kHz, shape (n,)."""
        self._levels.add(samples)

    def cover(self, chunk: Chunk) -> None:
        """Take the next chunk: its span has a label."""
        self._ends_ms += [round(chunk.start_s * 1000), round(chunk.end_s * 1000)]

    def sums(self, duration_s: float) -> NoLabel:
        """Sum up the gaps between chunks; with the chunks they add up to `duration_s`, exact to 1 ms."""
        return no_label(self._levels.quiet(), [*self._ends_ms, round(duration_s * 1000)])


def no_label(quiet: npt.NDArray[np.bool_], ends_ms: Sequence[int]) -> NoLabel:
    """Sum up how gaps sound.

    Args:
        quiet: of each frame of 0.1 s of the recording, shape (frames,).
        ends_ms: start and end of the first gap, start and end of the next, and so on.
    """
    gaps = np.array(ends_ms, np.int64).reshape(-1, 2)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]))).reshape(-1, 2)  # of quiet stretches
    is_pause = (edges[:, 1] - edges[:, 0]) * FRAME_S < PAUSE_S
    pauses_ms = _overlap_ms(gaps, edges[is_pause], len(quiet))
    silence_ms = _overlap_ms(gaps, edges[~is_pause], len(quiet))
    return NoLabel(pauses_ms, silence_ms, int((gaps[:, 1] - gaps[:, 0]).sum()) - pauses_ms - silence_ms)


def _overlap_ms(gaps: npt.NDArray[np.int64], stretches: npt.NDArray[np.int64], frames: int) -> int:
    """Milliseconds of gaps that lie in stretches of frames."""
    inside = np.zeros(frames + 1, np.int64)
    inside[stretches[:, 0]] = 1
    inside[stretches[:, 1]] = -1
    before_ms = np.concatenate([[0], np.cumsum(np.cumsum(inside))[:-1] * _FRAME_MS])  # of each frame, what is inside
    in_gaps = np.interp(gaps, np.arange(frames + 1) * _FRAME_MS, before_ms)
    return int(np.rint((in_gaps[:, 1] - in_gaps[:, 0]).sum()))

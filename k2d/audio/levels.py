"""How loud a recording is, tenth of a second by tenth of a second, and which of it is quiet. Pure.

Quiet is relative: a room's noise is silence beside a lecturer, and the same power is sound in a recording of nothing
else. Gates as in EBU Tech 3342 (loudness range), of plain power instead of loudness: below -70 dB of full scale, or
more than 20 dB below the mean of what is not.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.schema import SAMPLE_RATE_HZ, Samples

FRAME_S: Final = 0.1
_FRAME: Final = round(FRAME_S * SAMPLE_RATE_HZ)
_LEAST: Final = 10 ** (-70 / 10)  # of power; full scale is 1
_BELOW_MEAN: Final = 10 ** (-20 / 10)


class LevelMeter:
    """Measures the power of samples that come as a stream, frame by frame.

    meter = LevelMeter()
    meter.add(samples)  # as often as there are some, in order
    meter.quiet()  # array([True, True, False, …]): of each frame of 0.1 s, the last one may be shorter
    """

    def __init__(self) -> None:
        self._powers: list[npt.NDArray[np.float32]] = []
        self._rest: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def add(self, samples: Samples) -> None:
        """Measure the next samples, int16, shape (n,)."""
        scaled = np.concatenate([self._rest, samples.astype(np.float32) / 2**15])
        whole = len(scaled) // _FRAME * _FRAME
        self._rest = scaled[whole:]
        if whole:
            self._powers.append(_powers(scaled[:whole].reshape(-1, _FRAME)))

    def quiet(self) -> npt.NDArray[np.bool_]:
        """Whether each frame is quiet, shape (frames,)."""
        rest = [_powers(self._rest[None])] if len(self._rest) else []
        powers = np.concatenate([np.empty(0, np.float32), *self._powers, *rest])
        heard = powers[powers >= _LEAST]
        gate = max(_LEAST, _BELOW_MEAN * float(heard.mean(dtype=np.float64))) if len(heard) else _LEAST
        return np.asarray(powers < gate)


def _powers(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.einsum("ij,ij->i", frames, frames) / frames.shape[1], np.float32)

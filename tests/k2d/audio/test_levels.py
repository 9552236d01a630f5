"""Which of a recording is quiet, beside its own level."""

import numpy as np
import pytest

from k2d.audio.levels import LevelMeter
from k2d.schema import Samples

GENERATOR = np.random.default_rng(7)


def noise(seconds: float, db: float) -> Samples:
    return np.round(GENERATOR.standard_normal(round(seconds * 16_000)) * 10 ** (db / 20) * 2**15).astype(np.int16)


def quiet(*samples: Samples) -> list[bool]:
    meter = LevelMeter()
    for some in samples:
        meter.add(some)
    return meter.quiet().tolist()


def test_quiet_is_what_is_20_db_below_the_mean_of_the_recording() -> None:
    assert quiet(noise(0.3, -20), noise(0.2, -45), noise(0.2, -30)) == [False] * 3 + [True] * 2 + [False] * 2
    assert quiet(noise(0.2, -45)) == [False] * 2  # of a recording of nothing else, it is the sound
    assert quiet(noise(1.0, -20), noise(100.0, -38)).count(True) == 0  # half of the energy is in the noise
    assert quiet(np.zeros(3_200, np.int16), noise(0.1, -75)) == [True] * 3
    assert quiet() == []


@pytest.mark.parametrize("at", [1, 7, 1_599, 1_600, 4_000])
def test_frames_do_not_depend_on_how_the_samples_come(at: int) -> None:
    samples = np.concatenate([noise(0.35, -20), noise(0.4, -60)])
    whole = quiet(samples)
    assert len(whole) == 8  # the last of them is shorter
    assert quiet(*(samples[start : start + at] for start in range(0, len(samples), at))) == whole

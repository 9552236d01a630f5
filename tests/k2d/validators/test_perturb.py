"""The fallback validator's perturbations: lengths, spectra, levels."""

import numpy as np
import pytest

from k2d.validators.perturb import PERTURBATIONS, BandPass, Speed, apply

RATE_HZ = 16_000
SPEED, BAND = PERTURBATIONS


def tone(hz: float, seconds: float = 2.0, level: float = 0.5) -> np.ndarray:
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.rint(level * 32767 * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def gain_db(hz: float) -> float:
    """The band-pass's gain at one frequency, away from the ends."""
    before, after = (signal[2000:-2000].astype(float) for signal in (tone(hz), apply(BAND, tone(hz))))
    return float(10 * np.log10((np.mean(after**2) + 1e-9) / np.mean(before**2)))


def test_the_views_are_those_that_were_measured() -> None:
    assert [perturbation.name for perturbation in PERTURBATIONS] == ["speed 1.12", "band 300-3400 Hz"]
    assert (Speed(1.12), BandPass(300.0, 3400.0)) == PERTURBATIONS


@pytest.mark.parametrize("hz", [50, 100, 150, 4000, 6000, 7900])
def test_the_band_pass_stops_what_a_telephone_stops(hz: float) -> None:
    assert gain_db(hz) < -30


@pytest.mark.parametrize("hz", [400, 1000, 2000, 3300])
def test_the_band_pass_passes_speech(hz: float) -> None:
    assert abs(gain_db(hz)) < 0.1


def test_the_band_pass_does_not_shift_time() -> None:
    said = tone(1000)
    assert np.abs(apply(BAND, said)[2000:-2000].astype(int) - said[2000:-2000]).max() <= 2


@pytest.mark.parametrize("count", [1, 2, 100, 16_000, 480_000])
def test_lengths(count: int) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, count).astype(np.int16)
    assert len(apply(BAND, samples)) == count
    assert len(apply(SPEED, samples)) == pytest.approx(count / 1.12, abs=1)


def test_speed_raises_pitch_by_its_factor() -> None:
    fast = apply(SPEED, tone(1000)).astype(float)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert spectrum.argmax() * RATE_HZ / len(fast) == pytest.approx(1120, abs=2)


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_a_full_scale_signal_is_scaled_not_clipped(perturbation: Speed | BandPass) -> None:
    """A square wave at full scale overshoots in any filter; clipped, it would not have its quiet twin's shape."""
    square = np.where(np.arange(32_000) // 20 % 2, 32767, -32768).astype(np.int16)
    loud, quiet = apply(perturbation, square).astype(float), apply(perturbation, square // 4).astype(float)
    assert np.abs(quiet).max() * 4 > 33_000  # it does overshoot
    assert 32_700 < np.abs(loud).max() <= 32767
    assert np.abs(loud / np.abs(loud).max() - quiet / np.abs(quiet).max()).max() < 2e-3


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_quiet_stays_as_quiet_silence_stays_silent_and_twice_is_the_same(perturbation: Speed | BandPass) -> None:
    quiet = tone(1000, level=0.01)
    assert np.abs(apply(perturbation, quiet).astype(int))[2000:-2000].max() == pytest.approx(328, abs=3)
    assert not apply(perturbation, np.zeros(5000, np.int16)).any()
    assert len(apply(perturbation, np.zeros(0, np.int16))) == 0
    assert np.array_equal(apply(perturbation, quiet), apply(perturbation, quiet.copy()))
    assert np.array_equal(quiet, tone(1000, level=0.01))  # the input is left alone

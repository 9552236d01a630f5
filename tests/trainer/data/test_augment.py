"""Augmentation stays within bounds, and is the same again from the same draws."""

import numpy as np
import pytest
from lakes import samples

from trainer.data.augment import FREQUENCY_MASK, NOISE_RANGE_DB, TIME_MASK, add_noise, spec_augment
from trainer.data.draws import generator, share


def features(mels: int = 80) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (mels, 3000)).astype(np.float32)


@pytest.mark.parametrize(("mels", "band"), [(80, FREQUENCY_MASK), (128, 43)])
def test_one_stretch_of_time_and_one_band_are_blanked(mels: int, band: int) -> None:
    clean = features(mels)
    widths, bands = [], []
    for n in range(60):
        masked = spec_augment(clean, samples=10 * 16000, draws=generator(n))
        changed = masked != clean
        assert not changed[:, 1000:].any()  # nothing is said there
        columns, rows = changed.all(axis=0), changed[:, :1000].all(axis=1)
        widths.append(int(columns.sum()))
        bands.append(int(rows.sum()))
        assert changed.sum() == 1000 * bands[-1] + mels * widths[-1] - bands[-1] * widths[-1]
        assert np.allclose(masked[changed], clean[:, :1000].mean())
        assert np.ptp(np.flatnonzero(columns)) == widths[-1] - 1 if widths[-1] else True
        assert np.ptp(np.flatnonzero(rows)) == bands[-1] - 1 if bands[-1] else True
    assert max(widths) <= TIME_MASK
    assert max(bands) <= band
    assert np.mean(widths) == pytest.approx(TIME_MASK / 2, abs=15)
    assert np.mean(bands) == pytest.approx(band / 2, abs=6)


def test_the_features_that_came_in_stay() -> None:
    clean = features()
    before = clean.copy()
    spec_augment(clean, samples=480_000, draws=generator(1))
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("length", [1, 100, 480_000])
def test_any_length_can_be_masked(length: int) -> None:
    for n in range(20):
        assert spec_augment(features(), samples=length, draws=generator(n)).shape == (80, 3000)


def test_noise_keeps_its_ratio() -> None:
    clean = samples(3.0)
    ratios = []
    for n in range(40):
        noise = add_noise(clean, snr_db=10.0, draws=generator(n)).astype(float) - clean
        ratios.append(10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2)))
    assert min(ratios) >= 9.9  # rounding to int16 adds a little
    assert max(ratios) <= 10.1 + NOISE_RANGE_DB
    assert np.ptp(ratios) > NOISE_RANGE_DB / 2


def test_noise_on_silence_and_on_full_scale() -> None:
    assert not add_noise(np.zeros(100, np.int16), snr_db=0.0, draws=generator(0)).any()
    assert not len(add_noise(np.zeros(0, np.int16), snr_db=0.0, draws=generator(0)))
    loud = np.tile(np.array([32767, -32768], np.int16), 500)
    noisy = add_noise(loud, snr_db=0.0, draws=generator(0))
    assert (np.sign(noisy) == np.sign(loud)).mean() > 0.8  # clipped, not wrapped around
    assert noisy.dtype == np.int16


def test_draws_belong_to_their_key() -> None:
    assert generator("a", 1).random() == generator("a", 1).random()
    assert len({generator(*key).random() for key in [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a", 1, 0)]}) == 5
    shares = [share("x", n) for n in range(2000)]
    assert 0.0 <= min(shares) < max(shares) < 1.0
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)

"""Pure: the same speech a little harder to hear. Off by default, as in the paper (method.md, section 4)."""

import numpy as np

from k2d.schema import Samples
from k2d.whisper.features import HOP, Features

# SpecAugment's policy "LibriSpeech basic" (arXiv 1904.08779, table 1), which Whisper large-v2 was trained with (arXiv
# 2212.04356, appendix F), without its time warping, which the authors found to matter least
TIME_MASK = 100  # frames, at most: 1 s
FREQUENCY_MASK = 27  # of 80 mels, at most
MELS = 80  # that the number above was chosen for

NOISE_RANGE_DB = 20.0  # above the recipe's ratio; what is quieter than that is not heard as noise
PEAK = 32767


def spec_augment(features: Features, *, samples: int, draws: np.random.Generator) -> Features:
    """Blank one stretch of time and one band, each of a random width from 0; a copy, shape (mels, frames) kept.

    Only time that has audio (`samples` of it) is blanked. What is blanked gets the mean of the row, so that its level
    tells nothing.
    """
    mels, frames = features.shape
    heard = min(max(1, samples // HOP), frames)
    masked = features.copy()
    mean = features[:, :heard].mean()
    width, start = _stretch(min(TIME_MASK, heard), heard, draws)
    masked[:, start : start + width] = mean
    width, start = _stretch(FREQUENCY_MASK * mels // MELS, mels, draws)
    masked[start : start + width, :heard] = mean
    return masked


def add_noise(samples: Samples, *, snr_db: float, draws: np.random.Generator) -> Samples:
    """Add white noise at a ratio between `snr_db` and 20 dB better; shape (n,) kept, clipped to int16."""
    wave = samples.astype(np.float64)
    power = float(np.mean(wave**2)) if len(wave) else 0.0
    ratio_db = draws.uniform(snr_db, snr_db + NOISE_RANGE_DB)
    noise = draws.standard_normal(len(wave)) * np.sqrt(power * 10.0 ** (-ratio_db / 10.0))
    noisy: Samples = np.clip(np.rint(wave + noise), -PEAK - 1, PEAK).astype(np.int16)
    return noisy


def _stretch(widest: int, length: int, draws: np.random.Generator) -> tuple[int, int]:
    """Width from 0 to `widest`, and where it starts."""
    width = int(draws.integers(0, widest + 1))
    return width, int(draws.integers(0, length - width + 1))

"""Augmentation of audio and features: SpecAugment and white noise. Pure. Off by default, as in the paper.

Source: docs/method.md, section 4.
"""

from typing import Final

import numpy as np

from k2d.schema import Samples
from k2d.whisper.features import HOP, Features

# SpecAugment's policy "LibriSpeech basic" (arXiv 1904.08779, table 1), which Whisper large-v2 was trained with (arXiv
# 2212.04356, appendix F), without its time warping, which the authors found to matter least
TIME_MASK: Final = 100  # frames, at most: 1 s
FREQUENCY_MASK: Final = 27  # of 80 mel bands, at most
MELS: Final = 80  # that the number above was chosen for

NOISE_RANGE_DB: Final = 20.0  # above the recipe's ratio; noise that is quieter than that is hardly audible
PEAK: Final = 32767  # of int16


def spec_augment(features: Features, *, samples: int, draws: np.random.Generator) -> Features:
    """Mask one stretch of time and one band of frequencies, each of a random width from 0.

    Returns a copy of shape (mels, frames). Only frames that have audio (`samples` of it) are masked. The mask has the
    mean of the features, so that its level carries no information.
    """
    mels, frames = features.shape
    with_audio = min(max(1, samples // HOP), frames)
    masked = features.copy()
    mean = features[:, :with_audio].mean()
    width, start = _random_span(min(TIME_MASK, with_audio), with_audio, draws)
    masked[:, start : start + width] = mean
    width, start = _random_span(FREQUENCY_MASK * mels // MELS, mels, draws)
    masked[start : start + width, :with_audio] = mean
    return masked


def add_noise(samples: Samples, *, snr_db: float, draws: np.random.Generator) -> Samples:
    """Add white noise at a random ratio between `snr_db` and 20 dB better; shape (n,) as given, clipped to int16."""
    wave = samples.astype(np.float64)
    power = float(np.mean(wave**2)) if len(wave) else 0.0
    ratio_db = draws.uniform(snr_db, snr_db + NOISE_RANGE_DB)
    noise = draws.standard_normal(len(wave)) * np.sqrt(power * 10.0 ** (-ratio_db / 10.0))
    noisy: Samples = np.clip(np.rint(wave + noise), -PEAK - 1, PEAK).astype(np.int16)
    return noisy


def _random_span(widest: int, length: int, draws: np.random.Generator) -> tuple[int, int]:
    """A width from 0 to `widest`, and where in `length` it starts."""
    width = int(draws.integers(0, widest + 1))
    return width, int(draws.integers(0, length - width + 1))

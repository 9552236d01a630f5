"""Features equal those of the two implementations Whisper is usually run with."""

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor
from transformers import WhisperFeatureExtractor

from k2d.schema import WINDOW_SAMPLES, Samples
from k2d.whisper.features import FRAMES, log_mel, mel_filters

TOLERANCE = 1e-4


def speech_like(n: int) -> Samples:
    """Harmonics that come and go over faint noise: loud and quiet cells side by side."""
    random = np.random.default_rng(7)
    t = np.arange(n) / 16_000
    tones = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20))
    wave = tones * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)) * 6_000 + random.normal(0, 20, n)
    return np.clip(wave, -32_768, 32_767).astype(np.int16)


@pytest.mark.parametrize("mels", [80, 128])
def test_filters_equal_the_reference(mels: int) -> None:
    assert np.abs(mel_filters(mels) - FeatureExtractor(feature_size=mels).mel_filters).max() < 1e-7
    assert np.abs(mel_filters(mels) - WhisperFeatureExtractor(feature_size=mels).mel_filters.T).max() < 1e-7


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("n", [0, 1, 199, 400, 16_000, 123_457, WINDOW_SAMPLES - 1, WINDOW_SAMPLES])
def test_features_equal_the_reference(n: int, mels: int) -> None:
    samples = speech_like(n)
    ours = log_mel(samples, mels=mels)
    whole = np.pad(samples, (0, WINDOW_SAMPLES - n)).astype(np.float32) / 32_768
    assert ours.shape == (mels, FRAMES)
    assert ours.dtype == np.float32
    assert np.abs(ours - FeatureExtractor(feature_size=mels)(whole, padding=0)).max() < TOLERANCE
    theirs = WhisperFeatureExtractor(feature_size=mels)(whole, sampling_rate=16_000, return_tensors="np")
    assert np.abs(ours - theirs.input_features[0]).max() < TOLERANCE


def test_full_scale_and_silence_stay_finite() -> None:
    for value in (-32_768, 32_767, 0):
        assert np.isfinite(log_mel(np.full(WINDOW_SAMPLES, value, np.int16), mels=80)).all()


def test_input_is_left_alone() -> None:
    samples = speech_like(16_000)
    before = samples.copy()
    log_mel(samples, mels=80)
    assert np.array_equal(samples, before)

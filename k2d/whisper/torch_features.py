"""`k2d.whisper.features` of many windows at once, in torch, on the device where the model is."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from k2d.schema import WINDOW_SAMPLES, Samples
from k2d.whisper.features import DYNAMIC_RANGE, FFT_SIZE, FLOOR, FRAMES, FULL_SCALE, GRID, HOP, mel_filters


def log_mels(windows: Sequence[Samples], *, mels: int, device: torch.device) -> torch.Tensor:
    """As `features.log_mel` for each window; float32 of shape (windows, mels, 3000).

    Computed in double precision and rounded to the same grid, so that the bits are the same.
    """
    samples = np.zeros((len(windows), WINDOW_SAMPLES), np.int16)
    for row, own in zip(samples, windows, strict=True):
        row[: len(own)] = own
    half = FFT_SIZE // 2
    audio = torch.from_numpy(samples).to(device).double() / FULL_SCALE
    # reflect the start, as a centred transform does; what follows the last frame is not read
    wave = torch.cat([audio[:, 1 : half + 1].flip(-1), audio, audio[:, -half - 1 : -1].flip(-1)], dim=-1)
    window, filters = _constants(mels, device)
    spectrum = torch.fft.rfft(wave.unfold(-1, FFT_SIZE, HOP)[:, :FRAMES] * window)
    power = spectrum.real**2 + spectrum.imag**2  # (windows, 3000, 201)
    log = torch.log10((filters @ power.transpose(-1, -2)).clamp_(min=FLOOR))
    log = torch.maximum(log, log.amax(dim=(-1, -2), keepdim=True) - DYNAMIC_RANGE)
    return (torch.round((log + 4.0) * (GRID / 4.0)) / GRID).float()


@lru_cache(maxsize=4)
def _constants(mels: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The Hann window, shape (400,), and the filters, shape (mels, 201)."""
    hann = torch.from_numpy(np.hanning(FFT_SIZE + 1)[:-1].copy()).to(device)
    return hann, torch.from_numpy(mel_filters(mels)).to(device)

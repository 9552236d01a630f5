"""The cutter: chunks get exactly their span of audio, and no more is kept than the open chunk and the window need."""

import io

import numpy as np
import soundfile
from factories import segment, tone

from k2d import audio
from k2d.labeling.recording import Cutter, SharedClock
from k2d.schema import SAMPLE_RATE_HZ


class Written(list):
    """Collects what the cutter hands on."""

    def write(self, chunk, samples):
        self.append((chunk, samples))


def reader(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    file.seek(0)
    return audio.SampleReader(file)


def test_each_chunk_gets_its_span():
    samples = tone(100.0)
    written = Written()
    cutter = Cutter(reader(samples), written.write)
    spoken = [(1.0, 8.5), (9.0, 20.0), (20.0, 30.5), (31.0, 45.0), (80.0, 99.98)]
    for start in range(0, 100, 25):
        cutter.read(start * SAMPLE_RATE_HZ, (start + 30) * SAMPLE_RATE_HZ)
        for begin, end in spoken:
            if start <= begin < start + 25:
                cutter.push(segment(begin, end, "x"))
    cutter.close()
    assert [(chunk.start_s, chunk.end_s) for chunk, _ in written] == [(1.0, 30.5), (31.0, 45.0), (80.0, 99.98)]
    for chunk, cut in written:
        expected = samples[round(chunk.start_s * SAMPLE_RATE_HZ) : round(chunk.end_s * SAMPLE_RATE_HZ)]
        assert np.array_equal(cut, expected)


def test_an_open_chunk_does_not_hold_hours_of_silence():
    written = Written()
    source = reader(np.zeros(400 * SAMPLE_RATE_HZ, np.int16))
    cutter = Cutter(source, written.write)
    cutter.read(0, 30 * SAMPLE_RATE_HZ)
    cutter.push(segment(2.0, 4.0, "x"))
    most = 0
    for start in range(30, 400, 30):
        cutter.read(start * SAMPLE_RATE_HZ, (start + 30) * SAMPLE_RATE_HZ)
        most = max(most, sum(len(block) for block in source._decoded))
    assert len(written) == 1  # closed as soon as nothing could join it
    assert most <= 75 * SAMPLE_RATE_HZ


def test_shares_of_recordings_in_flight_add_up_to_the_time_that_passed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("k2d.labeling.recording.time.monotonic", lambda: now[0])
    clock = SharedClock()
    first = clock.enter()
    now[0] = 4.0  # alone: 4 s
    second = clock.enter()
    now[0] = 10.0  # together: 3 s each
    assert clock.leave(first) == 7.0
    now[0] = 11.0  # alone again: 1 s
    assert clock.leave(second) == 4.0

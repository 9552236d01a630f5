"""The samples that the teacher reads are hashed, whatever way they are read."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from k2d import audio
from k2d.labeling.hashed_reader import HashedReader, SourceChanged
from k2d.schema import QuarantineReason, Samples


def noise(samples: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype(np.int16)


def wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


SAMPLES = noise(40_000)
RECORDING = audio.examine(io.BytesIO(wav(SAMPLES)), min_s=0.1, max_s=60.0, silence_peak=0.001)


def hashed(data: bytes) -> HashedReader:
    return HashedReader(audio.SampleReader(io.BytesIO(data), recording=RECORDING), RECORDING)


def read_all(reader: HashedReader) -> None:
    reader.read(0, 20_000)
    reader.forget(10_000)
    reader.verify()


@given(st.lists(st.tuples(st.integers(0, 45_000), st.integers(0, 9_000), st.integers(0, 3_000)), max_size=8))
def test_any_way_of_reading_forward_gives_the_id_of_the_recording(reads: list[tuple[int, int, int]]) -> None:
    reader = hashed(wav(SAMPLES))
    for start, length, kept in sorted(reads):
        assert np.array_equal(reader.read(start, start + length), SAMPLES[start : start + length])
        reader.forget(max(0, start - kept))
    reader.verify()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(wav(noise(40_000, 1)), id="other samples"),
        pytest.param(wav(np.append(SAMPLES, np.int16(1))), id="one sample more"),
        pytest.param(wav(SAMPLES[:-1]), id="one sample less"),
        pytest.param(wav(np.append(SAMPLES[:-1], np.int16(SAMPLES[-1] ^ 1))), id="the last bit"),
        pytest.param(wav(SAMPLES)[:50_000], id="cut off"),
    ],
)
def test_other_samples_than_those_examined_are_refused(changed: bytes) -> None:
    with pytest.raises(SourceChanged) as caught:
        read_all(hashed(changed))
    assert caught.value.reason == QuarantineReason.CHANGED
    assert "changed while it was read" in caught.value.message


def test_a_file_that_is_no_audio_any_more_has_changed() -> None:
    reader = hashed(b"no audio at all" * 100)
    with pytest.raises(SourceChanged):
        reader.read(0, 10)


def test_a_recording_kept_in_part_ends_where_it_was_kept() -> None:
    part = replace(
        audio.examine(io.BytesIO(wav(SAMPLES[:8_000])), min_s=0.1, max_s=60.0, silence_peak=0.001),
        quarantine_reason="truncated",
        quarantined_s=2.0,
    )
    HashedReader(audio.SampleReader(io.BytesIO(wav(SAMPLES)), recording=part), part).verify()

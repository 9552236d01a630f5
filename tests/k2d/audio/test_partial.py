"""Damaged and cut files, kept in part: what is before the damage is as it was, and no second gets lost."""

import hashlib
import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import encoded

from k2d.audio import SampleReader, blocks, examine
from k2d.errors import AudioError
from k2d.schema import QuarantineReason, Recording, Samples

LIMITS = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001}
SECONDS = 6.0
FORMATS = {
    "wav": ("pcm_s16le", 16_000),
    "flac": ("flac", 16_000),
    "mp3": ("libmp3lame", 44_100),
    "ogg": ("libopus", 48_000),
    "ipod": ("aac", 44_100),
    "webm": ("libopus", 48_000),
    "matroska": ("aac", 16_000),
    "adts": ("aac", 16_000),
    "flv": ("aac", 44_100),
    "mpegts": ("aac", 48_000),
}


@cache
def good(format: str) -> bytes:
    codec, rate_hz = FORMATS[format]
    return encoded(codec, format, rate_hz=rate_hz, seconds=SECONDS)


@cache
def good_samples(format: str) -> Samples:
    return np.concatenate(list(blocks(io.BytesIO(good(format)))))


def check(data: bytes, format: str) -> Recording | None:
    """What is kept of a broken file, checked; None where the file is accepted or refused whole."""
    try:
        examine(io.BytesIO(data), **LIMITS)
    except AudioError as error:
        whole = error
    else:
        return None
    try:
        recording = examine(io.BytesIO(data), **LIMITS, keep_partial=True)
    except AudioError:  # nothing before the damage
        return None
    assert whole.reason in (QuarantineReason.TRUNCATED, QuarantineReason.DAMAGED)
    assert recording.quarantine_reason == whole.reason
    assert recording.quarantined_s >= 0
    assert whole.message in recording.notes[-1]
    total_s = max(whole.details["total_s"], recording.duration_s)
    assert recording.duration_s + recording.quarantined_s == pytest.approx(total_s, abs=0.001)
    with SampleReader(io.BytesIO(data), recording=recording) as reader:
        kept = reader.read(0, 10**9)
    assert len(kept) == recording.samples == pytest.approx(recording.duration_s * 16_000, abs=8)
    assert f"rec_{hashlib.sha256(kept.astype('<i2').tobytes()).hexdigest()[:24]}" == recording.id
    # a hole may take the end of the frame before it with it; what is more than 0.2 s before is as it was
    before = max(0, min(len(kept), len(good_samples(format))) - 3200)
    assert np.array_equal(kept[:before], good_samples(format)[:before])
    return recording


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.floats(0.15, 0.95), st.integers(1, 5000), st.integers(0, 2**32))
def test_overwritten_files(format: str, share: float, size: int, seed: int) -> None:
    data = bytearray(good(format))
    at = int(len(data) * share)
    hole = np.random.default_rng(seed).bytes(size)
    data[at : at + size] = hole[: len(data) - at]
    check(bytes(data), format)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.floats(0.1, 0.99))
def test_cut_files(format: str, share: float) -> None:
    recording = check(good(format)[: int(len(good(format)) * share)], format)
    if recording is not None:
        assert recording.duration_s == pytest.approx(SECONDS * share, abs=1.2)


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "webm", "matroska"])
def test_the_missing_rest_of_a_cut_file_is_quarantined(format: str) -> None:
    """Where the header says how long the file was, labeled and quarantined seconds make that length."""
    data = good(format)
    recording = check(data[: len(data) // 2], format)
    assert recording is not None
    assert recording.quarantine_reason == QuarantineReason.TRUNCATED
    assert recording.duration_s == pytest.approx(SECONDS / 2, abs=0.3)
    assert recording.duration_s + recording.quarantined_s == pytest.approx(SECONDS, abs=0.1)


def test_damage_at_the_start_leaves_nothing() -> None:
    data = bytearray(good("flac"))
    data[9000:20_000] = bytes(11_000)
    with pytest.raises(AudioError) as caught:
        examine(io.BytesIO(bytes(data)), **LIMITS, keep_partial=True)
    assert caught.value.reason == QuarantineReason.DAMAGED


def test_whole_files_are_the_same_with_and_without() -> None:
    for format in FORMATS:
        data = good(format)
        assert examine(io.BytesIO(data), **LIMITS) == examine(io.BytesIO(data), **LIMITS, keep_partial=True)

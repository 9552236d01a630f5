"""Files of every kind that meetings and classrooms give, with the right answer (tests/data/audio-cases)."""

import hashlib

import numpy as np
import pytest
from places import AUDIO_CASES

from k2d.audio import SampleReader, blocks, examine, probe_duration_s
from k2d.errors import AudioError
from k2d.schema import QuarantineReason, Recording

LIMITS = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001}


def examined(name: str, **options: bool) -> Recording:
    return examine(AUDIO_CASES / name, **LIMITS, **options)


LABELED = [  # file, seconds on the file's own clock, of these silence before the sound
    ("A1_gap.webm", 6.0, 0.0),
    ("A1_gap.m4a", 6.0, 0.0),
    ("A2_late.webm", 8.0, 2.0),
    ("A2_late.ogg", 8.0, 2.0),
    ("A2_fragments_from_live.mp4", 6.0, 0.0),
    ("A3_two.mka", 4.0, 0.0),
    ("A4_vorbis_rates.ogg", 10.0, 0.0),
    ("A4_opus_channels.opus", 10.0, 0.0),
    ("A5_phase.wav", 6.0, 0.0),
    ("A6_xing_x10.mp3", 6.0, 0.0),
    ("A7_id3_then_riff.wav", 6.0, 0.0),
    ("bits64.wav", 0.125, 0.0),
]


@pytest.mark.parametrize(("name", "seconds", "silent_s"), LABELED)
def test_it_is_labeled_in_its_right_length(name: str, seconds: float, silent_s: float) -> None:
    recording = examined(name)
    assert recording.duration_s == pytest.approx(seconds, abs=0.07)  # AAC ends on a frame of 64 ms
    assert recording.quarantined_s == 0.0
    assert recording.peak > 0.1
    with SampleReader(AUDIO_CASES / name, recording=recording) as reader:
        samples = reader.read(0, 10**9)
    assert f"rec_{hashlib.sha256(samples.astype('<i2').tobytes()).hexdigest()[:24]}" == recording.id
    assert not samples[: int((silent_s - 0.05) * 16_000)].any() or not silent_s
    assert np.abs(samples[round((silent_s + 0.1) * 16_000) :][:32_000]).max() > 3000


@pytest.mark.parametrize("name", ["A1_gap.webm", "A1_gap.m4a"])
def test_a_pause_is_laid_open_where_it_is(name: str) -> None:
    level = np.abs(np.concatenate(list(blocks(AUDIO_CASES / name))).astype(int))
    loud = np.flatnonzero([level[at : at + 1600].max() > 0 for at in range(0, len(level) - 1600, 1600)]) / 10
    assert loud[loud < 3].max() == pytest.approx(2.0, abs=0.15)
    assert loud[loud > 3].min() == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("A2_fragments_from_live.mp4", "The file's clock begins at 1:00:00"),
        ("A3_two.mka", "Track 1 of 2 is labeled: marked as default."),
        ("A4_opus_channels.opus", "The file has 2 parts"),
        ("A5_phase.wav", "opposite phase"),
    ],
)
def test_the_record_says_what_was_decided(name: str, note: str) -> None:
    assert any(note in line for line in examined(name).notes)


def test_a_piece_of_a_live_stream_is_forecast_without_its_clock() -> None:
    assert probe_duration_s(AUDIO_CASES / "A2_fragments_from_live.mp4") == pytest.approx(6.0, abs=0.05)


@pytest.mark.parametrize("name", ["ch16.ogg", "ch16.m4a"])
def test_sixteen_channels_are_decoded(name: str) -> None:
    """These two hold digital silence (libsndfile agrees), which is said; only its length can be tested."""
    with pytest.raises(AudioError) as caught:
        examined(name)
    assert caught.value.reason == QuarantineReason.SILENT
    recording = examine(AUDIO_CASES / name, min_s=0.1, max_s=60, silence_peak=0.0)
    assert "16 channels" in recording.source_format
    assert recording.duration_s == pytest.approx({"ch16.ogg": 0.3, "ch16.m4a": 1.0}[name], abs=0.05)


@pytest.mark.parametrize("name", ["hole4k_segv.m4a", "damaged_segv.aac", "indexerror.flv"])
def test_damage_has_a_clear_reason(name: str) -> None:
    with pytest.raises(AudioError) as caught:
        examined(name)
    assert caught.value.reason == QuarantineReason.DAMAGED
    assert "damaged" in caught.value.message


def test_what_is_before_the_damage_can_be_kept() -> None:
    recording = examined("hole4k_segv.m4a", keep_partial=True)
    assert recording.duration_s == pytest.approx(7.8, abs=0.1)
    assert recording.duration_s + recording.quarantined_s == pytest.approx(60.0, abs=0.001)
    assert recording.quarantine_reason == QuarantineReason.DAMAGED
    assert any("Labeled in part, up to 7.8 s." in note for note in recording.notes)

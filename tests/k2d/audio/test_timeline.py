"""Times are those of the file's own clock: pauses, late starts, live clocks, clocks that are set, in every format."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import packets, speechlike

from k2d.audio import blocks, examine
from k2d.audio.timeline import PAUSE_S, TimeLine
from k2d.errors import AudioError
from k2d.schema import QuarantineReason, Recording

RATE_HZ = 48_000
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}
FORMATS = [
    ("matroska", "libopus", {}),
    ("matroska", "aac", {}),
    ("matroska", "flac", {}),
    ("matroska", "libmp3lame", {}),
    ("matroska", "pcm_s16le", {}),
    ("webm", "libopus", {}),
    ("mp4", "aac", {}),
    ("mp4", "aac", FRAGMENTS),
    ("ogg", "libopus", {}),
    ("ogg", "flac", {}),
    ("flv", "aac", {}),
    ("nut", "aac", {}),
    ("mpegts", "aac", {}),
    ("mpegts", "ac3", {}),
    ("mpeg", "mp2", {}),
]
CLOCKED = pytest.mark.parametrize(("format", "codec", "options"), FORMATS)


def examined(data: bytes) -> Recording:
    return examine(io.BytesIO(data), min_s=0.1, max_s=86_400.0, silence_peak=0.001)


def lag_s(data: bytes, said: npt.NDArray[np.int16], start_s: float, stop_s: float) -> float:
    """By how much later than in `said` (48 kHz, on the file's clock) the sound between two seconds comes; to 10 ms."""
    decoded = np.concatenate(list(blocks(io.BytesIO(data)))).astype(float)

    def envelope(signal: npt.NDArray[np.floating], rate_hz: int) -> npt.NDArray[np.floating]:
        step = rate_hz // 100
        return np.abs(signal[: len(signal) // step * step]).reshape(-1, step).mean(axis=1)

    heard, wanted = envelope(decoded, 16_000), envelope(said.astype(float), RATE_HZ)
    start, stop = round(start_s * 100), round(stop_s * 100)
    part = wanted[start:stop] - wanted[start:stop].mean()
    scores = {}
    for lag in range(-50, 51):
        other = heard[start + lag : stop + lag]
        if len(other) == len(part):
            scores[lag] = float(np.dot(part, other - other.mean()))
    return max(scores, key=scores.__getitem__) / 100


def sound(seconds: float) -> npt.NDArray[np.int16]:
    """Noise in bursts of random lengths: every moment has its own envelope."""
    rng = np.random.default_rng(5)
    level = np.repeat(rng.uniform(0.02, 1.0, round(seconds * 20)), RATE_HZ // 20)
    return np.rint(level * rng.standard_normal(len(level)) * 6000).clip(-32768, 32767).astype(np.int16)


@CLOCKED
def test_a_pause_is_silence_and_what_follows_is_in_its_place(format: str, codec: str, options: dict[str, str]) -> None:
    said = sound(8.0)
    data = packets(
        tracks=[(codec, said)],
        format=format,
        options=options,
        place=lambda _, at_s: None if 3.0 <= at_s < 5.0 else at_s,
    )
    recording = examined(data)
    assert recording.duration_s == pytest.approx(8.0, abs=0.15)
    assert lag_s(data, said, 0.5, 2.8) == pytest.approx(0.0, abs=0.031)
    assert lag_s(data, said, 5.3, 7.7) == pytest.approx(0.0, abs=0.1)
    decoded = np.concatenate(list(blocks(io.BytesIO(data))))
    assert np.abs(decoded[round(3.4 * 16_000) : round(4.7 * 16_000)].astype(int)).max() < 200


# FFmpeg gives the packets of the first pages of Ogg FLAC times without regard to what is missing before them
EXACT = pytest.mark.parametrize(("format", "codec", "options"), [row for row in FORMATS if row[:2] != ("ogg", "flac")])


@EXACT
def test_discontinuous_transmission_keeps_the_clock(format: str, codec: str, options: dict[str, str]) -> None:
    said = sound(8.0)
    data = packets(
        tracks=[(codec, said)], format=format, options=options, place=lambda _, at_s: at_s if at_s % 1.0 < 0.5 else None
    )
    assert examined(data).duration_s == pytest.approx(7.5, abs=0.2)
    assert lag_s(data, said, 7.1, 7.45) == pytest.approx(0.0, abs=0.12)


# the test's pictures go into these
VIDEOS = [row for row in FORMATS if row[0] not in ("webm", "ogg", "flv", "nut") and row[1] != "pcm_s16le"]


@pytest.mark.parametrize(("format", "codec", "options"), VIDEOS)
def test_sound_that_starts_late_in_a_video(format: str, codec: str, options: dict[str, str]) -> None:
    said = np.concatenate([np.zeros(2 * RATE_HZ, np.int16), sound(6.0)])
    data = packets(
        tracks=[(codec, said[2 * RATE_HZ :])],
        format=format,
        options=options,
        place=lambda _, at_s: at_s + 2.0,
        video_s=9.0,
    )
    assert examined(data).duration_s == pytest.approx(8.0, abs=0.1)
    assert lag_s(data, said, 2.5, 7.5) == pytest.approx(0.0, abs=0.031)


@pytest.mark.parametrize(("late_s", "format"), [(2.0, "webm"), (90.0, "matroska"), (2.0, "ogg"), (90.0, "ogg")])
def test_sound_that_starts_late_alone(late_s: float, format: str) -> None:
    data = packets(tracks=[("libopus", sound(6.0))], format=format, place=lambda _, at_s: at_s + late_s)
    assert examined(data).duration_s == pytest.approx(6.0 + late_s, abs=0.1)


@EXACT
@pytest.mark.parametrize("clock_s", [3600.0, 40 * 3600.0])
def test_a_live_clock_does_not_count(format: str, codec: str, options: dict[str, str], clock_s: float) -> None:
    data = packets(tracks=[(codec, sound(6.0))], format=format, options=options, place=lambda _, at_s: at_s + clock_s)
    recording = examined(data)
    assert recording.duration_s == pytest.approx(6.0, abs=0.15)
    if options:
        return  # FFmpeg's muxer writes no live clock into fragments
    assert any("times count from its first packet" in note for note in recording.notes)


def test_the_clock_of_a_live_video_counts_from_its_first_packet_of_any_track() -> None:
    data = packets(
        tracks=[("aac", sound(6.0))],
        format="mpegts",
        place=lambda _, at_s: at_s + 1.0,
        video_s=8.0,
        options={"output_ts_offset": "5000"},
    )
    recording = examined(data)
    assert recording.duration_s == pytest.approx(7.0, abs=0.15)
    assert any("The file's clock begins at 1:23:2" in note for note in recording.notes)


def test_parts_of_a_stream_one_behind_the_other() -> None:
    part = packets(tracks=[("aac", sound(4.0))], format="mpegts")
    recording = examined(part + part)
    assert recording.duration_s == pytest.approx(8.0, abs=0.2)
    assert any("clock was set 1 times" in note for note in recording.notes)


def test_pauses_do_not_hide_holes() -> None:
    """The same gap in time: packets that were never written, and packets that were overwritten."""
    rng = np.random.default_rng(0)
    for format, codec in (("matroska", "libopus"), ("webm", "libopus"), ("ogg", "libopus"), ("flv", "aac")):
        data = bytearray(packets(tracks=[(codec, sound(8.0))], format=format))
        middle = len(data) // 2
        data[middle : middle + 6000] = rng.bytes(6000)
        with pytest.raises(AudioError) as caught:
            examined(bytes(data))
        assert caught.value.reason == QuarantineReason.DAMAGED, format
        del data[middle : middle + 6000]
        with pytest.raises(AudioError):
            examined(bytes(data))


def test_formats_without_a_clock_are_as_they_were() -> None:
    data = packets(tracks=[("libmp3lame", speechlike(6.0, RATE_HZ))], format="mp3")
    assert examined(data).duration_s == pytest.approx(6.0, abs=0.1)


steps = st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.005, 0.1)), max_size=50)


@given(steps, st.floats(0.0, 500.0))
def test_the_line_follows_the_clock(moves: list[tuple[float, float]], origin_s: float) -> None:
    """With pauses of any size between frames of any size, a frame is less than PAUSE_S before its time, never after."""
    line = TimeLine(origin_s=origin_s, declared_s=None)
    clock_s = origin_s
    for pause_s, length_s in moves:
        clock_s += pause_s
        before_s = line.position_s
        laid_s = line.pause_before(clock_s)
        assert laid_s == 0.0 or laid_s >= PAUSE_S
        assert line.position_s == pytest.approx(before_s + laid_s)
        assert -1e-6 <= (clock_s - origin_s) - line.position_s < PAUSE_S + 1e-6
        line.advance(length_s)
        clock_s += length_s

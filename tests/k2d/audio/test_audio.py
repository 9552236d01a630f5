"""Good audio of every kind: what is decoded, that it is exact, repeatable, and takes little memory."""

import gc
import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from media_files import encoded, speechlike, write

from k2d.audio import SampleReader, blocks, decode_flac, encode_flac, examine, probe_duration_s
from k2d.errors import AudioError, StoreError
from k2d.schema import Recording

LIMITS = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001}


def whole(file: object) -> np.ndarray:
    return np.concatenate(list(blocks(file)))  # type: ignore[arg-type]


FORMATS = [  # file name, codec, rates FFmpeg's encoder takes, seconds the decoder may differ
    ("a.wav", "pcm_s16le", (8000, 16000, 22050, 44100, 48000, 96000, 192000), 0.001),
    ("a.flac", "flac", (8000, 16000, 44100, 192000), 0.001),
    ("a.aiff", "pcm_s16be", (8000, 48000), 0.001),
    ("a.au", "pcm_s16be", (16000,), 0.001),
    ("a.caf", "pcm_s16le", (44100,), 0.001),
    ("a.w64", "pcm_s16le", (16000,), 0.001),
    ("a.mp3", "libmp3lame", (8000, 16000, 44100, 48000), 0.1),
    ("a.m4a", "aac", (8000, 16000, 44100, 96000), 0.1),
    ("a.aac", "aac", (16000, 48000), 0.2),
    ("a.ogg", "libopus", (8000, 16000, 48000), 0.05),
    ("a.opus", "libopus", (24000,), 0.05),
    ("a.oga", "flac", (16000,), 0.05),
    ("a.webm", "libopus", (48000,), 0.05),
    ("a.mkv", "aac", (44100,), 0.1),
    ("a.mka", "pcm_s24le", (48000,), 0.05),
    ("a.avi", "pcm_s16le", (16000,), 0.05),
    ("a.ts", "aac", (48000,), 0.2),
]


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "slack_s"),
    [(name, codec, rate_hz, slack_s) for name, codec, rates, slack_s in FORMATS for rate_hz in rates],
)
def test_every_format_and_rate_is_heard(tmp_path: Path, name: str, codec: str, rate_hz: int, slack_s: float) -> None:
    write(tmp_path / name, codec, rate_hz=rate_hz)
    recording = examine(tmp_path / name, **LIMITS)
    assert recording.duration_s == pytest.approx(3.0, abs=slack_s)
    assert recording.peak == pytest.approx(np.abs(speechlike(3.0, rate_hz)).max() / 32768, abs=0.1)
    assert f"{48000 if 'opus' in codec else rate_hz} Hz, 1 channel" in recording.source_format
    assert probe_duration_s(tmp_path / name) == pytest.approx(3.0, abs=0.25)
    middle = whole(tmp_path / name)[16000:32000].astype(float)
    written = soxr.resample(speechlike(3.0, rate_hz).astype(np.float64), rate_hz, 16000)
    around = written[16000 - 2400 : 32000 + 2400]  # codecs delay by up to 0.15 s
    products = np.fft.irfft(np.fft.rfft(around) * np.conj(np.fft.rfft(middle, len(around))), len(around))
    lag = int(np.argmax(products[: 2 * 2400]))
    assert np.corrcoef(middle, around[lag : lag + len(middle)])[0, 1] > 0.9


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    said = speechlike(1.0)
    loud_left = np.zeros((len(said), channels), np.int16)
    loud_left[:, 0] = said
    soundfile.write(tmp_path / "a.wav", loud_left, 16000, subtype="PCM_16")
    assert np.abs(whole(tmp_path / "a.wav") - said / channels).max() <= 0.5
    assert f"{channels} channel" in examine(tmp_path / "a.wav", **LIMITS).source_format


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_sample_format_is_scaled_alike(tmp_path: Path, subtype: str) -> None:
    said = speechlike(1.0)
    soundfile.write(tmp_path / "a.wav", said / 32768, 16000, subtype=subtype)
    error = np.abs(whole(tmp_path / "a.wav")[: len(said)] - said.astype(int)).max()
    assert error <= {"PCM_U8": 256, "ULAW": 1024}.get(subtype, 0)


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([2.0, -2.0, 0.5] * 4000), 16000, subtype="FLOAT")
    assert whole(tmp_path / "a.wav")[:3].tolist() == [32767, -32768, 16384]


def test_resampling_is_one_stream_not_block_by_block(tmp_path: Path) -> None:
    """A join between blocks would show as a difference from resampling the whole at once."""
    said = write(tmp_path / "a.wav", "pcm_s16le", seconds=8.0, rate_hz=44100)
    at_once = soxr.resample(said.astype(np.float32) / 32768, 44100, 16000, quality="HQ") * 32768
    assert np.abs(whole(tmp_path / "a.wav") - at_once).max() <= 1.0


def test_equal_samples_have_equal_ids_in_any_lossless_format(tmp_path: Path) -> None:
    said = write(tmp_path / "a.wav", "pcm_s16le")
    write(tmp_path / "a.flac", "flac")
    write(tmp_path / "a.aiff", "pcm_s16be", channels=2)
    expected = "rec_" + hashlib.sha256(said.astype("<i2").tobytes()).hexdigest()[:24]
    found = [examine(tmp_path / name, **LIMITS) for name in ("a.wav", "a.flac", "a.aiff")]
    assert {recording.id for recording in found} == {expected}
    assert found[0] == Recording(
        id=expected,
        duration_s=3.0,
        samples=48000,
        peak=round(int(np.abs(said).max()) / 32768, 6),
        source_format="wav (pcm_s16le), 16000 Hz, 1 channel",
    )
    other = said.copy()
    other[1234] += 1
    soundfile.write(tmp_path / "b.wav", other, 16000)
    assert examine(tmp_path / "b.wav", **LIMITS).id != expected


@pytest.mark.parametrize(
    ("codec", "format"), [("libmp3lame", "mp3"), ("aac", "mp4"), ("libopus", "ogg"), ("flac", "flac")]
)
def test_decoding_is_repeatable(codec: str, format: str) -> None:
    data = encoded(codec, format, rate_hz=48000, seconds=5.0, channels=2)
    assert len({hashlib.sha256(whole(io.BytesIO(data)).tobytes()).digest() for _ in range(4)}) == 1


def test_the_sound_of_a_video_is_taken(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "pcm_s16le")):
        write(tmp_path / name, codec, rate_hz=48000, video=True)
        assert examine(tmp_path / name, **LIMITS).duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    "name", ["with\nnewline.wav", "🎧 聲音.wav", "100%20.wav", "concat:a.wav", "http:||x.wav", "-i.wav"]
)
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / "plain.wav", "pcm_s16le")
    (tmp_path / "plain.wav").rename(tmp_path / name)
    assert examine(tmp_path / name, **LIMITS).duration_s == 3.0


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    write(tmp_path / "plain.wav", "pcm_s16le")
    target = os.fsdecode(os.fsencode(tmp_path) + b"/\xa4\xa4\xff.wav")
    os.rename(tmp_path / "plain.wav", target)
    assert examine(target, **LIMITS).duration_s == 3.0


def test_big5_tags_and_huge_covers_do_not_matter(tmp_path: Path) -> None:
    data = encoded("libmp3lame", "mp3", metadata={"title": "x"})
    title = b"TIT2" + (9).to_bytes(4, "big") + b"\0\0\0" + "中文標題".encode("big5")
    cover = b"APIC" + (3_000_000 + 14).to_bytes(4, "big") + b"\0\0\0image/jpeg\0\3\0" + b"\x55" * 3_000_000
    body = title + cover
    length = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    skip = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    tagged = b"ID3\3\0\0" + length + body + data[skip:]
    assert examine(io.BytesIO(tagged), **LIMITS).id == examine(io.BytesIO(data), **LIMITS).id


def test_reader_windows_equal_slices_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.flac", "flac", seconds=12.3, rate_hz=44100)
    all_samples = whole(tmp_path / "a.flac")
    with SampleReader(tmp_path / "a.flac") as reader:
        for start, stop in [(0, 0), (0, 1), (0, 20_000), (15_999, 16_001), (10, 90_000), (90_000, 90_000), (5, 6)]:
            assert np.array_equal(reader.read(start, stop), all_samples[start:stop])
        reader.forget(50_000)
        assert np.array_equal(reader.read(50_000, 60_000), all_samples[50_000:60_000])
        assert np.array_equal(reader.read(180_000, 10**9), all_samples[180_000:])
        assert len(reader.read(10**6, 10**7)) == 0
        with pytest.raises(ValueError, match="forgotten"):
            reader.read(49_999, 60_000)
        with pytest.raises(ValueError, match="forgotten"):
            reader.read(-1, 5)
    with SampleReader(tmp_path / "a.flac") as reader:  # forgetting ahead of the decoder
        reader.forget(100_000)
        assert np.array_equal(reader.read(100_000, 100_100), all_samples[100_000:100_100])


def test_reader_hands_out_copies(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", "pcm_s16le")
    with SampleReader(tmp_path / "a.wav") as reader:
        reader.read(0, 10)[:] = 0
        assert reader.read(0, 10).any()


def test_reader_closed_from_another_thread_while_it_reads(tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", "libmp3lame", seconds=60.0)
    reader = SampleReader(tmp_path / "a.mp3")
    worker = threading.Thread(target=reader.read, args=(0, 10**9))
    worker.start()
    reader.close()
    worker.join()
    assert len(reader.read(10**8, 10**9)) == 0


def test_closing_early_frees_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", "libmp3lame", seconds=30.0)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        stream = blocks(tmp_path / "a.mp3")
        assert len(next(stream)) > 0
        stream.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_object_stays_open_for_its_owner() -> None:
    file = io.BytesIO(encoded("flac", "flac"))
    assert examine(file, **LIMITS) == examine(file, **LIMITS)
    assert not file.closed


_GROWTH = """
import resource, sys
from pathlib import Path
from k2d.audio import SampleReader, examine

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for path in sys.argv[1:]:
    recording = examine(path, min_s=0.1, max_s=1e6, silence_peak=0.0)
    with SampleReader(path) as reader:
        for start in range(0, recording.samples, 480_000):
            assert len(reader.read(start, start + 480_000)) == min(480_000, recording.samples - start)
            reader.forget(start)
    print(peak_mib())
"""


@pytest.mark.slow
def test_a_recording_of_hours_needs_no_more_memory_than_one_of_minutes(tmp_path: Path) -> None:
    """Peak RSS of one process after a minute, then after twenty of MP3 and two hours of WAV (230 MB)."""
    write(tmp_path / "short.mp3", "libmp3lame", seconds=60.0)
    write(tmp_path / "long.mp3", "libmp3lame", seconds=1200.0)
    with soundfile.SoundFile(tmp_path / "hours.wav", "w", 16000, 1, "PCM_16") as file:
        minute = speechlike(60.0)
        for _ in range(120):
            file.write(minute)
    paths = [str(tmp_path / name) for name in ("short.mp3", "long.mp3", "hours.wav")]
    result = subprocess.run([sys.executable, "-c", _GROWTH, *paths], capture_output=True, text=True, check=True)
    short, long, hours = map(float, result.stdout.split())
    assert long - short < 8
    assert hours - short < 8


@pytest.mark.parametrize("count", [1, 15, 16000, 480_000])
def test_flac_in_memory_is_exact_and_repeatable(count: int) -> None:
    samples = np.random.default_rng(1).integers(-32768, 32768, count).astype(np.int16)
    data = encode_flac(samples)
    assert np.array_equal(decode_flac(data), samples)
    assert decode_flac(data).dtype == np.int16
    assert encode_flac(samples.copy()) == data


def test_flac_refuses_what_it_would_change() -> None:
    with pytest.raises(ValueError, match="int16"):
        encode_flac(np.zeros(5, np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        encode_flac(np.zeros((5, 2), np.int16))
    with pytest.raises(ValueError, match="at least one"):
        encode_flac(np.zeros(0, np.int16))
    with pytest.raises(StoreError):
        decode_flac(b"fLaC nonsense")
    stereo = io.BytesIO()
    soundfile.write(stereo, np.zeros((100, 2), np.int16), 16000, format="FLAC")
    with pytest.raises(StoreError, match="16 kHz mono"):
        decode_flac(stereo.getvalue())


def test_a_header_tells_the_duration_without_decoding(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 16000, 1, "PCM_16") as file:
        file.seek(0)
        file.write(np.zeros(16000 * 1800, np.int16))
    assert probe_duration_s(tmp_path / "long.wav") == pytest.approx(1800.0)
    assert probe_duration_s(io.BytesIO(b"no audio")) is None
    assert probe_duration_s(tmp_path / "missing.wav") is None


def test_importing_pulls_in_no_engine_and_no_web() -> None:
    code = "import sys, k2d.audio, k2d.validators.perturb, k2d.sources; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("'torch'", "'ctranslate2'", "'fastapi'", "'rq'", "'s3fs'") if name in loaded]


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """FFmpeg complains to stderr by default; a thousand bad files would bury the log."""
    data = bytearray(encoded("libmp3lame", "mp3"))
    data[len(data) // 2 : len(data) // 2 + 1500] = bytes(1500)
    with pytest.raises(AudioError):
        whole(io.BytesIO(bytes(data)))
    assert capfd.readouterr() == ("", "")


def test_rate_and_channels_may_change_on_the_way() -> None:
    """MP3 files put one behind the other: broadcasters' archives are made so."""
    first = encoded("libmp3lame", "mp3", rate_hz=44100, channels=2)
    second = encoded("libmp3lame", "mp3", rate_hz=16000, channels=1, seconds=2.0)
    decoded = whole(io.BytesIO(first + second))
    assert len(decoded) / 16000 == pytest.approx(5.0, abs=0.3)
    level = np.abs(decoded.astype(float))
    assert level[4_000:40_000].mean() == pytest.approx(level[56_000:72_000].mean(), rel=0.2)

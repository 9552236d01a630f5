"""Bad audio: every way a file can be useless has its own reason, and says how much of it was decoded."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_files import encoded, speechlike, write

from k2d.audio import SampleReader, blocks, examine
from k2d.errors import AudioError
from k2d.schema import QuarantineReason

SECONDS = 6.0


def refusal(file: object, *, min_s: float = 0.1, max_s: float = 3600.0, silence_peak: float = 0.001) -> AudioError:
    with pytest.raises(AudioError) as caught:
        examine(file, min_s=min_s, max_s=max_s, silence_peak=silence_peak)  # type: ignore[arg-type]
    error = caught.value
    assert error.hint
    assert error.message.endswith(".")
    assert isinstance(error.details["duration_s"], float)
    return error


def accepted(data: bytes) -> float:
    return examine(io.BytesIO(data), min_s=0.1, max_s=3600.0, silence_peak=0.001).duration_s


FORMATS = {  # format → codec and rate
    "wav": ("pcm_s16le", 16000),
    "flac": ("flac", 16000),
    "mp3": ("libmp3lame", 44100),
    "ogg": ("libopus", 48000),
    "ipod": ("aac", 44100),  # FFmpeg's name for m4a
    "webm": ("libopus", 48000),
    "matroska": ("aac", 16000),
    "aiff": ("pcm_s16be", 16000),
    "au": ("pcm_s16be", 16000),
    "caf": ("pcm_s16le", 16000),
    "w64": ("pcm_s16le", 16000),
    "avi": ("pcm_s16le", 16000),
    "adts": ("aac", 16000),
}


@pytest.fixture(scope="module", params=FORMATS)
def good(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    codec, rate_hz = FORMATS[request.param]
    return request.param, encoded(codec, request.param, rate_hz=rate_hz, seconds=SECONDS)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_truncated(good: tuple[str, bytes], share: float) -> None:
    format, data = good
    error = refusal(io.BytesIO(data[: int(len(data) * share)]))
    assert error.reason == QuarantineReason.TRUNCATED
    if format != "ipod":  # its index is at the end
        assert error.details["duration_s"] == pytest.approx(SECONDS * share, abs=1.2)


def test_bytes_behind_the_end_are_no_damage(good: tuple[str, bytes]) -> None:
    """Players and taggers append things (APE, Lyrics3, padding of a disk block)."""
    data = good[1]
    tag = b"APETAGEX" + np.random.default_rng(0).bytes(3000)
    assert accepted(data + tag) == pytest.approx(SECONDS, abs=0.25)


@pytest.mark.parametrize("filler", ["zeros", "noise"])
@pytest.mark.parametrize("format", ["flac", "mp3", "ogg", "ipod", "webm", "matroska", "adts"])
def test_a_hole_in_the_middle_is_damage(format: str, filler: str) -> None:
    codec, rate_hz = FORMATS[format]
    data = bytearray(encoded(codec, format, rate_hz=rate_hz, seconds=SECONDS))
    hole = bytes(4000) if filler == "zeros" else np.random.default_rng(1).bytes(4000)
    middle = len(data) // 2
    data[middle : middle + len(hole)] = hole
    assert refusal(io.BytesIO(bytes(data))).reason == QuarantineReason.DAMAGED


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_one_flipped_bit_in_a_flac_is_damage(share: float) -> None:
    data = bytearray(encoded("flac", "flac", seconds=SECONDS))
    data[int(len(data) * share)] ^= 0x10
    assert refusal(io.BytesIO(bytes(data))).reason == QuarantineReason.DAMAGED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_damage(tmp_path: Path, value: float) -> None:
    samples = speechlike(4.0) / 32768
    samples[40_000] = value
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    error = refusal(tmp_path / "a.wav")
    assert error.reason == QuarantineReason.DAMAGED
    assert 1.0 <= error.details["duration_s"] <= 2.5


def test_what_was_never_audio() -> None:
    random = np.random.default_rng(3)
    image = b"\x89PNG\r\n\x1a\n" + random.bytes(2000)
    for data in (
        b"",
        b"\0",
        b"RIFF",
        bytes(50_000),
        b"hello, this is text\n" * 500,
        image,
        b"PK\3\4" + random.bytes(999),
    ):
        error = refusal(io.BytesIO(data))
        assert error.reason == QuarantineReason.NOT_AUDIO
        assert error.details["duration_s"] == 0.0
    for seed in range(30):
        assert refusal(io.BytesIO(np.random.default_rng(seed).bytes(40_000))).reason == QuarantineReason.NOT_AUDIO


def test_a_text_file_named_wav(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("a transcript, not a recording\n" * 100)
    assert refusal(tmp_path / "a.wav").reason == QuarantineReason.NOT_AUDIO


def test_a_video_without_sound(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    error = refusal(tmp_path / "a.mp4")
    assert error.reason == QuarantineReason.NOT_AUDIO
    assert "no audio stream" in error.message


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.wav").reason == QuarantineReason.UNREADABLE
    assert refusal(tmp_path).reason == QuarantineReason.UNREADABLE  # a folder


class Failing(io.BytesIO):
    """A file whose storage gives up once `fail_at` is reached."""

    fail_at = 0

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.fail_at:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("format", ["wav", "mp3", "ogg"])
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_storage_that_fails_half_way_is_not_the_recordings_fault(format: str, share: float) -> None:
    codec, rate_hz = FORMATS[format]
    data = encoded(codec, format, rate_hz=rate_hz, seconds=20.0)
    file = Failing(data)
    file.fail_at = int(len(data) * share)
    error = refusal(file)
    assert error.reason == QuarantineReason.UNREADABLE
    assert "Input/output error" in error.message


def test_too_short_too_long_silent(tmp_path: Path) -> None:
    write(tmp_path / "short.wav", "pcm_s16le", seconds=0.05)
    write(tmp_path / "long.mp3", "libmp3lame", seconds=30.0)
    error = refusal(tmp_path / "short.wav")
    assert (error.reason, error.details["duration_s"]) == (QuarantineReason.TOO_SHORT, 0.05)
    error = refusal(tmp_path / "long.mp3", max_s=20.0)
    assert error.reason == QuarantineReason.TOO_LONG
    quiet = np.full(16000 * 5, 20, np.int16)
    soundfile.write(tmp_path / "quiet.wav", quiet, 16000)
    error = refusal(tmp_path / "quiet.wav")
    assert (error.reason, error.details["duration_s"]) == (QuarantineReason.SILENT, 5.0)
    assert "-64 dB" in error.message
    assert refusal(tmp_path / "short.wav", silence_peak=1.0).reason == QuarantineReason.TOO_SHORT


def test_a_header_without_samples_is_too_short() -> None:
    header = io.BytesIO()
    soundfile.write(header, np.zeros(0, np.int16), 16000, format="WAV")
    error = refusal(header, min_s=0.0)
    assert (error.reason, error.details["duration_s"]) == (QuarantineReason.TOO_SHORT, 0.0)


def test_too_long_is_said_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes: where the header can be trusted nothing is decoded; elsewhere decoding stops at the limit."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 16000, 1, "PCM_16") as file:
        for _ in range(10):
            file.write(np.zeros(960_000, np.int16))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["k2d.audio.examine"], "decode", lambda _: pytest.fail("it was decoded"))
        error = refusal(tmp_path / "a.flac", max_s=60.0)
    assert (error.reason, error.details["duration_s"]) == (QuarantineReason.TOO_LONG, 600.0)
    endless = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", 2**32 - 1
    )
    (tmp_path / "a.wav").write_bytes(endless + speechlike(120.0).tobytes())
    error = refusal(tmp_path / "a.wav", max_s=60.0)
    assert error.reason == QuarantineReason.TOO_LONG
    assert 60.0 < error.details["duration_s"] < 63.0


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_recorder_that_could_not_seek_is_not_truncated(size: int) -> None:
    """A pipe leaves 0, all ones or sox's 0x7FFFFFFF where the length belongs."""
    data = bytearray(encoded("pcm_s16le", "wav", seconds=SECONDS))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    assert accepted(bytes(data)) == pytest.approx(SECONDS, abs=0.1)


def test_a_stream_recorded_from_its_middle_is_no_damage() -> None:
    """A broadcast's recording begins inside a frame; a live Ogg ends without a mark, on a page's border."""
    mp3 = encoded("libmp3lame", "mp3", rate_hz=44100, seconds=SECONDS)
    assert accepted(mp3[len(mp3) // 3 :]) == pytest.approx(SECONDS * 2 / 3, abs=0.3)
    ogg = encoded("libopus", "ogg", rate_hz=48000, seconds=SECONDS)
    assert accepted(ogg[: ogg.rindex(b"OggS")]) > SECONDS / 2


PLAYLISTS = [
    "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{name}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{uri}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{uri}\n",
    "ffconcat version 1.0\nfile '{name}'\n",
    "ffconcat version 1.0\nfile '{uri}'\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{uri}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "RTSPtext\nrtsp://127.0.0.1/{name}\n",
    "concat:{name}|{name}",
]


@pytest.mark.parametrize("text", PLAYLISTS)
def test_a_playlist_reaches_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Left alone, FFmpeg plays the first concat script: a name beside the playlist is safe in its eyes."""
    secret = tmp_path / "secret.ts"
    write(secret, "aac")
    monkeypatch.chdir(tmp_path)
    for suffix in (".wav", ".m3u8", ".ffconcat", ".sdp"):
        trap = tmp_path / f"trap{suffix}"
        trap.write_text(text.format(name=secret.name, uri=secret.as_uri()))
        assert refusal(trap).reason == QuarantineReason.NOT_AUDIO
    assert refusal(io.BytesIO(trap.read_bytes())).reason == QuarantineReason.NOT_AUDIO


def test_names_that_look_like_protocols_are_files_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "secret.wav", "pcm_s16le")
    monkeypatch.chdir(tmp_path)
    for name in ("concat:secret.wav|secret.wav", "file:secret.wav", "subfile,,start,0,end,0,,:secret.wav", "pipe:0"):
        assert refusal(name).reason == QuarantineReason.UNREADABLE


def test_blocks_and_reader_tell_damage_too() -> None:
    data = encoded("flac", "flac", seconds=SECONDS)
    cut = data[: len(data) // 2]
    lengths: list[int] = []
    with pytest.raises(AudioError) as caught:
        lengths.extend(len(block) for block in blocks(io.BytesIO(cut)))
    assert caught.value.reason == QuarantineReason.TRUNCATED
    assert caught.value.details["duration_s"] == pytest.approx(sum(lengths) / 16000, abs=0.001)
    with SampleReader(io.BytesIO(cut)) as reader, pytest.raises(AudioError):
        reader.read(0, 10**9)


@pytest.mark.parametrize("kind", ["constant", "stairs", "resampled stairs"])
def test_a_level_that_stands_still_is_no_sound(kind: str, tmp_path: Path) -> None:
    """A few kilobytes may hold hours of it."""
    rate_hz = 44_100 if kind.startswith("resampled") else 16_000
    levels = np.full(40, 3000) if kind == "constant" else np.resize([3000, -3000, 0, 9000], 40)
    soundfile.write(tmp_path / "still.flac", np.repeat(levels, rate_hz).astype(np.int16), rate_hz)
    error = refusal(tmp_path / "still.flac")
    assert (error.reason, error.details["duration_s"]) == (QuarantineReason.SILENT, 40.0)
    assert "stand still" in error.message


@pytest.mark.parametrize("offset", [0, 5000])
def test_a_short_sound_in_long_silence_is_sound(offset: int, tmp_path: Path) -> None:
    samples = np.full(16_000 * 120, offset, np.int16)
    samples[800_000:801_600] += speechlike(1.0)[:1600]
    soundfile.write(tmp_path / "rare.flac", samples, 16_000)
    assert accepted((tmp_path / "rare.flac").read_bytes()) == 120.0

"""Which track, which channels, which links: what the samples of a recording are made of."""

import io

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from media_files import encoded, packets, speechlike
from places import AUDIO_CASES

from k2d.audio import blocks, examine, probe_channels
from k2d.errors import AudioError
from k2d.schema import QuarantineReason, Recording, Samples

SPEECH = speechlike(4.0)
OTHER = np.rint(np.random.default_rng(7).standard_normal(len(SPEECH)) * 6000).astype(np.int16)
NOTHING = np.zeros_like(SPEECH)


def wav(*channels: npt.NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack(channels, axis=1), 16_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def examined(data: bytes, **options: int) -> Recording:
    return examine(io.BytesIO(data), min_s=0.1, max_s=3600.0, silence_peak=0.001, **options)


def samples_of(data: bytes, recording: Recording) -> Samples:
    return np.concatenate(list(blocks(io.BytesIO(data), channels=recording.channels)))


# ---- channels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "selection", "note"),
    [
        ((SPEECH, SPEECH), (), None),
        ((SPEECH, -SPEECH), (1,), "opposite phase"),
        ((SPEECH // 2, -SPEECH), (2,), "opposite phase"),
        ((SPEECH, np.rint(-0.8 * SPEECH).astype(np.int16)), (1,), "opposite phase"),
        ((SPEECH, -SPEECH + OTHER // 40), (2,), "opposite phase"),
        ((SPEECH, np.concatenate([SPEECH[:32_000], -SPEECH[32_000:]])), (1,), "opposite phase"),
        ((SPEECH, NOTHING), (1,), "left out of the mix: 2 of 2"),
        ((NOTHING, SPEECH), (2,), "left out of the mix: 1 of 2"),
        ((NOTHING, NOTHING, SPEECH, NOTHING, SPEECH, NOTHING), (3, 5), "left out of the mix: 1, 2, 4, 6 of 6"),
        ((SPEECH, OTHER), (), "hold different sounds"),
        ((SPEECH, OTHER // 8), (), "`--channels each`"),  # 18 dB lower
        ((SPEECH, SPEECH // 8), (), None),
    ],
)
def test_the_mix(channels: tuple[npt.NDArray[np.int16], ...], selection: tuple[int, ...], note: str | None) -> None:
    data = wav(*channels)
    recording = examined(data)
    assert recording.channels == selection
    assert (note in recording.notes[0]) if note else not recording.notes
    kept = [channels[number - 1] for number in selection] or channels
    expected = np.mean([channel.astype(float) for channel in kept], axis=0)
    assert np.abs(samples_of(data, recording) - expected).max() <= 0.5


def test_a_mix_of_all_channels_has_the_id_it_had() -> None:
    recording = examined(wav(SPEECH, SPEECH))
    assert recording.id == examined(wav(SPEECH)).id
    assert (recording.channels, recording.notes, recording.quarantined_s) == ((), (), 0.0)


def test_one_channel_is_the_recording_that_it_would_be_alone() -> None:
    data = wav(SPEECH, OTHER)
    assert examined(data, channel=1).id == examined(wav(SPEECH)).id
    assert examined(data, channel=2).id == examined(wav(OTHER)).id
    with pytest.raises(AudioError, match="The file has 2 channels; channel 3 was asked for") as caught:
        examined(data, channel=3)
    assert caught.value.reason == QuarantineReason.NO_CHANNEL
    with pytest.raises(AudioError, match="Channel 2 of the recording is silent"):
        examined(wav(SPEECH, NOTHING), channel=2)
    assert probe_channels(io.BytesIO(data)) == 2
    assert probe_channels(io.BytesIO(b"no audio")) is None


@pytest.mark.parametrize("channels", [9, 12, 16, 24, 32, 64])
def test_many_packed_channels(channels: int) -> None:
    recording = examined(wav(*[SPEECH] * channels))
    assert recording.id == examined(wav(SPEECH)).id


@pytest.mark.parametrize(("codec", "format"), [("aac", "mp4"), ("pcm_f32le", "matroska")])
def test_many_planar_channels(codec: str, format: str) -> None:
    """A frame of 16 planes; PyAV knows 8. The encoder's frames never come to Python here."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(codec, rate=48_000)
        stream.layout = "hexadecagonal"
        packed = np.repeat(speechlike(2.0, 48_000)[:, None], 16, axis=1)
        for start in range(0, len(packed), 1024):
            piece = np.ascontiguousarray(packed[start : start + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="hexadecagonal")
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    recording = examined(buffer.getvalue())
    assert "16 channels" in recording.source_format
    assert recording.duration_s == pytest.approx(2.0, abs=0.1)
    assert recording.peak == pytest.approx(np.abs(speechlike(2.0, 48_000)).max() / 32768, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2, 9])
def test_64_bit_samples(channels: int) -> None:
    data = bytearray(wav(*[SPEECH] * channels))
    at = data.index(b"data")
    wide = (np.stack([SPEECH] * channels, axis=1).astype("<i8") << 48).tobytes()
    frames = len(wide).to_bytes(4, "little")
    format_ = b"fmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + channels.to_bytes(2, "little")
    format_ += (16_000).to_bytes(4, "little") + (16_000 * 8 * channels).to_bytes(4, "little")
    format_ += (8 * channels).to_bytes(2, "little") + (64).to_bytes(2, "little")
    body = b"WAVE" + format_ + bytes(data[at : at + 4]) + frames + wide
    assert examined(b"RIFF" + len(body).to_bytes(4, "little") + body).id == examined(wav(SPEECH)).id


# ---- tracks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "defaults", "video_s", "seconds", "why"),
    [
        ("matroska", (), 0.0, 6.0, "Track 2 of 2 is labeled: the longest."),
        ("matroska", (0,), 0.0, 4.0, "Track 1 of 2 is labeled: marked as default."),
        ("matroska", (1,), 9.0, 6.0, "Track 2 of 2 is labeled: marked as default."),
        ("mp4", (0,), 9.0, 4.0, "Track 1 of 2 is labeled: marked as default."),
        ("mp4", (1,), 0.0, 6.0, "Track 2 of 2 is labeled: marked as default."),
        ("mpegts", (), 9.0, 6.0, "Track 2 of 2 is labeled: the longest."),
    ],
)
def test_one_track_is_taken_and_is_whole(
    format: str, defaults: tuple[int, ...], video_s: float, seconds: float, why: str
) -> None:
    tracks = [("aac", speechlike(4.0, 48_000)), ("aac", speechlike(6.0, 48_000))]
    recording = examined(packets(tracks=tracks, format=format, defaults=defaults, video_s=video_s))
    assert recording.duration_s == pytest.approx(seconds, abs=0.1)
    assert recording.notes == (why,)


def test_equal_tracks_the_first_is_taken() -> None:
    tracks = [("aac", speechlike(4.0, 48_000)), ("aac", speechlike(4.0, 48_000, seed=1))]
    assert examined(packets(tracks=tracks, format="matroska")).notes == ("Track 1 of 2 is labeled: the first.",)


# ---- chained Ogg --------------------------------------------------------------------------------------------------


def ogg(codec: str, samples: npt.NDArray[np.int16], rate_hz: int = 48_000) -> bytes:
    return packets(tracks=[(codec, samples)], format="ogg", rate_hz=rate_hz)


def test_links_of_any_kind_are_joined() -> None:
    four, six = speechlike(4.0, 48_000), speechlike(6.0, 48_000)
    opus = ogg("libopus", four)
    stereo = np.stack([six, six], axis=1)
    for second, seconds in (
        (ogg("libopus", six), 6.0),
        (ogg("libopus", stereo), 6.0),
        (ogg("flac", six), 6.0),
        (ogg("flac", speechlike(6.0, 16_000), 16_000), 6.0),
        (opus, 4.0),  # with the same serial number
    ):
        recording = examined(opus + second)
        assert recording.duration_s == pytest.approx(4.0 + seconds, abs=0.01)
        assert recording.notes == ("The file has 2 parts, one behind the other (chained Ogg).",)
    assert examined(opus * 3).duration_s == pytest.approx(12.0, abs=0.01)


def test_a_chain_is_the_join_of_its_links() -> None:
    first, second = ogg("flac", SPEECH, 16_000), ogg("flac", OTHER, 16_000)
    assert examined(first + second).id == examined(wav(np.concatenate([SPEECH, OTHER]))).id


def test_a_chain_that_is_cut_or_damaged() -> None:
    first = ogg("libopus", speechlike(4.0, 48_000))
    second = ogg("libopus", np.stack([speechlike(6.0, 48_000)] * 2, axis=1))
    with pytest.raises(AudioError) as caught:
        examined(first + second[: len(second) // 2])
    assert caught.value.reason == QuarantineReason.TRUNCATED
    broken = bytearray(first + second)
    broken[len(first) // 2 : len(first) // 2 + 4000] = bytes(4000)
    with pytest.raises(AudioError) as caught:
        examined(bytes(broken))
    assert caught.value.reason == QuarantineReason.DAMAGED


# ---- headers that lie, tags ---------------------------------------------------------------------------------------


def multiplied(data: bytes, mark: bytes, offset: int, width: int, factor: float) -> bytes:
    changed = bytearray(data)
    at = data.index(mark) + offset
    changed[at : at + width] = int(int.from_bytes(data[at : at + width], "big") * factor).to_bytes(width, "big")
    return bytes(changed)


COUNTS = [
    ("libmp3lame", "mp3", b"Xing", 8, 4),
    ("pcm_s16be", "aiff", b"COMM", 10, 4),
    ("aac", "mp4", b"mvhd", 20, 4),
    ("aac", "mp4", b"mdhd", 20, 4),
]


@pytest.mark.parametrize(
    ("codec", "format", "mark", "offset", "width", "factor"),
    # what lies behind the counted samples of an AIFF is not sound
    [(*row, factor) for row in COUNTS for factor in (0.1, 2, 10) if row[1] != "aiff" or factor > 1],
)
def test_a_count_in_the_header_that_the_bytes_contradict(
    codec: str, format: str, mark: bytes, offset: int, width: int, factor: float
) -> None:
    data = encoded(codec, format, rate_hz=44_100, seconds=6.0)
    mark = b"Info" if mark == b"Xing" and mark not in data else mark
    assert examined(multiplied(data, mark, offset, width, factor)).duration_s == pytest.approx(6.0, abs=0.1)


def test_a_cut_mp3_is_still_truncated_and_a_lying_one_too_when_it_is_cut() -> None:
    data = (AUDIO_CASES / "A6_xing_x10.mp3").read_bytes()
    with pytest.raises(AudioError) as caught:
        examined(data[: len(data) // 2])
    assert caught.value.reason == QuarantineReason.TRUNCATED


def id3(size: int, *, footer: bool = False) -> bytes:
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + (b"\x10" if footer else b"\0") + length + bytes(size) + (b"3DI\4\0\x10" + length) * footer


APE = b"APETAGEX" + (1000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(4) + b"\0\0\0\xa0" + bytes(1008)
TAGS = [id3(10), id3(300_000), id3(50, footer=True), id3(50) + id3(70), id3(50) + bytes(999), APE]


@pytest.mark.parametrize("tag", TAGS, ids=["id3", "long", "footer", "two", "padding", "ape"])
@pytest.mark.parametrize(
    ("codec", "format"),
    [("pcm_s16le", "wav"), ("pcm_s16be", "aiff"), ("libopus", "ogg"), ("aac", "mp4"), ("libopus", "webm")],
)
def test_tags_before_the_content(tag: bytes, codec: str, format: str) -> None:
    data = encoded(codec, format, rate_hz=48_000)
    assert examined(tag + data).id == examined(data).id

"""Damaged and extreme audio in every container that PyAV writes, through the decoder's child processes."""

import io
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import av
import numpy as np
from fuzz_outcomes import Outcomes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from media_files import speechlike

from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits
from k2d.errors import AudioError
from k2d.schema import QuarantineReason

# format, codec, sample rate; what this FFmpeg cannot write is left out
_FORMATS: Final = """
    wav/pcm_s16le/16000 wav/pcm_f64le/16000 wav/adpcm_ms/16000 wav/gsm_ms/8000 w64/pcm_s24le/16000
    rf64/pcm_s16le/16000 aiff/pcm_s16be/16000 au/pcm_mulaw/8000 caf/pcm_s16be/16000 caf/alac/16000
    voc/pcm_u8/16000 flac/flac/16000 ogg/libvorbis/16000 ogg/libopus/48000 ogg/flac/16000 opus/libopus/48000
    mp3/libmp3lame/16000 mp2/mp2/16000 adts/aac/16000 mp4/aac/16000 ipod/alac/16000 mov/pcm_s16le/16000
    3gp/aac/16000 matroska/libopus/48000 matroska/flac/16000 matroska/pcm_s16le/16000 webm/libvorbis/48000
    asf/wmav2/16000 asf/wmav1/16000 flv/aac/16000 flv/libmp3lame/22050 mpegts/aac/16000 mpegts/mp2/32000
    mpeg/mp2/32000 avi/libmp3lame/16000 avi/pcm_s16le/16000 ac3/ac3/48000 eac3/eac3/48000 dts/dca/48000
    tta/tta/16000 wv/wavpack/16000 nut/pcm_s16le/16000 rm/ac3/48000 amr/libopencore_amrnb/8000
    spx/libspeex/16000 mxf/pcm_s16le/48000 gxf/pcm_s16le/48000 swf/libmp3lame/22050 sox/pcm_s32le/16000
    g722/g722/16000 truehd/truehd/48000 mlp/mlp/48000 aptx/aptx/16000
"""
_KINDS: Final = (kind.split("/") for kind in _FORMATS.split())
FORMATS: Final = tuple((format_, codec, int(rate)) for format_, codec, rate in _KINDS)
# what takes many channels
_MANY: Final = """
    wav/pcm_s16le matroska/pcm_s16le caf/pcm_s16be flac/flac wv/wavpack ogg/libopus mp4/aac aiff/pcm_s16be w64/pcm_s24le
"""
MANY: Final = tuple((format_, codec) for format_, codec in (kind.split("/") for kind in _MANY.split()))
CHANNELS: Final = (2, 3, 5, 6, 7, 8, 9, 10, 12, 16, 24, 32, 48, 63, 64)
SECONDS: Final = 1.0
LIMITS: Final = DecodeLimits(memory_mb=512, timeout_s=20.0)
OPTIONS: Final = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001}
EXTREMES: Final = (0, 1, 0x7F, 0x80, 0xFF)


def run(*, files: int, seed: int, folder: Path) -> Outcomes:
    """Examine and read this many damaged files, about a seventh of them with many channels."""
    outcomes = Outcomes("audio: files", folder)
    kinds = _kinds()
    outcomes.allowed["formats"] = len({name.partition(" ")[0] for name, _ in kinds})
    for number in range(files):
        rng = random.Random(f"{seed}/{number}")
        name, data = rng.choice(kinds)
        other = rng.choice(kinds)[1]
        mutated = data if number < len(kinds) and rng.random() < 0.1 else _mutated(data, other, rng)
        _decode(f"{seed}-{number} {name}", mutated, outcomes, as_upload=bool(number % 2))
    isolated.stop_server()
    return outcomes


def _kinds() -> list[tuple[str, bytes]]:
    """The whole files that this FFmpeg can write."""
    kinds = []
    for format_, codec, rate_hz in FORMATS:
        with suppress(av.FFmpegError, ValueError, LookupError):
            kinds.append((f"{format_} {codec}", _encoded(format_, codec, rate_hz, 1)))
    for channels in CHANNELS:
        for format_, codec in MANY:
            with suppress(av.FFmpegError, ValueError, LookupError):
                rate_hz = 48_000 if codec == "libopus" else 16_000
                kinds.append((f"{format_} {codec} {channels}ch", _encoded(format_, codec, rate_hz, channels)))
    return kinds


def _encoded(format_: str, codec: str, rate_hz: int, channels: int) -> bytes:
    buffer = io.BytesIO()
    samples = speechlike(SECONDS, rate_hz)
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    with av.open(buffer, "w", format=format_) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = layout
        stream.codec_context.options = {"strict": "-2"}
        for start in range(0, len(samples), 1024):
            piece = np.repeat(samples[start : start + 1024, None], channels, axis=1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece).reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if not buffer.getvalue():
        raise ValueError("nothing was written")
    return buffer.getvalue()


# ---- damage -------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, _: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 32, 256))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_header(data: bytearray, _: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(512, len(data)))] ^= 1 << rng.randrange(8)


def _extreme_field(data: bytearray, _: bytes, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    end = min(len(data), 1024)
    at = rng.randrange(max(1, end - size)) if rng.random() < 0.8 else max(0, len(data) - rng.randrange(1, end + 1))
    first, rest = rng.choice(EXTREMES), rng.choice((0, 0xFF))
    field = bytes((first, *(rest,) * (size - 1)))
    data[at : at + size] = field if rng.random() < 0.5 else field[::-1]


def _truncate(data: bytearray, _: bytes, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def _hole(data: bytearray, _: bytes, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((16, 512, 4096)))
    if rng.random() < 0.5:
        del data[start:stop]
    else:
        data[start:stop] = bytes(stop - start)


def _insert(data: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    start = rng.randrange(len(other))
    data[at:at] = other[start : start + 2048] if rng.random() < 0.5 else rng.randbytes(rng.choice((1, 64, 2048)))


def _repeat(data: bytearray, _: bytes, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = bytes(data[start : start + 1024])
    data[start:start] = piece * rng.choice((1, 8, 64))


DAMAGE: Final[tuple[Callable[[bytearray, bytes, random.Random], None], ...]] = (
    _flip, _flip_header, _flip_header, _extreme_field, _extreme_field, _truncate, _splice, _hole, _insert, _repeat,
)  # fmt: skip


def _mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if mutated:
            rng.choice(DAMAGE)(mutated, other, rng)
    return bytes(mutated)


# ---- decoding -----------------------------------------------------------------------------------------------------


def _decode(name: str, data: bytes, outcomes: Outcomes, *, as_upload: bool) -> None:
    """Probe, examine and read a file, as planning, labeling and the servers do; only AudioErrors may come of it."""
    outcomes.sent += 1
    with tempfile.NamedTemporaryFile(prefix="k2d-fuzz-") as file:
        file.write(data)
        file.flush()
        try:
            isolated.probe_duration_s(io.BytesIO(data) if as_upload else file.name, limits=LIMITS)
            recording = isolated.examine(io.BytesIO(data) if as_upload else file.name, **OPTIONS, limits=LIMITS)
            source = io.BytesIO(data) if as_upload else file.name
            with isolated.IsolatedReader(source, recording=recording, limits=LIMITS) as reader:
                read = len(reader.read(0, recording.samples))
            outcomes.allowed["decoded" if read == recording.samples else "decoded shorter"] += 1
        except AudioError as error:
            if error.reason == QuarantineReason.FAILED:
                outcomes.fault(f"uncaught in the child: {error.message[:120]}", data, suffix=f" {name}.bin")
            else:
                crash = error.reason == QuarantineReason.CRASHES_WORKER
                outcomes.allowed[_crash(error.message) if crash else str(error.reason)] += 1
        except Exception as error:  # noqa: BLE001 - the fault that is looked for
            outcomes.fault(f"{type(error).__name__}: {error}"[:150], data, suffix=f" {name}.bin")


def _crash(message: str) -> str:
    """How a child ended: by a signal, or at a limit."""
    return f"child: {message.rpartition('decoded: ')[2]}"

"""Real media files for tests, written by FFmpeg's own encoders."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def speechlike(seconds: float, rate_hz: int = 16_000, *, seed: int = 0) -> npt.NDArray[np.int16]:
    """A tone that swells and fades, with a little noise: nothing an encoder would drop; shape (n,)."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * 440 * at) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * at))
    noise = 0.02 * np.random.default_rng(seed).standard_normal(len(at))
    return np.rint((tone + noise) * 32767).astype(np.int16)


def write(
    path: Path | io.BytesIO,
    codec: str,
    *,
    seconds: float = 3.0,
    rate_hz: int = 16_000,
    channels: int = 1,
    format: str | None = None,
    video: bool = False,
    metadata: dict[str, str] | None = None,
) -> npt.NDArray[np.int16]:
    """Encode `speechlike` (the same in every channel) and give back what was encoded."""
    samples = speechlike(seconds, rate_hz)
    target = path if isinstance(path, io.BytesIO) else str(path)
    with av.open(target, "w", format=format) as container:
        container.metadata.update(metadata or {})
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = LAYOUTS[channels]
        stream.codec_context.options = {"strict": "experimental"}
        if video:
            for _ in range(round(seconds * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        for start in range(0, len(samples), 1024):
            piece = samples[start : start + 1024]
            frame = av.AudioFrame.from_ndarray(
                np.repeat(piece[:, None], channels, axis=1).reshape(1, -1), format="s16", layout=LAYOUTS[channels]
            )
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return samples


def encoded(codec: str, format: str, **options: object) -> bytes:
    """The bytes of such a file."""
    buffer = io.BytesIO()
    buffer.name = f"x.{format}"
    write(buffer, codec, format=format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def packets(
    *,
    tracks: Sequence[tuple[str, npt.NDArray[np.int16]]],
    rate_hz: int = 48_000,
    format: str,
    place: Callable[[int, float], float | None] = lambda _, at_s: at_s,
    video_s: float = 0.0,
    defaults: Sequence[int] = (),
    options: dict[str, str] | None = None,
) -> bytes:
    """A file whose packets are moved or left out: `place(track, time)` gives the time of a packet, None leaves it out.

    Args:
        tracks: codec and samples, shape (n,) or (n, channels), of each.
        video_s: with so many seconds of pictures, from 0.
        defaults: numbers of the tracks to mark as default.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options=options or {}) as container:
        muxed: list[tuple[float, av.Packet]] = []
        if video_s:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        streams = []
        for number, (codec, samples) in enumerate(tracks):
            channels = 1 if samples.ndim == 1 else samples.shape[1]
            stream = container.add_stream(codec, rate=rate_hz)
            stream.layout = LAYOUTS.get(channels, f"{channels}c")
            stream.codec_context.options = {"strict": "experimental"}
            if number in defaults:
                stream.disposition = av.stream.Disposition.default
            elif defaults:
                stream.disposition = av.stream.Disposition(0)
            streams.append(stream)
        if video_s:
            for _ in range(round(video_s * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                muxed += [(float(p.pts * p.time_base), p) for p in pictures.encode(picture)]
            muxed += [(float(p.pts * p.time_base), p) for p in pictures.encode(None)]
        for number, (stream, (_, samples)) in enumerate(zip(streams, tracks, strict=True)):
            for packet in _encoded_packets(stream, samples, rate_hz):
                at_s = float(packet.pts * packet.time_base)
                moved_s = place(number, at_s)
                if moved_s is None:
                    continue
                shift = round((moved_s - at_s) / packet.time_base)
                packet.pts += shift
                packet.dts += shift
                muxed.append((moved_s, packet))
        for _, packet in sorted(muxed, key=lambda pair: pair[0]):
            container.mux(packet)
    return buffer.getvalue()


def _encoded_packets(stream: av.AudioStream, samples: npt.NDArray[np.int16], rate_hz: int) -> Iterator[av.Packet]:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    layout = LAYOUTS.get(channels, f"{channels}c")
    for start in range(0, len(samples), 1024):
        piece = samples[start : start + 1024]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, start
        yield from stream.encode(frame)
    yield from stream.encode(None)

"""Real media files for tests, written by FFmpeg's own encoders."""

import io
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

"""Decoding in a child process against decoding in this one: throughput, and the cost of a short file.

    python bench/isolated_decode.py [--minutes 20] [--rounds 5]

Each row is the median of the rounds' ratios (in this process / in a child, above 1: the child is faster), alternating.
The goal is 0.9 or more for recordings; for short clips the milliseconds that a child adds to a file count.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import numpy as np

from k2d import audio
from k2d.audio import isolated

LIMITS = {"min_s": 0.1, "max_s": 86_400.0, "silence_peak": 0.001}
FORMATS = (("flac", "flac"), ("libmp3lame", "mp3"), ("aac", "mp4"), ("libopus", "ogg"), ("pcm_s16le", "wav"))
CLIP_S = 7.0
CLIPS = 50


def encoded(codec: str, format: str, seconds: float) -> bytes:
    """Noise that swells and fades, 48 kHz stereo."""
    rate = 48_000
    target = io.BytesIO()
    random = np.random.default_rng(0)
    with av.open(target, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "stereo"
        for second in range(round(seconds)):
            samples = (random.standard_normal((1, 2 * rate)) * 3000 * (1 + second % 3)).clip(-32768, 32767)
            frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16", layout="stereo")
            frame.sample_rate, frame.pts = rate, second * rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read(reader: audio.SampleReader) -> None:
    """As a teacher does: windows of 30 s."""
    with reader:
        start = 0
        while len(reader.read(start, start + 480_000)):
            start += 480_000
            reader.forget(start)


def compared(
    name: str, here: Callable[[], object], there: Callable[[], object], *, rounds: int, files: int = 1
) -> None:
    there()
    pairs = [(timed(here), timed(there)) for _ in range(rounds)]
    ratio = statistics.median(first / second for first, second in pairs)
    added_ms = statistics.median(second - first for first, second in pairs) / files * 1000
    print(
        f"{name:40} {statistics.median(first for first, _ in pairs):8.2f} s {ratio:7.2f} {added_ms:9.1f} ms", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'':40} {'here':>10} {'ratio':>7} {'added/file':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for codec, format in FORMATS:
            path = Path(folder, f"long.{format}")
            path.write_bytes(encoded(codec, format, arguments.minutes * 60))
            whole(f"{format} ({codec})", path, arguments.rounds)
        clip = Path(folder, "clip.flac")
        clip.write_bytes(encoded("flac", "flac", CLIP_S))
        for threads in (1, 4):
            compared(
                f"{CLIPS} clips of {CLIP_S:.0f} s, {threads} at once",
                partial(clips, audio.examine, clip, threads),
                partial(clips, isolated.examine, clip, threads),
                rounds=arguments.rounds,
                files=CLIPS,
            )


def whole(name: str, path: Path, rounds: int) -> None:
    """A long file: examined, read, and read out of an object without a descriptor, as an upload is."""
    data = path.read_bytes()
    for what, here, there in (
        ("examine", lambda: audio.examine(path, **LIMITS), lambda: isolated.examine(path, **LIMITS)),
        ("read", lambda: read(audio.SampleReader(path)), lambda: read(isolated.IsolatedReader(path))),
        (
            "examine upload",
            lambda: audio.examine(io.BytesIO(data), **LIMITS),
            lambda: isolated.examine(io.BytesIO(data), **LIMITS),
        ),
    ):
        compared(f"{name}, {what}", here, there, rounds=rounds)


def clips(examine: Callable[..., object], path: Path, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: examine(path, **LIMITS), range(CLIPS)))


if __name__ == "__main__":
    main()

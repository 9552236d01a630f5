"""Does a ten-hour recording fit in bounded memory? The worker's walk without the model, whose memory is its own affair.

    python bench/ten_hours.py [HOURS] [AUDIO…]

Joins the given recordings (default: the sample lecture) again and again into one WAV file of HOURS hours (default 10),
and walks it from source to facts with a transcriber that answers at once: a segment of 4.2 s for every 5 s, with a text
of its own. Decoding, hashing, seeking, packing, FLAC, Parquet, distances and facts are the real ones. Prints resident
memory before, at its peak and the difference, against the target of 600 MB.
"""

import argparse
import asyncio
import tempfile
import threading
import time
import wave
from pathlib import Path

import numpy as np

from k2d import audio
from k2d.documents import BatchOptions
from k2d.labeling.recording import Labeler
from k2d.labeling.request import make_batch
from k2d.schema import DecodeOptions, ModelInfo, Piece, TextScore, Window, WindowResult
from k2d.settings import load
from k2d.sources import from_path
from k2d.store import Lake
from k2d.validators.model import ModelValidator
from k2d.validators.perturb import PERTURBATIONS
from k2d.validators.protocol import Validators

TARGET_MB = 600
WORDS = (
    "我們",
    "這個",
    " model ",
    "的",
    " learning rate ",
    "設得",
    "太大",
    "就會",
    "震盪",
    "下禮拜",
    " deadline ",
    "之前",
)


class Instant:
    """A transcriber that speaks a few words every five seconds, different ones in each window."""

    model = ModelInfo("instant", "0" * 64, "none", "none", "cpu")

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        words = np.random.default_rng(len(window.samples) + abs(int(window.samples[::997].sum(dtype=np.int64))))
        pieces = []
        for start in range(0, int(len(window.samples) / 16_000) - 4, 5):
            text = "".join(words.choice(WORDS, 9))
            pieces.append(Piece(float(start), start + 4.2, text, tuple(range(20))))
        text = "".join(piece.text for piece in pieces)
        return WindowResult(text, (), tuple(pieces), None, -0.3, 0.0, 1.2, 0.0, options.language)

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        logprobs = (-0.5,) * max(1, len(text.encode()) // 3)
        return TextScore(tuple(range(len(logprobs))), logprobs, -0.5)

    async def close(self) -> None:
        return None


def resident_mb() -> float:
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def long_wav(path: Path, hours: float, parts: list[Path]) -> None:
    """Join recordings into one file, block by block."""
    left = round(hours * 3600 * 16_000)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        while left:
            for part in parts:
                for block in audio.blocks(part):
                    out.writeframes(block[:left].tobytes())
                    left -= len(block[:left])


async def walk(source: Path, store: str) -> float:
    settings = load(store=store)
    batch = make_batch([from_path(source)], BatchOptions(), settings, trusted=True)
    instant = Instant()
    labeler = Labeler(
        Lake(store),
        teacher=instant,
        validators=Validators(ModelValidator(instant, "zh-en", PERTURBATIONS)),
        batch=batch,
        settings=settings,
    )
    return (await labeler.run(0)).duration_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", type=float, nargs="?", default=10.0)
    parser.add_argument("parts", type=Path, nargs="*", metavar="AUDIO")
    asked = parser.parse_args()
    hours, parts = asked.hours, asked.parts or [Path("examples/audio/lecture.ogg")]
    peak, running = resident_mb(), True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, resident_mb())
            time.sleep(0.05)

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "long.wav")
        long_wav(source, hours, parts)
        before = peak = resident_mb()
        threading.Thread(target=watch, daemon=True).start()
        started = time.monotonic()
        duration_s = asyncio.run(walk(source, str(Path(folder, "lake"))))
        wall_s = time.monotonic() - started
        running = False
    print(f"{duration_s / 3600:.2f} h in {wall_s:.0f} s ({duration_s / wall_s:.0f} × real time, no model)")
    print(f"resident memory: {before:.0f} MB before, {peak:.0f} MB at its peak, {peak - before:.0f} MB more")
    print(f"target: under {TARGET_MB} MB beyond the model: {'met' if peak < TARGET_MB else 'missed'}")


if __name__ == "__main__":
    main()

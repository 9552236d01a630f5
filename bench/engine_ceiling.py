"""The engine's own ceiling: windows already cut, batch after batch, in times real time.

    python bench/engine_ceiling.py [--engine ctranslate2] [--compute-type auto]

Windows are full 30 s stretches of the measuring data's long recordings, greedy, without fallback. Twice for each
batch size: with the features computed inside (as in use), and their share taken off.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import soundfile

from k2d.schema import WINDOW_S, WINDOW_SAMPLES, DecodeOptions, Window
from k2d.settings import load
from k2d.whisper.features import log_mel
from k2d.whisper.load import open_engine

DATA = Path(__file__).parents[2] / "shared" / "data" / "public"
BATCHES = (1, 4, 8, 16)
OPTIONS = DecodeOptions(temperatures=(0.0,))


def windows(count: int) -> list[Window]:
    """Full windows from the long recordings, in order."""
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text("utf-8").splitlines()]
    found: list[Window] = []
    for row in (row for row in rows if row["kind"] == "longform"):
        samples = soundfile.read(DATA / row["audio"], dtype="int16")[0]
        starts = range(0, len(samples) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES)
        found += [Window(samples[start : start + WINDOW_SAMPLES]) for start in starts]
    return found[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="packaged:whisper-base")
    parser.add_argument("--engine", default="ctranslate2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--windows", type=int, default=32, help="how many windows; a multiple of 16 keeps batches full")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    engine = open_engine(
        arguments.model,
        engine=arguments.engine,
        device=arguments.device,
        compute_type=arguments.compute_type,
        threads=arguments.threads,
        cache=load().cache,
        allow_downloads=True,
    )
    found = windows(arguments.windows)
    audio_s = len(found) * WINDOW_S
    engine.transcribe(found[:1], OPTIONS)  # warm up
    started = time.perf_counter()
    for window in found:
        log_mel(window.samples, mels=80)
    features_s = time.perf_counter() - started
    print(f"{len(found)} windows; features alone: {1000 * features_s / len(found):.0f} ms a window")
    print("batch   × real time   without features")
    for batch in BATCHES:
        started = time.perf_counter()
        for at in range(0, len(found), batch):
            engine.transcribe(found[at : at + batch], OPTIONS)
        seconds = time.perf_counter() - started
        print(f"{batch:5}   {audio_s / seconds:11.1f}   {audio_s / (seconds - features_s):16.1f}")


if __name__ == "__main__":
    main()

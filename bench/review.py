"""How fast labels are reviewed on the console's page, by a script that acts at human speed, in a real Chromium.

Makes a store with a batch of short segments (tones of 1.5 to 4 s), serves the labeling API from a process of its own,
and answers a hundred drawn segments: it hears the whole segment, thinks for 0.6 s, and presses Enter where the label is
right, a number where a hypothesis is, and edits the rest at six characters a second. 84 of 100 labels are right, which
is what a good teacher gets. Prints the median seconds of a right one, how much of it is listening, and how long it
takes from a key to the sound of the next clip.

    python bench/review.py --segments 100
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

import httpx
import numpy as np

from k2d import audio
from k2d.corpus.calibration.desk import next_segments
from k2d.corpus.calibration.draws import make_draw
from k2d.documents import BatchOptions, ReviewItem
from k2d.filtering.evidence import weigh
from k2d.filtering.policy import DEFAULT
from k2d.keys import digest
from k2d.labeling.request import make_batch
from k2d.labeling.validate import facts_of
from k2d.schema import (
    SAMPLE_RATE_HZ,
    Chunk,
    Hypothesis,
    ModelInfo,
    Outcome,
    Recording,
    RecordingResult,
    Segment,
    Source,
)
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.reviews import ReviewOrder

CHROMIUM: Final = "/usr/bin/chromium"
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--autoplay-policy=no-user-gesture-required")
RIGHT: Final = 0.84
THINKS_S: Final = 0.6  # chosen: a choice between few keys takes a practised person about that long
TYPES_PER_S: Final = 6.0
WORDS: Final = "今天 這堂 課 我們 先來 review 一下 昨天 的 deadline 然後 再 看 gradient 怎麼 算"
MODEL: Final = ModelInfo("bench/teacher", "a" * 64, "ctranslate2", "int8", "cpu")
VALIDATOR: Final = "model:bench/validator"
# when a key was pressed, and when the next clip began to sound
WATCH: Final = """
window.k2dTimes = [];
let pressed = 0;
document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
document.addEventListener("playing", (event) => {
  if (event.target.currentTime < 0.05 && pressed) { window.k2dTimes.push(performance.now() - pressed); pressed = 0; }
}, true);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        draw, wrong = make_store(root, asked.segments)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "--factory", "services.filter.app:create_app", "--port", str(port)]
        server = subprocess.Popen([*command, "--log-level", "error"], env=os.environ | {"K2D_STORE": root})
        try:
            print(json.dumps(review(f"http://127.0.0.1:{port}", Lake(root), draw, wrong, asked.segments), indent=1))
        finally:
            server.terminate()
            server.wait(20)


def make_store(root: str, segments: int) -> tuple[str, dict[str, str]]:
    """A batch and a draw; returns the draw's id, and what is said where the label is wrong, by label."""
    lake, rng, words = Lake(root), np.random.default_rng(0), WORDS.split()
    recordings = max(8, segments // 4)
    sources = [Source(f"talk-{n}.wav", f"lake://uploads/{n}", digest("bench", n)) for n in range(recordings)]
    options = BatchOptions(name="bench", teacher=MODEL.reference, validator="bench/validator")
    batch = make_batch(sources, options, Settings(_env_file=None))
    lake.batches.put(batch)
    wrong: dict[str, str] = {}
    for n in range(recordings):
        recording = Recording(f"rec_{digest('bench', n)[:24]}", 60.0, 960_000, 0.5, "wav, 16000 Hz, 1 channel")
        label_key, facts_key, at, rows = digest("label", n), digest("facts", n), 0.0, []
        meta = {
            "label_key": label_key,
            "recording": recording,
            "teacher": MODEL,
            "options": batch.options,
            "version": 1,
        }
        with lake.labels.writer(label_key, meta) as out:
            for index in range(6):
                length = round(float(rng.uniform(1.5, 4.0)), 2)
                text = " ".join(rng.choice(words, 7)) + f" {n * 6 + index}"
                if rng.random() > RIGHT:
                    wrong[text] = text.replace(text.split()[0], "其實", 1)
                heard = wrong.get(text, text) if rng.random() < 0.5 else text
                chunk = Chunk(index, (Segment(at, round(at + length, 2), text, (1, 2), -0.2, 0.0, 1.1, 0.0, "zh-en"),))
                samples = 12_000 * np.sin(2 * np.pi * 300 * np.arange(round(length * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)
                out.write(chunk, audio.encode_flac(samples.astype(np.int16)))
                hypotheses = (Hypothesis(VALIDATOR, "as is", heard, -0.3, (-0.4,)),)
                weighed = weigh(chunk.segments, hypotheses)
                named = {"facts_key": facts_key, "recording_id": recording.id, "validators": VALIDATOR}
                rows.append(facts_of(chunk, hypotheses, weighed, **named))
                at = round(at + length + 0.5, 2)
        lake.facts.write(facts_key, rows, meta | {"validator": MODEL, "validator_name": VALIDATOR})
        name = sources[n].name
        lake.batches.put_result(
            batch.id, RecordingResult(n, name, Outcome.LABELED, 60.0, recording.id, label_key, facts_key, wall_s=1.0)
        )
    # more draws than answers are given, so that the script never comes to the end
    return make_draw(lake, [batch], DEFAULT, count=4 * segments, seed=0, order=ReviewOrder.RANDOM).id, wrong


def review(url: str, lake: Lake, draw: str, wrong: dict[str, str], count: int) -> dict[str, Any]:
    """Answer `count` segments; returns the figures."""
    from playwright.sync_api import sync_playwright

    items: list[ReviewItem] = []
    while len(items) < count:
        after = items[-1].number if items else -1
        items += next_segments(lake, draw, reviewer="bench", after=after, limit=50).segments
    right: list[float] = []
    others: list[float] = []
    listening: list[float] = []
    _wait(url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{url}/review/{draw}", timeout=60_000)
        began = time.perf_counter()
        for item in items[:count]:
            page.wait_for_function(
                "n => document.getElementById('place').textContent.match(/\\d+/)?.[0] == n"
                " && document.querySelector('#player audio')?.ended",
                arg=item.number + 1,
                timeout=60_000,
            )
            time.sleep(THINKS_S)
            _answer(page, item, wrong)
            took, began = time.perf_counter() - began, time.perf_counter()
            if item.label in wrong:
                others.append(took)
            else:
                right.append(took)
                listening.append(item.end_s - item.start_s)
        page.wait_for_function("() => document.getElementById('state').textContent.includes('stored')", timeout=60_000)
        times = page.evaluate("window.k2dTimes")
        browser.close()
    return {
        "right": len(right),
        "other": len(others),
        "median seconds of a right one": round(statistics.median(right), 2),
        "of which listening": round(statistics.median(listening), 2),
        "of which thinking": THINKS_S,
        "median seconds of another": round(statistics.median(others), 2) if others else None,
        "key to sound, ms, median": round(statistics.median(times), 1),
        "key to sound, ms, 95 %": round(float(np.quantile(times, 0.95)), 1),
        "load average": os.getloadavg()[0],
    }


def _answer(page: Any, item: ReviewItem, wrong: dict[str, str]) -> None:
    said = wrong.get(item.label)
    if said is None:
        page.keyboard.press("Enter")
    elif any(candidate.text == said for candidate in item.candidates):
        page.keyboard.press("1")
    else:
        page.keyboard.press("e")
        page.keyboard.press("Control+a")
        page.keyboard.type(said[:12], delay=1000 / TYPES_PER_S)  # about what a correction has
        page.keyboard.insert_text(said[12:])
        page.keyboard.press("Enter")


def _wait(url: str) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
            return
        time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()

"""Our long-form text against faster-whisper's, on the same weights at equal options.

    python bench/longform_parity.py [--every N] [--cases N] [--kinds longform,joined,real,tts-longform]

Both transcribe the measuring data's long, joined and real recordings (../shared/data) with Whisper base in int8: greedy
and with 5 beams, with and without temperature fallback, with and without previous text, without VAD; prompted with each
recording's own language (zh for code-switched ones, since faster-whisper has no mixed prompt), or detecting it for each
window. The table has the corpus MER of each against the references, the MER between the two, the speed of each in times
real time (ours: all recordings concurrent through the micro-batcher; theirs: one after the other, as its API works) and
the peak memory of each, which runs in a process of its own. Target: the two corpus MERs within 0.5 % absolute.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile
from rapidfuzz.distance import Levenshtein

from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import DecodeOptions, LongformOptions, Samples, join_text
from k2d.settings import load
from k2d.text.reading import read
from k2d.whisper.load import open_engine
from k2d.whisper.resolve import resolve

DATA = Path(__file__).parents[2] / "shared" / "data"
REFERENCE = "packaged:whisper-base"
FULL = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BATCH = 16
THREADS = 2


@dataclass(frozen=True)
class Item:
    """One recording with its references (none where nobody knows what is said)."""

    path: Path
    language: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    auto: bool
    temperatures: tuple[float, ...]
    previous: bool
    beams: int = 1

    @property
    def name(self) -> str:
        return (
            f"{'auto ' if self.auto else 'given'}  {'fallback' if len(self.temperatures) > 1 else 'T = 0   '}  "
            f"{'previous text' if self.previous else 'no previous  '}  beam {self.beams}"
        )


CASES = (
    Case(False, (0.0,), False),
    Case(False, (0.0,), True),
    Case(False, FULL, False),
    Case(False, FULL, True),
    Case(True, FULL, False),
    Case(False, (0.0,), False, beams=5),
    Case(False, FULL, False, beams=5),
)


def items(every: int, kinds: Sequence[str]) -> list[Item]:
    """Long, joined and real recordings: each kind's first and every `every`th after it."""
    found = []
    for folder in ("public", "real"):
        rows = [json.loads(line) for line in (DATA / folder / "manifest.jsonl").read_text("utf-8").splitlines()]
        for row in (row for kind in kinds for row in [row for row in rows if row["kind"] == kind][::every]):
            texts = [row[key] for key in ("text", "text_spoken") if row.get(key) not in (None, "none")]
            if texts:
                found.append(
                    Item(DATA / folder / row["audio"], "en" if row["language"] == "en" else "zh", tuple(texts))
                )
    return found


def samples(item: Item) -> Samples:
    held: Samples = soundfile.read(item.path, dtype="int16")[0]
    return held


class Held:
    """A recording in memory, read by index."""

    def __init__(self, held: Samples) -> None:
        self.held = held

    def read(self, start: int, stop: int) -> Samples:
        return self.held[start:stop]


def ours(cases: Sequence[Case], recordings: Sequence[Item]) -> tuple[list[list[str]], list[float], float]:
    """Texts and seconds for each case, and the process's peak memory in MB."""
    engine = open_engine(
        REFERENCE,
        engine="ctranslate2",
        device="cpu",
        compute_type="int8",
        threads=THREADS,
        cache=load().cache,
        allow_downloads=True,
    )
    audio = [samples(item) for item in recordings]

    async def one(transcriber: MicroBatcher, held: Samples, case: Case, language: str) -> str:
        decode = DecodeOptions(
            language="auto" if case.auto else language, beam_size=case.beams, temperatures=case.temperatures
        )
        options = LongformOptions(decode=decode, condition_on_previous_text=case.previous)
        stream = transcribe(Held(held), transcriber, options, total_samples=len(held))
        return join_text([segment.text async for segment in stream])

    async def all_of(case: Case) -> list[str]:
        transcriber = MicroBatcher(engine, batch_size=BATCH)
        pairs = zip(audio, recordings, strict=True)
        return await asyncio.gather(*(one(transcriber, held, case, item.language) for held, item in pairs))

    texts, seconds = [], []
    for case in cases:
        started = time.perf_counter()
        texts.append(asyncio.run(all_of(case)))
        seconds.append(time.perf_counter() - started)
    return texts, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def theirs(cases: Sequence[Case], recordings: Sequence[Item]) -> tuple[list[list[str]], list[float], float]:
    """The same with faster-whisper."""
    from faster_whisper import WhisperModel

    path = resolve(REFERENCE, engine="ctranslate2", cache=load().cache, allow_downloads=True).path
    model = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=THREADS)
    audio = [samples(item).astype("float32") / 32_768 for item in recordings]
    texts: list[list[str]] = []
    seconds = []
    for case in cases:
        started = time.perf_counter()
        texts.append([])
        for wave, item in zip(audio, recordings, strict=True):
            segments, _ = model.transcribe(
                wave,
                language=None if case.auto else item.language,
                multilingual=case.auto,  # detect per window, as ours does
                beam_size=case.beams,
                temperature=case.temperatures,
                condition_on_previous_text=case.previous,
            )
            texts[-1].append(join_text([segment.text for segment in segments]))
        seconds.append(time.perf_counter() - started)
    return texts, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def corpus_mer(texts: Sequence[str], recordings: Sequence[Item]) -> float:
    """Sum of edits over sum of reference tokens, each recording against the better of its references."""
    edits = tokens = 0
    for text, item in zip(texts, recordings, strict=True):
        heard = read(text).tokens
        scored = [
            (Levenshtein.distance(heard, reference), len(reference))
            for reference in (read(text).tokens for text in item.references)
        ]
        if scored:
            best = min(scored)
            edits, tokens = edits + best[0], tokens + best[1]
    return edits / tokens


def between(left: Sequence[str], right: Sequence[str]) -> float:
    """MER of `left` with `right` as the reference."""
    pairs = [(read(a).tokens, read(b).tokens) for a, b in zip(left, right, strict=True)]
    return sum(Levenshtein.distance(a, b) for a, b in pairs) / max(1, sum(len(b) for _, b in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--every", type=int, default=8, help="take every nth recording of a kind (1: all, 76 min of audio)"
    )
    parser.add_argument("--kinds", default="longform,joined,real,tts-longform")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many rows of the table")
    parser.add_argument("--beams", type=int, help="only the rows with so many beams")
    arguments = parser.parse_args()
    cases = [case for case in CASES[: arguments.cases] if arguments.beams in (None, case.beams)]
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    recordings = items(arguments.every, arguments.kinds.split(","))
    audio_s = sum(soundfile.info(item.path).duration for item in recordings)
    print(
        f"{len(recordings)} recordings, {audio_s / 60:.1f} min, {THREADS} threads, batch {BATCH}; speed in × real time"
    )
    print("case                                          MER ours  theirs   diff     between   ours ×  theirs ×")
    results = []
    for run in (ours, theirs):  # one after the other, each in its own process: memory is counted apart
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results.append(pool.submit(run, cases, recordings).result())
    (our_texts, our_s, our_mb), (their_texts, their_s, their_mb) = results
    for at, case in enumerate(cases):
        mine, yours = corpus_mer(our_texts[at], recordings), corpus_mer(their_texts[at], recordings)
        apart = between(our_texts[at], their_texts[at])
        print(
            f"{case.name:44}  {mine:8.4f}  {yours:6.4f}  {mine - yours:+7.4f}   {apart:7.4f}"
            f"  {audio_s / our_s[at]:6.1f}  {audio_s / their_s[at]:7.1f}"
        )
    print(f"peak memory with all audio held: ours {our_mb:.0f} MB, theirs {their_mb:.0f} MB")


if __name__ == "__main__":
    main()

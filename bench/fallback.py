"""Which of the fallback's searches still change anything when the first decode has beams?

    python bench/fallback.py [--every 1] [--beams 1,5]

Decodes the measuring data's clips (../shared/data) as the teacher does, and those that need fallback with every search
of the ladder (docs/adr/0002) by itself. A row per search: how many windows reach it, how many it accepts, how many get
another text than the search before gave, and the errors (mixed tokens against the reference) before and after.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import soundfile
from rapidfuzz.distance import Levenshtein

from k2d.schema import WINDOW_SAMPLES, DecodeOptions, Window, WindowResult
from k2d.settings import load
from k2d.text.reading import read
from k2d.whisper.deterministic_fallback import search_at
from k2d.whisper.fallback import needs_fallback
from k2d.whisper.load import open_engine

DATA = Path(__file__).parents[2] / "shared" / "data"
REFERENCE = "packaged:whisper-base"


def clips(every: int) -> list[tuple[Window, tuple[str, ...]]]:
    """Recordings of at most 30 s with their references."""
    chosen: list[tuple[Window, tuple[str, ...]]] = []
    for folder in ("public", "real"):
        for line in (DATA / folder / "manifest.jsonl").read_text("utf-8").split("\n"):
            row = json.loads(line) if line else {}
            if row and row["duration"] < 30 and row["text"] != "none":
                samples = soundfile.read(DATA / folder / row["audio"], dtype="int16")[0][:WINDOW_SAMPLES]
                chosen.append((Window(samples), (row["text"], str(row.get("text_spoken") or row["text"]))))
    return chosen[::every]


def errors(result: WindowResult, references: tuple[str, ...]) -> int:
    """Edits to the nearer reference."""
    return min(Levenshtein.distance(read(result.text).tokens, read(text).tokens) for text in references)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every nth clip")
    parser.add_argument("--beams", default="1,5")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    engine = open_engine(
        REFERENCE,
        engine="ctranslate2",
        device="cpu",
        compute_type="int8",
        threads=2,
        cache=load().cache,
        allow_downloads=True,
    )
    chosen = clips(arguments.every)
    print(f"{len(chosen)} clips, {REFERENCE} int8")
    for beams in map(int, arguments.beams.split(",")):
        options = DecodeOptions(beam_size=beams)
        first = engine.transcribe([window for window, _ in chosen], replace(options, temperatures=(0.0,)))
        failed = [
            (window, references, result)
            for (window, references), result in zip(chosen, first, strict=True)
            if needs_fallback(result, options)  # type: ignore[arg-type]  # has the signals of a DecodingResult
        ]
        print(f"\nbeam {beams}: {len(failed)} windows need fallback")
        print("temperature  search                reach  accepted  changed  errors before  after")
        for temperature in options.temperatures[1:]:
            search = search_at(temperature, options)
            results = engine.transcribe(
                [window for window, _, _ in failed], replace(options, temperatures=(temperature,))
            )
            changed = sum(new.text != old.text for new, (_, _, old) in zip(results, failed, strict=True))
            before = sum(errors(old, references) for _, references, old in failed)
            after = sum(errors(new, references) for new, (_, references, _) in zip(results, failed, strict=True))
            left = [
                (window, references, new)
                for new, (window, references, _) in zip(results, failed, strict=True)
                if needs_fallback(new, options)  # type: ignore[arg-type]
            ]
            name = f"{search.beam_size} beams" + (
                f", no {search.no_repeat_ngram_size}-gram twice" if search.no_repeat_ngram_size else ""
            )
            accepted = len(failed) - len(left)
            print(f"{temperature:11g}  {name:32}{len(failed):5}{accepted:10}{changed:9}{before:15}{after:7}")
            failed = left


if __name__ == "__main__":
    main()

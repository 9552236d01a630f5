"""How well do rules on text tell hallucinations from speech? Precision, recall and F1 on zh-hallu, overall and by kind.

    python bench/zh_hallu.py

Reads bench/data/zh_hallu/zh_hallu.jsonl (docs/zh-hallu.md says what it is), writes a Markdown table. The rules beside
ours are written anew from their public descriptions, with their published thresholds:

- n-gram: the paper's, a character 6-gram more than 5 times.
- zlib: Whisper's compression ratio above 2.4.
- white space: NeMo's speech data processor (its Whisper hallucination features); words are what stands between spaces.
  Repeated words: at most 0.4 of them are different. Long word: 25 characters or more, or 3 times longer again than the
  second longest. Few characters: at most 4 a second.
- substrings: any phrase of our list anywhere in the text, as many projects filter.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from k2d.text.phrases import listed
from k2d.text.reading import read
from k2d.text.repetition import REPETITION_MAX, compression_ratio
from k2d.text.suspicions import is_hallucination
from k2d.textfiles import read_lines

DATA = Path(__file__).parent / "data" / "zh_hallu" / "zh_hallu.jsonl"
SPLITS = ("dev", "test")

ZLIB_MAX = 2.4
UNIQUE_MAX = 0.4
LONG_WORD = 25
LONG_WORD_TIMES = 3
CHARACTERS_PER_S = 4


@dataclass(frozen=True)
class Item:
    """One text with what is known of it."""

    id: str
    split: str
    label: bool  # a hallucination
    kind: str
    text: str
    duration_s: float
    note: str
    prompt: str = ""


@dataclass(frozen=True)
class Score:
    """Counts of one rule on some items."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        both = 2 * self.true_positives
        return both / max(1, both + self.false_positives + self.false_negatives)


def load(path: Path = DATA) -> list[Item]:
    """Read the set, in its order."""
    return [Item(**json.loads(line)) for line in read_lines(path)]


# ---- rules --------------------------------------------------------------------------------------------------------


def ours(item: Item) -> bool:
    return is_hallucination(item.text, prompt=item.prompt, duration_s=item.duration_s)


def ours_text_alone(item: Item) -> bool:
    return is_hallucination(item.text)


def ngram(item: Item) -> bool:
    return read(item.text).repetition > REPETITION_MAX


def zlib_ratio(item: Item) -> bool:
    return compression_ratio(item.text) > ZLIB_MAX


def repeated_words(item: Item) -> bool:
    words = item.text.split()
    return len(set(words)) <= UNIQUE_MAX * len(words)


def long_word(item: Item) -> bool:
    lengths = sorted(map(len, item.text.split()))
    return lengths[-1] >= LONG_WORD or (len(lengths) > 1 and lengths[-1] - lengths[-2] >= LONG_WORD_TIMES * lengths[-2])


def few_characters(item: Item) -> bool:
    return sum(map(len, item.text.split())) <= CHARACTERS_PER_S * item.duration_s


def white_space(item: Item) -> bool:
    return repeated_words(item) or long_word(item)


def white_space_and_rate(item: Item) -> bool:
    return white_space(item) or few_characters(item)


def substrings(item: Item) -> bool:
    text = read(item.text).normalised.replace(" ", "")
    return any(phrase in text for phrase in _list())


@cache
def _list() -> tuple[str, ...]:
    return tuple(read(phrase).normalised.replace(" ", "") for phrase in listed())


RULES: dict[str, Callable[[Item], bool]] = {
    "k2d": ours,
    "k2d without prompt and duration": ours_text_alone,
    "n-gram (paper)": ngram,
    "zlib > 2.4 (Whisper)": zlib_ratio,
    "n-gram or zlib": lambda item: ngram(item) or zlib_ratio(item),
    "white space: repeated words": repeated_words,
    "white space: long word": long_word,
    "white space: either": white_space,
    "white space: either, or few characters": white_space_and_rate,
    "phrase list as substrings": substrings,
    "substrings or n-gram or zlib": lambda item: substrings(item) or ngram(item) or zlib_ratio(item),
}
BY_KIND = ("k2d", "n-gram (paper)", "zlib > 2.4 (Whisper)", "white space: either", "phrase list as substrings")


# ---- scores -------------------------------------------------------------------------------------------------------


def score(rule: Callable[[Item], bool], items: Iterable[Item]) -> Score:
    """Apply a rule to items and count."""
    answers = [(rule(item), item.label) for item in items]
    return Score(
        true_positives=answers.count((True, True)),
        false_positives=answers.count((True, False)),
        false_negatives=answers.count((False, True)),
    )


def report(items: list[Item]) -> str:
    """The tables, in Markdown."""
    lines = [
        "| rule | dev: precision | recall | F1 | test: precision | recall | F1 | µs a text |",
        "|---|" + "--:|" * 7,
    ]
    for name, rule in RULES.items():
        started = time.perf_counter()
        scores = [score(rule, [item for item in items if item.split == split]) for split in SPLITS]
        each_us = (time.perf_counter() - started) / len(items) * 1e6
        cells = [f"{value:.3f}" for one in scores for value in (one.precision, one.recall, one.f1)]
        lines.append(f"| {name} | {' | '.join(cells)} | {each_us:.0f} |")
    lines += ["", "Flagged, of all texts of a kind (both splits):", ""]
    lines += [f"| kind | texts | {' | '.join(BY_KIND)} |", "|---|" + "--:|" * (1 + len(BY_KIND))]
    for title, label in (("hallucinations", True), ("near-misses", False)):
        kinds = defaultdict(list)
        for item in items:
            if item.label == label:
                kinds[item.kind].append(item)
        lines.append(f"| **{title}** | {sum(map(len, kinds.values()))} |{' |' * len(BY_KIND)}")
        for kind, members in kinds.items():
            flagged = [sum(map(RULES[name], members)) for name in BY_KIND]
            lines.append(f"| {kind} | {len(members)} | {' | '.join(map(str, flagged))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(load()))

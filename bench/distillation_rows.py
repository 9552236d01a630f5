"""What the benchmarks of distillation train on: the sample audio packed as the labeling packs it, or made-up rows."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k2d.audio import blocks
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S, Samples
from k2d.whisper.features import FRAMES, TOKEN_S, log_mel
from k2d.whisper.scoring import tokens as spelled
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import DecoderTokens, PreparedRow

EXAMPLES = Path(__file__).parent.parent / "examples" / "audio"
MADE_UP_TOKENS = 150  # of a 30 s chunk of speech


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech and what is said in it."""

    samples: Samples
    text: str


def sample_rows(vocabulary: Vocabulary, *, mels: int, longest_s: float) -> list[PreparedRow]:
    """The sample audio as training rows with timestamps, the mixed prompt and no previous text.

    Args:
        longest_s: utterances are put one after the other up to this length; 0: each is a row of its own.
    """
    packed = packed_utterances(longest_s)
    return [_row(f"row {number}", row, vocabulary=vocabulary, mels=mels) for number, row in enumerate(packed)]


def packed_utterances(longest_s: float) -> list[list[Utterance]]:
    """The sample audio's utterances as rows of at most `longest_s` or of one utterance; 0: each is a row."""
    rows: list[list[Utterance]] = []
    left = 0.0
    for utterance in _utterances():
        length = len(utterance.samples) / SAMPLE_RATE_HZ
        if length > left:
            rows.append([])
            left = longest_s or WINDOW_S
        rows[-1].append(utterance)
        left = left - length if longest_s else 0.0
    return rows


def made_up_rows(vocabulary: Vocabulary, *, mels: int, count: int) -> list[PreparedRow]:
    """Rows of noise and random text: what is computed does not depend on what is said."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        text = generator.integers(0, 50_000, MADE_UP_TOKENS - 5).tolist()
        prompt = (vocabulary.sot, vocabulary.sot_lm, vocabulary.transcribe)
        tokens = (*prompt, vocabulary.timestamp_begin, *text, vocabulary.timestamp_begin + 1500, vocabulary.eot)
        features = generator.standard_normal((mels, FRAMES), dtype=np.float32)
        rows.append(PreparedRow(f"row {number}", features, DecoderTokens(tokens, len(prompt)), WINDOW_S))
    return rows


def _utterances() -> list[Utterance]:
    found = []
    for line in (EXAMPLES / "manifest.jsonl").read_text("utf-8").splitlines():
        given = json.loads(line)
        if not given["text"] or given["duration"] < 1.0:
            continue
        samples = np.concatenate(list(blocks(EXAMPLES / given["audio"])))
        for part in given.get("segments", [{"start": 0.0, "end": given["duration"], "text": given["text"]}]):
            if part["text"]:
                start, end = (round(part[at] * SAMPLE_RATE_HZ) for at in ("start", "end"))
                found.append(Utterance(samples[start:end], part["text"]))
    return found


def _row(name: str, utterances: list[Utterance], *, vocabulary: Vocabulary, mels: int) -> PreparedRow:
    prompt = (vocabulary.sot, vocabulary.sot_lm, vocabulary.transcribe)
    tokens = list(prompt)
    at = 0.0
    for utterance in utterances:
        end = min(at + len(utterance.samples) / SAMPLE_RATE_HZ, WINDOW_S)
        stamps = [vocabulary.timestamp_begin + round(second / TOKEN_S) for second in (at, end)]
        tokens += [stamps[0], *spelled(utterance.text, vocabulary=vocabulary), stamps[1]]
        at = end
    samples = np.concatenate([utterance.samples for utterance in utterances])
    label = DecoderTokens((*tokens, vocabulary.eot), len(prompt))
    return PreparedRow(name, log_mel(samples, mels=mels), label, len(samples) / SAMPLE_RATE_HZ)

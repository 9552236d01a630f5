"""The golden clips: a few seconds of clear speech that every model must get right before it serves requests."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

import soundfile

from k2d.errors import ModelError
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, Samples, Window
from k2d.text.normalise import clean, simplify
from k2d.text.tokens import TOKEN
from k2d.whisper.engine import Engine

OPTIONS: Final = DecodeOptions(temperatures=(0.0,))  # one greedy pass, without temperature fallback
# Share of the clips' tokens that may be wrong, all clips together. Whisper base is at 0.04, random
# weights are at 1 or more: a model that gets half of three clearly spoken sentences wrong can label nothing.
MAX_ERROR: Final = 0.5

_FOLDER: Final = files("k2d.inference") / "golden"


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A packaged clip of speech."""

    name: str  # of its file
    language: str  # "zh-en", "zh" or "en"
    text: str  # what is said in it
    samples: Samples  # shape (n,), read-only


@lru_cache(maxsize=1)
def clips() -> tuple[Clip, ...]:
    """The packaged clips, one each of code-switched, Mandarin and English speech, in a fixed order."""
    rows = [json.loads(line) for line in (_FOLDER / "manifest.jsonl").read_text("utf-8").split("\n") if line]
    return tuple(Clip(row["audio"], row["language"], row["text"], _samples(row["audio"])) for row in rows)


def windows() -> list[tuple[Window, str]]:
    """Each clip as a window, with its text."""
    return [(Window(clip.samples), clip.text) for clip in clips()]


def check(engine: Engine, *, must_match: bool = True) -> str:
    """Transcribe the clips in one batch; returns the transcripts, joined by " / ".

    Args:
        must_match: the transcripts must be what is said, but for `MAX_ERROR` of the tokens; otherwise any text will do.

    Raises:
        ModelError: a transcript is empty or all of them are far from what is said, a log-probability is not finite, or
            the engine fails.
    """
    texts = []
    results = engine.transcribe([window for window, _ in windows()], OPTIONS)
    for clip, result in zip(clips(), results, strict=True):
        if not math.isfinite(result.avg_logprob):
            raise _unfit(engine, f"gives {result.avg_logprob} as log-probability of {clip.name}")
        if not result.text.strip():
            raise _unfit(engine, f"transcribes nothing in {clip.name}")
        texts.append(result.text.strip())
    error = error_rate(texts)
    if must_match and error > MAX_ERROR:
        raise _unfit(engine, f"has an error rate of {error:.2f} (at most {MAX_ERROR}) with {' / '.join(texts)[:200]!r}")
    return " / ".join(texts)


def error_rate(texts: Sequence[str]) -> float:
    """The mixed error rate of transcripts of the clips, in their order: edits over tokens, pooled, at least 0.

    Scripts, case and punctuation do not count. Computed here, since the packages of k2d.filtering are not where Triton
    loads a model.
    """
    edits = tokens = 0
    for clip, text in zip(clips(), texts, strict=True):
        reference, hypothesis = (TOKEN.findall(simplify(clean(value))) for value in (clip.text, text))
        edits += _distance(reference, hypothesis)
        tokens += len(reference)
    return edits / tokens


def _distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(hypothesis) + 1))
    for number, token in enumerate(reference, start=1):
        above, row = row, [number]
        for at, other in enumerate(hypothesis):
            row.append(min(above[at] + (token != other), above[at + 1] + 1, row[at] + 1))
    return row[-1]


def _samples(name: str) -> Samples:
    data, rate_hz = soundfile.read(io.BytesIO((_FOLDER / name).read_bytes()), dtype="int16")
    if rate_hz != SAMPLE_RATE_HZ or data.ndim != 1:
        raise ModelError(
            f"golden clip {name} is not 16 kHz mono", hint="the installation is damaged: install k2d again"
        )
    samples: Samples = data
    samples.setflags(write=False)  # cached, and shared by all callers
    return samples


def _unfit(engine: Engine, why: str) -> ModelError:
    model = engine.model
    return ModelError(
        f"{model.reference} is not fit to serve: it {why}, clearly spoken sentences",
        hint=f"the weights are damaged or hardly trained, or {model.compute_type} overflows: try another "
        "K2D_COMPUTE_TYPE, or fetch the model again. A model of other languages needs K2D_GOLDEN=off",
        model=model.reference,
    )

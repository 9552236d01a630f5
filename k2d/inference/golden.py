"""The golden clips: a few seconds of clear speech that every model must transcribe before it serves requests."""

import io
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

import soundfile

from k2d.errors import ModelError
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, Samples, Window
from k2d.whisper.engine import Engine

OPTIONS: Final = DecodeOptions(temperatures=(0.0,))  # one greedy pass, without temperature fallback

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


def check(engine: Engine) -> str:
    """Transcribe the clips in one batch; returns the transcripts, joined by " / ".

    Raises:
        ModelError: a transcript is empty, a log-probability is not finite, or the engine fails.
    """
    texts = []
    results = engine.transcribe([window for window, _ in windows()], OPTIONS)
    for clip, result in zip(clips(), results, strict=True):
        if not math.isfinite(result.avg_logprob):
            raise _unfit(engine, f"gives {result.avg_logprob} as log-probability of {clip.name}")
        if not result.text.strip():
            raise _unfit(engine, f"transcribes nothing in {clip.name}")
        texts.append(result.text.strip())
    return " / ".join(texts)


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
        f"{model.reference} is not fit to serve: it {why}, a clearly spoken sentence",
        hint=f"the weights are damaged, or {model.compute_type} overflows: try another K2D_COMPUTE_TYPE, "
        "or fetch the model again",
        model=model.reference,
    )

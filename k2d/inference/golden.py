"""The golden clips: a few seconds of clear speech that every model must hear before anybody may rely on it."""

import io
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import soundfile

from k2d.errors import ModelError
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, Samples, Window
from k2d.whisper.engine import Engine

OPTIONS = DecodeOptions(temperatures=(0.0,))  # one greedy pass: what a model says before any fallback mends it

_FOLDER = files("k2d.inference") / "golden"


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One packaged clip: its name, what is said in it, samples of shape (n,)."""

    name: str
    language: str  # "zh-en", "zh" or "en"
    text: str
    samples: Samples


@lru_cache(maxsize=1)
def clips() -> tuple[Clip, ...]:
    """The packaged clips, shortest list that has code-switched, Mandarin and English speech; in a fixed order."""
    rows = [json.loads(line) for line in (_FOLDER / "manifest.jsonl").read_text("utf-8").splitlines()]
    return tuple(Clip(row["audio"], row["language"], row["text"], _samples(row["audio"])) for row in rows)


def windows() -> list[tuple[Window, str]]:
    """Each clip as an engine's input, with what is said in it."""
    return [(Window(clip.samples), clip.text) for clip in clips()]


def check(engine: Engine) -> str:
    """Let the engine transcribe the clips in one batch and return what it heard, the clips' texts joined by " / ".

    Raises:
        ModelError: it hears nothing in clear speech, its log-probability is no number, or it fails.
    """
    heard = []
    results = engine.transcribe([window for window, _ in windows()], OPTIONS)
    for clip, result in zip(clips(), results, strict=True):
        if not math.isfinite(result.avg_logprob):
            raise _unfit(engine, f"gives {result.avg_logprob} as log-probability of {clip.name}")
        if not result.text.strip():
            raise _unfit(engine, f"hears nothing in {clip.name}")
        heard.append(result.text.strip())
    return " / ".join(heard)


def _samples(name: str) -> Samples:
    data, rate_hz = soundfile.read(io.BytesIO((_FOLDER / name).read_bytes()), dtype="int16")
    if rate_hz != SAMPLE_RATE_HZ or data.ndim != 1:
        raise ModelError(
            f"golden clip {name} is not 16 kHz mono", hint="the installation is damaged: install k2d again"
        )
    samples: Samples = data
    samples.setflags(write=False)  # shared by every caller
    return samples


def _unfit(engine: Engine, why: str) -> ModelError:
    model = engine.model
    return ModelError(
        f"{model.reference} is not fit to serve: it {why}, where a clear voice says a sentence",
        hint=f"damaged or foreign weights, or a precision that overflows: try another K2D_COMPUTE_TYPE than "
        f"{model.compute_type}, or fetch the model again",
        model=model.reference,
    )

"""Each tool an export is made for, with the export in it, as one function: samples and a language in, text out.

All decode greedily, once, and stop early: what is compared is the weights, not what a tool does about a bad result.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.schema import MIXED, SAMPLE_RATE_HZ, WINDOW_SAMPLES, DecodeOptions, EngineName, Samples, Window
from k2d.whisper.features import FULL_SCALE
from k2d.whisper.load import open_engine

PROMPT_TOKENS = 4  # start, language, task, no timestamps
MAX_TOKENS = 32  # the clips have some twenty; a student fresh from the cut would loop on to the context's end

Hear = Callable[[Samples, str], str]


@dataclass(frozen=True, slots=True)
class Way:
    """What is asked of a tool. Only k2d's own engines and decoders know the mixed prompt; others get zh or en."""

    timestamps: bool
    mixed: bool

    def language(self, said: str) -> str:
        """What to ask for, of speech in `said`: the mixed prompt, or the language that leads."""
        return MIXED if self.mixed else said.split("-")[0]


STAMPED, TEXT, PLAIN = Way(True, True), Way(False, True), Way(False, False)


@dataclass(frozen=True, slots=True)
class Validator:
    """One tool with one model in it."""

    tool: str
    hear: Hear
    way: Way
    exact: bool = True  # computes as precisely as torch does, so that in floating point every letter must agree


def options(language: str, *, timestamps: bool) -> DecodeOptions:
    """How all of them decode."""
    return DecodeOptions(
        language=language, temperatures=(0.0,), without_timestamps=not timestamps, max_new_tokens=MAX_TOKENS
    )


def engine(
    folder: Path, kind: str, compute_type: str, cache: Path, *, ways: tuple[Way, ...] = (STAMPED, TEXT)
) -> Iterator[Validator]:
    """k2d's own engine, each way; loaded until the last one has been used.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    with _errors(f"k2d, {kind}"):
        model = open_engine(
            str(folder),
            engine=kind,
            device="cpu",
            compute_type=compute_type,
            threads=0,
            cache=cache,
            allow_downloads=False,
        )

    def hearing(way: Way) -> Hear:
        return lambda samples, language: (
            model.transcribe([Window(samples)], options(language, timestamps=way.timestamps))[0].text
        )

    try:
        for way in ways:
            yield Validator(f"k2d, {kind}", hearing(way), way)
    finally:
        model.close()


def reference(folder: Path, cache: Path) -> Iterator[Validator]:
    """The student itself, in torch at float32, every way."""
    return engine(folder, EngineName.TRANSFORMERS, "float32", cache, ways=(STAMPED, TEXT, PLAIN))


def for_transformers(folder: Path, precision: str, cache: Path) -> Iterator[Validator]:
    """k2d's engine, and transformers alone, both computing in float32 whatever precision the file keeps."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    yield from engine(folder, EngineName.TRANSFORMERS, "float32", cache)
    with _errors("transformers"):
        processor: Any = WhisperProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    model.eval()

    def hear(samples: Samples, language: str) -> str:
        inputs = processor(samples / FULL_SCALE, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        made = model.generate(
            inputs.input_features.float(),
            language=language,
            task="transcribe",
            do_sample=False,
            num_beams=1,
            max_new_tokens=MAX_TOKENS,
        )
        text: str = processor.batch_decode(made, skip_special_tokens=True)[0]
        return text

    yield Validator("transformers", hear, PLAIN)


def for_ctranslate2(folder: Path, precision: str, cache: Path) -> Iterator[Validator]:
    """k2d's engine, and faster-whisper where it is installed."""
    compute_type = "int8" if precision.startswith("int8") else "float32"  # a CPU computes nothing in float16
    yield from engine(folder, EngineName.CTRANSLATE2, compute_type, cache)
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        return
    with _errors("faster-whisper"):
        model = WhisperModel(str(folder), device="cpu", compute_type=compute_type, local_files_only=True)

    def hear(samples: Samples, language: str) -> str:
        segments, _ = model.transcribe(
            padded(samples),
            language=language,
            beam_size=1,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=2 * MAX_TOKENS - PROMPT_TOKENS,  # CTranslate2 halves the sum of both
        )
        return "".join(segment.text for segment in segments)

    yield Validator("faster-whisper", hear, PLAIN)


def for_onnx(folder: Path, precision: str, cache: Path) -> Iterator[Validator]:
    """ONNX Runtime."""
    from trainer.export.onnx_decoding import OnnxWhisper

    with _errors("onnxruntime"):
        model = OnnxWhisper(folder)

    def hear(samples: Samples, language: str) -> str:
        return model.transcribe(samples, options(language, timestamps=False))

    yield Validator("onnxruntime", hear, TEXT)


def for_ggml(folder: Path, precision: str, cache: Path) -> Iterator[Validator]:
    """whisper.cpp."""
    from pywhispercpp.model import Model

    from trainer.export.ggml import FILE

    with _errors("whisper.cpp"):
        model = Model(
            str(folder / FILE),
            redirect_whispercpp_logs_to=None,
            print_progress=False,
            print_realtime=False,
            no_timestamps=True,
            single_segment=True,
            no_context=True,
            suppress_blank=True,
            suppress_nst=True,
            temperature=0.0,
            temperature_inc=0.0,  # no fallback
            greedy={"best_of": 1},
            max_tokens=MAX_TOKENS - 1,  # it stops after one more
        )

    def hear(samples: Samples, language: str) -> str:
        return "".join(segment.text for segment in model.transcribe(padded(samples), language=language))

    yield Validator("whisper.cpp", hear, PLAIN, exact=False)  # float16 all along, tables for functions


def padded(samples: Samples) -> npt.NDArray[np.float32]:
    """Samples of at most 30 s as float, filled up with silence, as Whisper was trained.

    faster-whisper and whisper.cpp would fill up otherwise, each in its way: that is theirs to decide, but it is not
    what the gate compares.
    """
    wave = np.zeros(WINDOW_SAMPLES, np.float32)
    wave[: len(samples)] = samples / FULL_SCALE
    return wave


@contextmanager
def _errors(tool: str) -> Iterator[None]:
    """Tell what a tool says when it refuses the export."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{tool} cannot load the export: {error}", hint="keep it with --keep to look at it, and report it"
        ) from error

"""Each tool an export is made for, with the export loaded, as one function: samples and a language in, text out.

All decode greedily, once, and stop early: what is compared is the weights, not how a tool handles a bad result.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.schema import MIXED, SAMPLE_RATE_HZ, WINDOW_SAMPLES, DecodeOptions, EngineName, Samples, Window
from k2d.whisper.features import FULL_SCALE
from k2d.whisper.load import open_engine

PROMPT_TOKENS: Final = 4  # start, language, task, no timestamps
MAX_TOKENS: Final = 32  # the clips have some twenty; an untrained student would go on to the end of the context

TranscribeClip = Callable[[Samples, str], str]  # samples (n,) and a language → text


@dataclass(frozen=True, slots=True)
class DecodeMode:
    """How a tool is asked. Only k2d's own engines and decoders know the mixed prompt; others get zh or en."""

    timestamps: bool
    mixed: bool

    def language(self, spoken: str) -> str:
        """The language to ask for, of speech in `spoken`: the mixed prompt, or its first language."""
        return MIXED if self.mixed else spoken.split("-")[0]


STAMPED: Final = DecodeMode(timestamps=True, mixed=True)
TEXT: Final = DecodeMode(timestamps=False, mixed=True)
PLAIN: Final = DecodeMode(timestamps=False, mixed=False)


@dataclass(frozen=True, slots=True)
class ToolDecoder:
    """One tool with one model loaded."""

    tool: str
    transcribe: TranscribeClip
    mode: DecodeMode
    exact: bool = True  # computes as precisely as torch does, so that in floating point every letter must agree


def decode_options(language: str, *, timestamps: bool) -> DecodeOptions:
    """How k2d's decoders are asked: greedily, without fallback."""
    return DecodeOptions(
        language=language, temperatures=(0.0,), without_timestamps=not timestamps, max_new_tokens=MAX_TOKENS
    )


def open_k2d(
    folder: Path, kind: str, compute_type: str, cache: Path, *, modes: tuple[DecodeMode, ...] = (STAMPED, TEXT)
) -> Iterator[ToolDecoder]:
    """k2d's own engine in each mode; closed after the last one.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    with _load_errors(f"k2d, {kind}"):
        model = open_engine(
            str(folder),
            engine=kind,
            device="cpu",
            compute_type=compute_type,
            threads=0,
            cache=cache,
            allow_downloads=False,
        )

    def transcribe_in(mode: DecodeMode) -> TranscribeClip:
        return lambda samples, language: (
            model.transcribe([Window(samples)], decode_options(language, timestamps=mode.timestamps))[0].text
        )

    try:
        for mode in modes:
            yield ToolDecoder(f"k2d, {kind}", transcribe_in(mode), mode)
    finally:
        model.close()


def open_student(folder: Path, cache: Path) -> Iterator[ToolDecoder]:
    """The student itself, in torch at float32, in every mode: what exports are compared with."""
    return open_k2d(folder, EngineName.TRANSFORMERS, "float32", cache, modes=(STAMPED, TEXT, PLAIN))


def for_transformers(folder: Path, precision: str, cache: Path) -> Iterator[ToolDecoder]:
    """k2d's engine, and transformers alone, both computing in float32 whatever precision the file has."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    yield from open_k2d(folder, EngineName.TRANSFORMERS, "float32", cache)
    with _load_errors("transformers"):
        processor: Any = WhisperProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    model.eval()

    def transcribe(samples: Samples, language: str) -> str:
        inputs = processor(samples / FULL_SCALE, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        tokens = model.generate(
            inputs.input_features.float(),
            language=language,
            task="transcribe",
            do_sample=False,
            num_beams=1,
            max_new_tokens=MAX_TOKENS,
        )
        text: str = processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return text

    yield ToolDecoder("transformers", transcribe, PLAIN)


def for_ctranslate2(folder: Path, precision: str, cache: Path) -> Iterator[ToolDecoder]:
    """k2d's engine, and faster-whisper where it is installed."""
    compute_type = "int8" if precision.startswith("int8") else "float32"  # a CPU computes nothing in float16
    yield from open_k2d(folder, EngineName.CTRANSLATE2, compute_type, cache)
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        return
    with _load_errors("faster-whisper"):
        model = WhisperModel(str(folder), device="cpu", compute_type=compute_type, local_files_only=True)

    def transcribe(samples: Samples, language: str) -> str:
        segments, _ = model.transcribe(
            pad_window(samples),
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

    yield ToolDecoder("faster-whisper", transcribe, PLAIN)


def for_onnx(folder: Path, precision: str, cache: Path) -> Iterator[ToolDecoder]:
    """ONNX Runtime."""
    from trainer.export.onnx_decoding import OnnxWhisper

    with _load_errors("onnxruntime"):
        model = OnnxWhisper(folder)

    def transcribe(samples: Samples, language: str) -> str:
        return model.transcribe(samples, decode_options(language, timestamps=False))

    yield ToolDecoder("onnxruntime", transcribe, TEXT)


def for_ggml(folder: Path, precision: str, cache: Path) -> Iterator[ToolDecoder]:
    """whisper.cpp."""
    from pywhispercpp.model import Model

    from trainer.export.ggml import FILE

    with _load_errors("whisper.cpp"):
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

    def transcribe(samples: Samples, language: str) -> str:
        return "".join(segment.text for segment in model.transcribe(pad_window(samples), language=language))

    # not exact: it computes in float16 throughout, and looks functions up in tables
    yield ToolDecoder("whisper.cpp", transcribe, PLAIN, exact=False)


def pad_window(samples: Samples) -> npt.NDArray[np.float32]:
    """Samples (n,) of at most 30 s as float, shape (480000,), padded with silence, as Whisper was trained.

    faster-whisper and whisper.cpp pad differently by themselves. That is their decision, but it is not what the gate
    compares.
    """
    wave = np.zeros(WINDOW_SAMPLES, np.float32)
    wave[: len(samples)] = samples / FULL_SCALE
    return wave


@contextmanager
def _load_errors(tool: str) -> Iterator[None]:
    """Turn a tool's own errors at loading into a ModelError with its message."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{tool} cannot load the export: {error}", hint="keep it with --keep to look at it, and report it"
        ) from error

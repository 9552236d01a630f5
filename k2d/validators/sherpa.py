"""A model of sherpa-onnx in a local folder as a validator: `sherpa:/models/sense-voice`.

SenseVoice, Paraformer, Zipformer and NeMo transducers, and CTC models of NeMo, icefall (Zipformer) and TeleSpeech, in
ONNX, on the CPU; without torch. They give a text and no forced log-probability.
"""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

import numpy as np

from k2d.errors import BadRequest, ModelError, install_hint
from k2d.inference.golden import clips
from k2d.inference.model_cache import ModelCache
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Hypothesis, ModelInfo, Samples
from k2d.settings import Settings
from k2d.validators.names import SHERPA
from k2d.validators.onnx_metadata import metadata_of
from k2d.validators.protocol import AS_IS, Validator, ValidatorContext
from k2d.whisper.cache import writable

VERSION: Final = 1  # of how chunks are decoded; part of the key of their hypotheses
TOKENS: Final = "tokens.txt"
TRIAL_S: Final = 300.0  # for loading the largest model on a slow disk
FULL_SCALE: Final = 2**15

# The constructors of sherpa_onnx.OfflineRecognizer by the metadata `model_type` of a model with one file, as the
# project's export scripts write it. WeNet's are left out: sherpa-onnx adds random noise to their input, so a chunk gets
# another text each time.
CONSTRUCTORS: Final[Mapping[str, str]] = {
    "sense_voice_ctc": "from_sense_voice",
    "paraformer": "from_paraformer",
    "EncDecCTCModel": "from_nemo_ctc",
    "EncDecCTCModelBPE": "from_nemo_ctc",
    "EncDecHybridRNNTCTCBPEModel": "from_nemo_ctc",
    "zipformer2_ctc": "from_zipformer_ctc",
    "telespeech_ctc": "from_telespeech_ctc",
}
TRANSDUCER: Final = ("encoder", "decoder", "joiner")
NEMO: Final = "EncDec"  # begins the model types of NeMo
SENSE_VOICE_LANGUAGES: Final = ("zh", "en", "ja", "ko", "yue")

# loads a model and decodes half a second of silence, in a process of its own
_TRIAL: Final = """
import json, sys
import numpy, sherpa_onnx
constructor, arguments = json.loads(sys.argv[1])
recognizer = getattr(sherpa_onnx.OfflineRecognizer, constructor)(**arguments)
stream = recognizer.create_stream()
stream.accept_waveform(16000, numpy.zeros(8000, numpy.float32))
recognizer.decode_stream(stream)
print("ok")
"""


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Load the model of a folder.

    Raises:
        BadRequest: there is no such folder.
        ModelError: it holds no model that can be loaded, or sherpa-onnx is not installed.
    """
    check(name, context.settings)
    validator = await asyncio.to_thread(load, name, context.settings, language=context.language, models=context.kept)
    context.close_with_batch(validator.close)
    return validator


def check(name: str, settings: Settings) -> None:
    """Check that there is such a folder.

    Raises:
        BadRequest: there is none.
    """
    if not name.removeprefix(SHERPA) or not Path(name.removeprefix(SHERPA)).expanduser().is_dir():
        raise BadRequest(
            f"{name[:200]!r}: no such folder", hint=f"for example {SHERPA}/models/sense-voice, with {TOKENS} and .onnx"
        )


async def describe(name: str, settings: Settings) -> str:
    """Load the model and transcribe a golden clip; returns its text.

    Raises:
        BadRequest, ModelError: as `open_validator`.
    """
    check(name, settings)
    validator = await asyncio.to_thread(load, name, settings, language=settings.language)
    text = await validator.transcribe(clips()[0].samples)
    return f"{name}: {validator.model_type}, transcribes {text!r}"


@dataclass(frozen=True, slots=True)
class SherpaModel:
    """How the model in a folder is loaded."""

    model_type: str
    constructor: str  # of sherpa_onnx.OfflineRecognizer
    arguments: Mapping[str, Any]


def model_of(folder: Path, *, language: str) -> SherpaModel:
    """Find the model in a folder, and its family by its metadata.

    Where there is a quantised file (….int8.onnx) beside the original, the original is taken.

    Raises:
        ModelError: the folder holds no model of a known family.
    """
    if not (folder / TOKENS).is_file():
        raise ModelError(f"{folder} has no {TOKENS}", hint="give the folder of a model from the sherpa-onnx project")
    files = sorted(folder.glob("*.onnx"), key=lambda file: (".int8" in file.name, file.name))
    tokens = str(folder / TOKENS)
    parts = {part: next((file for file in files if file.name.startswith(part)), None) for part in TRANSDUCER}
    encoder = parts["encoder"]
    if encoder is not None and all(parts.values()):
        model_type = metadata_of(encoder).get("model_type", "")
        arguments: dict[str, Any] = {**{part: str(file) for part, file in parts.items()}, "tokens": tokens}
        if model_type.startswith(NEMO):
            arguments["model_type"] = "nemo_transducer"
        return SherpaModel(f"{model_type or 'zipformer'} transducer", "from_transducer", arguments)
    if not files:
        raise ModelError(
            f"{folder} holds no .onnx file", hint="give the folder of a model from the sherpa-onnx project"
        )
    model_type = metadata_of(files[0]).get("model_type", "")
    constructor = CONSTRUCTORS.get(model_type)
    if constructor is None:
        raise ModelError(
            f"{files[0]} is of the unknown type {model_type!r}",
            hint=f"known are transducers ({', '.join(TRANSDUCER)}) and {', '.join(CONSTRUCTORS)}",
        )
    arguments = {("paraformer" if model_type == "paraformer" else "model"): str(files[0]), "tokens": tokens}
    if model_type == "sense_voice_ctc":
        arguments["language"] = language if language in SENSE_VOICE_LANGUAGES else "auto"
        arguments["use_itn"] = True
    return SherpaModel(model_type, constructor, arguments)


def load(name: str, settings: Settings, *, language: str, models: ModelCache | None = None) -> "SherpaValidator":
    """Load the model that a validator's name refers to. Blocking. With `models` it is taken from there if it is there,
    and stays there after `close`.

    Raises:
        ModelError: it cannot be loaded, or sherpa-onnx is not installed.
    """
    try:
        import sherpa_onnx
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed", hint=install_hint("sherpa")) from error
    folder = Path(name.removeprefix(SHERPA)).expanduser().resolve()
    model = model_of(folder, language=language)
    digest = digest_of(folder)
    spoken = str(model.arguments.get("language", ""))

    def recognizer() -> Recognizer:
        _try(model, digest, folder=folder, cache=settings.cache)
        arguments = {**model.arguments, **({"num_threads": settings.threads} if settings.threads else {})}
        return Recognizer(getattr(sherpa_onnx.OfflineRecognizer, model.constructor)(**arguments))

    if models is None:
        opened = recognizer()
        release = opened.close
    else:
        opened = models.open(name, key=(digest, spoken, settings.threads), load=recognizer)
        release = partial(models.give_back, opened)
    return SherpaValidator(name, opened, model.model_type, digest, spoken, release)


def digest_of(folder: Path) -> str:
    """sha256 (hex) over names and contents of the files in a folder, without its subfolders."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


class Recognizer:
    """A model of sherpa-onnx in memory."""

    def __init__(self, recognizer: Any) -> None:
        self._recognizer = recognizer

    def decode(self, samples: Samples) -> str:
        """Transcribe int16 samples of shape (n,), 16 kHz; returns the text, stripped.

        Raises:
            RuntimeError: sherpa-onnx failed.
        """
        stream = self._recognizer.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples.astype(np.float32) / FULL_SCALE)
        self._recognizer.decode_stream(stream)
        return str(stream.result.text).strip()

    def close(self) -> None:
        """Free the weights."""
        self._recognizer = None


class SherpaValidator:
    """Transcribes each chunk once, on the unchanged audio, one after the other."""

    perturbation_names: tuple[str, ...] = (AS_IS,)

    def __init__(
        self,
        name: str,
        recognizer: Recognizer,
        model_type: str,
        digest: str,
        language: str,
        release: Callable[[], None],
    ) -> None:
        """`release` is called once, by `close`."""
        self._name, self.model_type = name, model_type
        self._recognizer: Recognizer | None = recognizer
        self._release = release
        self._digest, self._language = digest, language
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sherpa")  # one chunk after the other

    @property
    def name(self) -> str:
        return self._name

    @property
    def model(self) -> ModelInfo:
        return ModelInfo(self._name, self._digest, engine="sherpa-onnx", compute_type="as stored", device="cpu")

    @property
    def key(self) -> tuple[Any, ...]:
        return (SHERPA, VERSION, self._digest, self._language)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        return True

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        text = await self.transcribe(samples)
        return (Hypothesis(validator=self.name, perturbation=AS_IS, text=text, avg_logprob=0.0),)

    async def transcribe(self, samples: Samples) -> str:
        """Transcribe int16 samples of shape (n,), 16 kHz; returns the text, stripped."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._decode, samples)

    async def close(self) -> None:
        if self._recognizer is not None:
            self._recognizer = None
            self._release()
        self._thread.shutdown(wait=False)

    def _decode(self, samples: Samples) -> str:
        if self._recognizer is None:
            raise ModelError(f"{self._name} was closed", hint="open it again")
        try:
            return self._recognizer.decode(samples)
        except RuntimeError as error:
            raise ModelError(f"{self._name} failed while decoding: {error}", hint="try another model") from error


def _try(model: SherpaModel, digest: str, *, folder: Path, cache: Path) -> None:
    """Load a model in another process first, once for each content of the folder.

    sherpa-onnx ends the whole process when it does not like a model (a missing entry in the metadata), which must not
    happen to a worker.

    Raises:
        ModelError: the trial failed.
    """
    note = cache / "sherpa" / f"{digest[:32]}-{version_of('sherpa-onnx')}"
    if note.is_file():
        return
    command = [sys.executable, "-c", _TRIAL, json.dumps([model.constructor, dict(model.arguments)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{folder} was not loaded within {TRIAL_S:g} s", hint="try a smaller model") from error
    if done.returncode or not done.stdout.strip().endswith("ok"):
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no output"]
        raise ModelError(
            f"{folder} cannot be loaded as {model.model_type}: {lines[-1][:300]}", hint="fetch the model again"
        )
    with writable(note):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()

"""The probe as it is stored, and its forward pass."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.text.phonemes import phonemes
from k2d.text.tokens import mixed_tokens
from k2d.validators.probe.ctc import Posteriors

VERSION = 1
BLANK_NAME = "-"
OTHER = "?"  # any unit too rare in the corpus to be learned: it is scored as one, whatever it is
STRIDE = 2  # encoder frames (20 ms) in one of the probe's: 25 Hz. Speech has 10 to 20 phonemes a second
ENCODER_SAMPLES = 320  # of 16 kHz audio in one encoder frame
_DTYPES = {"F32": np.float32, "U64": np.uint64, "U8": np.uint8}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}

Encoded = npt.NDArray[Any]  # float16 or float32, shape (frames, width)


@dataclass(frozen=True)
class Layers:
    """Weights of one fold: a convolution with GELU, then one that gives a score for each unit."""

    first: npt.NDArray[np.float32]  # (channels, width, kernel), stride STRIDE
    first_bias: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]  # (units, channels, kernel)
    second_bias: npt.NDArray[np.float32]

    @cached_property
    def flat(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Both kernels as matrices over unrolled frames, shapes (kernel · in, out)."""
        return _flat(self.first), _flat(self.second)


@dataclass(frozen=True)
class Probe:
    """One network for each fold, and which recording each of them never saw."""

    folds: tuple[Layers, ...]
    mean: npt.NDArray[np.float32]  # of the encoder's output, shape (width,)
    scale: npt.NDArray[np.float32]  # one over its deviation
    units: tuple[str, ...]  # the alphabet: BLANK_NAME, OTHER, then phonemes (k2d.text.phonemes)
    recordings: npt.NDArray[np.uint64]  # hashes of the recordings it was trained on, sorted
    about: Mapping[str, Any]  # teacher (reference, digest, fingerprint), seed, versions, figures

    @cached_property
    def index(self) -> dict[str, int]:
        return {unit: place for place, unit in enumerate(self.units)}

    @property
    def width(self) -> int:
        """Of the encoder it listens to."""
        return len(self.mean)

    def read(self, text: str) -> tuple[int, ...]:
        """A text as the alphabet's units."""
        return encode_units(phonemes(mixed_tokens(text)), self.index)

    def saw(self, recording_id: str) -> bool:
        """Whether the recording was trained on: then one fold did without it."""
        wanted = hash_of(recording_id)
        place = int(np.searchsorted(self.recordings, wanted))
        return place < len(self.recordings) and self.recordings[place] == wanted

    def posteriors(self, encoded: Encoded, recording_id: str) -> Posteriors:
        """Log posteriors of one chunk, shape (ceil(frames / 2), units), from networks that did not see its recording.

        That is the recording's fold's, or, of a recording none has seen, the mean of all folds' logits.

        Raises:
            ModelError: the encoder has another width.
        """
        if encoded.shape[-1] != self.width:
            raise ModelError(
                f"the probe listens to an encoder of width {self.width}, not {encoded.shape[-1]}",
                hint="it was trained on another teacher: `k2d probe` trains one on this",
            )
        normal = (encoded.astype(np.float32) - self.mean) * self.scale
        chosen = [fold_of(recording_id, len(self.folds))] if self.saw(recording_id) else range(len(self.folds))
        logits = sum(_forward(self.folds[fold], normal) for fold in chosen) / np.float32(len(chosen))
        return _log_softmax(np.asarray(logits, np.float32))


def hash_of(recording_id: str) -> int:
    """64 bits of a recording's id, the same everywhere."""
    return int.from_bytes(hashlib.sha256(recording_id.encode()).digest()[:8], "little")


def fold_of(recording_id: str, folds: int) -> int:
    """The fold whose network does without this recording."""
    return hash_of(recording_id) % folds


def encode_units(units: Sequence[str], index: Mapping[str, int]) -> tuple[int, ...]:
    """Places in the alphabet; what it lacks is OTHER."""
    other = index[OTHER]
    return tuple(index.get(unit, other) for unit in units)


def frames_of(samples: int) -> int:
    """Encoder frames that so many samples fill, the last one perhaps in part."""
    return -(-samples // ENCODER_SAMPLES)


# ---- forward ------------------------------------------------------------------------------------------------------


def _forward(layers: Layers, normal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores of every unit, shape (ceil(frames / 2), units)."""
    first, second = layers.flat
    hidden = _gelu(_unrolled(normal, kernel=layers.first.shape[2], stride=STRIDE) @ first + layers.first_bias)
    scores: npt.NDArray[np.float32] = _unrolled(hidden, kernel=layers.second.shape[2], stride=1) @ second
    return scores + layers.second_bias


def _flat(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0]))


def _unrolled(rows: npt.NDArray[np.float32], *, kernel: int, stride: int) -> npt.NDArray[np.float32]:
    """For each output frame the rows under the kernel, side by side; zeros beyond both ends."""
    half = kernel // 2
    padded = np.pad(rows, ((half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=0)[::stride]  # (out, width, kernel)
    return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(windows), -1)


def _gelu(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The tanh form, which needs no error function."""
    inner = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x)
    out: npt.NDArray[np.float32] = (0.5 * x * (1.0 + np.tanh(inner))).astype(np.float32)
    return out


def _log_softmax(logits: npt.NDArray[np.float32]) -> Posteriors:
    shifted = logits - logits.max(axis=1, keepdims=True)
    out: Posteriors = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


# ---- as stored ----------------------------------------------------------------------------------------------------


def dump(probe: Probe) -> bytes:
    """The probe as one safetensors file; equal probes give equal bytes."""
    tensors = dict(_tensors(probe))
    about = json.dumps(
        {"version": VERSION, "units": probe.units, "folds": len(probe.folds), **probe.about},
        ensure_ascii=False,
        sort_keys=True,
    )
    header: dict[str, Any] = {"__metadata__": {"probe": about}}
    at = 0
    for name, tensor in tensors.items():
        span = [at, at + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        at = span[1]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def load(data: bytes) -> Probe:
    """A probe from its bytes.

    Raises:
        ModelError: they are damaged, or of another version of this code.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        about = json.loads(header.pop("__metadata__")["probe"])
        version = about.pop("version")
        tensors = {name: _tensor(memoryview(data)[8 + size :], **facts) for name, facts in header.items()}
        units, folds = tuple(about.pop("units")), range(about.pop("folds"))
        if version == VERSION:
            return Probe(
                folds=tuple(Layers(*(tensors[f"{fold}.{part}"] for part in _PARTS)) for fold in folds),
                mean=tensors["mean"],
                scale=tensors["scale"],
                units=units,
                recordings=tensors["recordings"],
                about=about,
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the stored probe is damaged: {error}", hint="train it again with `k2d probe`") from error
    raise ModelError(f"the stored probe has version {version}, not {VERSION}", hint="train it again with `k2d probe`")


_PARTS = ("first", "first_bias", "second", "second_bias")


def _tensors(probe: Probe) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    yield "recordings", np.ascontiguousarray(probe.recordings, np.uint64)  # the widest first: all stay aligned
    yield "mean", np.ascontiguousarray(probe.mean, np.float32)
    yield "scale", np.ascontiguousarray(probe.scale, np.float32)
    for fold, layers in enumerate(probe.folds):
        for part in _PARTS:
            yield f"{fold}.{part}", np.ascontiguousarray(getattr(layers, part), np.float32)


def _tensor(data: memoryview, *, dtype: str, shape: list[int], data_offsets: list[int]) -> npt.NDArray[Any]:
    return np.frombuffer(data[data_offsets[0] : data_offsets[1]], _DTYPES[dtype]).reshape(shape)

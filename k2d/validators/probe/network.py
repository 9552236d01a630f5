"""The probe's network: its weights, its forward pass, and its file format."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from k2d.errors import ModelError
from k2d.text.reading import read
from k2d.validators.probe.ctc import Posteriors

VERSION: Final = 1
BLANK_NAME: Final = "-"
OTHER: Final = "?"  # stands for all units that are too rare in the corpus to be learned
STRIDE: Final = 2  # encoder frames (20 ms) per output frame: 25 frames a second. Speech has 10 to 20 phonemes a second
ENCODER_SAMPLES: Final = 320  # samples of 16 kHz audio per encoder frame

EncoderFrames = npt.NDArray[Any]  # float16 or float32, shape (frames, width)


@dataclass(frozen=True)
class Layers:
    """The weights of one fold's network: a convolution with GELU, then a convolution to a logit for each unit."""

    first: npt.NDArray[np.float32]  # (channels, width, kernel), stride STRIDE
    first_bias: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]  # (units, channels, kernel)
    second_bias: npt.NDArray[np.float32]

    @cached_property
    def flat(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Both kernels as matrices for unrolled frames; shapes (kernel · in, out)."""
        return _flat(self.first), _flat(self.second)


@dataclass(frozen=True)
class Probe:
    """A cross-fitted probe: a network for each fold, trained without that fold's recordings.

    probe = load(data)
    posteriors = probe.posteriors(encoded, recording_id)  # encoded: the encoder's output, shape (frames, width)
    """

    folds: tuple[Layers, ...]
    mean: npt.NDArray[np.float32]  # of the encoder's output, shape (width,)
    scale: npt.NDArray[np.float32]  # 1 / standard deviation of the encoder's output, shape (width,)
    units: tuple[str, ...]  # the alphabet: BLANK_NAME, OTHER, then phonemes (k2d.text.sounds)
    recordings: npt.NDArray[np.uint64]  # hashes of the recordings it was trained on, sorted
    about: Mapping[str, Any]  # teacher (reference, digest, fingerprint), seed, versions, figures

    @cached_property
    def index(self) -> dict[str, int]:
        return {unit: place for place, unit in enumerate(self.units)}

    @property
    def width(self) -> int:
        """Width of the encoder's output that the probe takes."""
        return len(self.mean)

    def read(self, text: str) -> tuple[int, ...]:
        """The indices in `units` of a text's phonemes."""
        return encode_units(read(text).phonemes, self.index)

    def trained_on(self, recording_id: str) -> bool:
        """Whether the probe was trained on a recording; then one fold's network was trained without it."""
        hash_ = hash_of(recording_id)
        place = int(np.searchsorted(self.recordings, hash_))
        return place < len(self.recordings) and self.recordings[place] == hash_

    def posteriors(self, encoded: EncoderFrames, recording_id: str) -> Posteriors:
        """Log posteriors of a chunk, shape (ceil(frames / 2), units), from networks not trained on its recording.

        They come from the network of the recording's fold; if the probe was not trained on the recording, from the mean
        of all networks' logits.

        Args:
            encoded: the encoder's output for the chunk, shape (frames, width).

        Raises:
            ModelError: the encoder has another width.
        """
        if encoded.shape[-1] != self.width:
            raise ModelError(
                f"the probe takes an encoder of width {self.width}, not {encoded.shape[-1]}",
                hint="it was trained for another teacher; train one for this teacher with `k2d probe`",
            )
        normalised = (encoded.astype(np.float32) - self.mean) * self.scale
        folds = [fold_of(recording_id, len(self.folds))] if self.trained_on(recording_id) else range(len(self.folds))
        logits = sum(_forward(self.folds[fold], normalised) for fold in folds) / np.float32(len(folds))
        return _log_softmax(np.asarray(logits, np.float32))


def hash_of(recording_id: str) -> int:
    """A 64-bit hash of a recording's id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(recording_id.encode()).digest()[:8], "little")


def fold_of(recording_id: str, folds: int) -> int:
    """The fold whose network is trained without this recording."""
    return hash_of(recording_id) % folds


def encode_units(units: Sequence[str], index: Mapping[str, int]) -> tuple[int, ...]:
    """The index of each unit; that of OTHER for unknown ones."""
    other = index[OTHER]
    return tuple(index.get(unit, other) for unit in units)


def frames_of(samples: int) -> int:
    """The number of encoder frames for so many samples, including a partial last one."""
    return -(-samples // ENCODER_SAMPLES)


# ---- forward ------------------------------------------------------------------------------------------------------


def _forward(layers: Layers, normalised: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits, shape (ceil(frames / 2), units)."""
    first, second = layers.flat
    hidden = _gelu(_unrolled(normalised, kernel=layers.first.shape[2], stride=STRIDE) @ first + layers.first_bias)
    scores: npt.NDArray[np.float32] = _unrolled(hidden, kernel=layers.second.shape[2], stride=1) @ second
    return scores + layers.second_bias


def _flat(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0]))


def _unrolled(rows: npt.NDArray[np.float32], *, kernel: int, stride: int) -> npt.NDArray[np.float32]:
    """For each output frame, the rows under the kernel, concatenated; zero-padded at both ends."""
    half = kernel // 2
    padded = np.pad(rows, ((half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=0)[::stride]  # (out, width, kernel)
    return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(windows), -1)


def _gelu(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """GELU in its tanh approximation."""
    inner = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x)
    out: npt.NDArray[np.float32] = (0.5 * x * (1.0 + np.tanh(inner))).astype(np.float32)
    return out


def _log_softmax(logits: npt.NDArray[np.float32]) -> Posteriors:
    shifted = logits - logits.max(axis=1, keepdims=True)
    out: Posteriors = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


# ---- file format ----------------------------------------------------------------------------------------------------


def dump(probe: Probe) -> bytes:
    """Encode a probe as a safetensors file; equal probes give equal bytes."""
    about = {"version": VERSION, "units": probe.units, "folds": len(probe.folds), **probe.about}
    return safetensors.numpy.save(_tensors(probe), {_ABOUT: json.dumps(about, ensure_ascii=False, sort_keys=True)})


def load(data: bytes) -> Probe:
    """Decode a probe.

    Raises:
        ModelError: the bytes are damaged, or were written by another version of this code.
    """
    try:
        tensors = safetensors.numpy.load(data)
        about = json.loads(_metadata(data)[_ABOUT])
        version = about.pop("version")
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
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the stored probe is damaged: {error}", hint="train it again with `k2d probe`") from error
    raise ModelError(f"the stored probe has version {version}, not {VERSION}", hint="train it again with `k2d probe`")


_PARTS: Final = ("first", "first_bias", "second", "second_bias")
_ABOUT: Final = "probe"  # the metadata entry with everything that is not a tensor


def _tensors(probe: Probe) -> dict[str, npt.NDArray[Any]]:
    shared: dict[str, npt.NDArray[Any]] = {
        "recordings": np.ascontiguousarray(probe.recordings, np.uint64),
        "mean": np.ascontiguousarray(probe.mean, np.float32),
        "scale": np.ascontiguousarray(probe.scale, np.float32),
    }
    return shared | {
        f"{fold}.{part}": np.ascontiguousarray(getattr(layers, part), np.float32)
        for fold, layers in enumerate(probe.folds)
        for part in _PARTS
    }


def _metadata(data: bytes) -> dict[str, str]:
    """The `__metadata__` of a safetensors file in memory; the library reads it only from files on disk.

    The file starts with the length of its JSON header, 8 bytes, little-endian.
    """
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata

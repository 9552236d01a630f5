"""Reads the binary format of a CTranslate2 model, and adds the mixed zh/en embedding row to it.

The layout is little-endian: version, specification, revision; for each tensor its name, shape, type, size and bytes;
then aliases (CTranslate2, python/ctranslate2/specs/model_spec.py, binary version 6).
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError

# numpy types by CTranslate2's type ids
DTYPES: Final = dict(enumerate(map(np.dtype, ("<f4", "i1", "<i2", "<i4", "<f2"))))
BFLOAT16: Final = 5  # the upper half of a float32; numpy has no name for it
FLOAT32: Final = 0
EMBEDDINGS: Final = "decoder/embeddings/weight"
BIAS: Final = "decoder/projection/bias"
NEVER: Final = -1e4  # as a logit: its probability is 0, and float16 can represent it
SPECIFICATION: Final = "WhisperSpec"

Buffer = memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a model file."""

    name: str
    shape: tuple[int, ...]
    type_id: int  # key of DTYPES, or BFLOAT16
    offset: int  # of its bytes in the file
    size: int  # in bytes


class _FileReader:
    """Reads numbers and strings from a model file, one after the other."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.at = 0

    def number(self, code: str) -> int:
        value: int = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        length = self.number("H")
        raw = bytes(self.data[self.at : self.at + length])
        self.at += length
        return raw.rstrip(b"\0").decode()


def tensors(data: Buffer, *, file: Path) -> dict[str, Tensor]:
    """Find all tensors of a Whisper model, by name.

    Raises:
        ModelError: the file is truncated, or not a CTranslate2 Whisper.
    """
    try:
        return {tensor.name: tensor for tensor in _read(_FileReader(data), file)}
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is truncated or damaged: {error}", hint="fetch the model again") from error


def _read(reader: _FileReader, file: Path) -> Iterator[Tensor]:
    reader.number("I")  # binary version
    specification = reader.text()
    if specification != SPECIFICATION:
        raise ModelError(f"{file} is a {specification[:40]!r}, not a Whisper", hint="name a Whisper model")
    reader.number("I")  # revision
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = tuple(reader.number("I") for _ in range(reader.number("B")))
        type_id, size = reader.number("B"), reader.number("I")
        if reader.at + size > len(reader.data):
            raise ModelError(f"{file} is truncated inside {name}", hint="fetch the model again")
        yield Tensor(name, shape, type_id, reader.at, size)
        reader.at += size


def array(data: Buffer, tensor: Tensor) -> npt.NDArray[Any]:
    """A view of a tensor's values (bfloat16 comes as a float32 copy)."""
    raw = data[tensor.offset : tensor.offset + tensor.size]
    if tensor.type_id == BFLOAT16:
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    return np.frombuffer(raw, DTYPES[tensor.type_id]).reshape(tensor.shape)


def with_mixed_row(data: memoryview, *, file: Path, sources: tuple[int, ...], target: int) -> io.BytesIO:
    """The model with the mean of the embedding rows `sources` as row `target`, which is never predicted.

    The embeddings are tied to the output projection, where the new row would get a share of every softmax (at the
    language position a large one, which would falsify the no-speech probability). A bias with one non-zero entry
    prevents that; the logits of all other rows stay the same, bit for bit.

    Raises:
        ModelError: the file is damaged, or has no such rows.
    """
    by_name = tensors(data, file=file)
    weight = by_name.get(EMBEDDINGS)
    if weight is None or max(*sources, target) >= weight.shape[0]:
        raise ModelError(f"{file} has fewer embeddings than the tokenizer has tokens", hint="fetch the model again")
    if BIAS in by_name:
        raise ModelError(f"{file} has a {BIAS} already", hint="name an original Whisper model")
    bias = np.zeros(weight.shape[0], np.float32)
    bias[target] = NEVER
    name = BIAS.encode() + b"\0"
    added = (
        struct.pack("<H", len(name)) + name + struct.pack("<BIBI", 1, len(bias), FLOAT32, bias.nbytes) + bias.tobytes()
    )
    end = max(tensor.offset + tensor.size for tensor in by_name.values())
    file_with_row = io.BytesIO()  # CTranslate2 reads its buffer without another copy
    for part in (data[:end], added, data[end:]):
        file_with_row.write(part)
    with file_with_row.getbuffer() as view:
        struct.pack_into("<I", view, _count_at(view), len(by_name) + 1)
        _write_mean_row(view, by_name, sources=sources, target=target)
    file_with_row.seek(0)
    return file_with_row


def _write_mean_row(data: memoryview, by_name: dict[str, Tensor], *, sources: tuple[int, ...], target: int) -> None:
    """Overwrite one embedding row, in the precision of the file.

    int8 rows have their own scale (127 / largest value): the mean is taken over the dequantised rows and quantised.
    """
    weight = by_name[EMBEDDINGS]
    values = array(data, weight)[list(sources)].astype(np.float32)
    scale = by_name.get(EMBEDDINGS + "_scale")
    if scale is not None and scale.shape:
        scales = array(data, scale)[list(sources)].astype(np.float32)
        mean = (values / scales[:, None]).mean(axis=0)
        row_scale = np.float32(127.0 / max(float(np.abs(mean).max()), 1e-9))
        _write(data, scale.offset + 4 * target, np.asarray([row_scale], "<f4").tobytes())
        encoded = np.rint(mean * row_scale).astype(np.int8).tobytes()
    elif weight.type_id == BFLOAT16:
        bits = values.mean(axis=0).astype(np.float32).view(np.uint32)
        encoded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()  # round to nearest even
    else:
        mean = values.mean(axis=0)
        kind = DTYPES[weight.type_id]
        encoded = (np.rint(mean) if kind.kind == "i" else mean).astype(kind).tobytes()
    _write(data, weight.offset + target * len(encoded), encoded)


def _write(data: memoryview, offset: int, encoded: bytes) -> None:
    data[offset : offset + len(encoded)] = encoded


def _count_at(data: memoryview) -> int:
    """The offset of the number of tensors in the header."""
    reader = _FileReader(data)
    reader.number("I")
    reader.text()
    reader.number("I")
    return reader.at

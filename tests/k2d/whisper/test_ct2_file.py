"""The binary format, on small files written here: every precision, and damage."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from k2d.errors import ModelError
from k2d.whisper.ct2_file import BIAS, EMBEDDINGS, array, tensors, with_mixed_row

FILE = Path("model.bin")
ROWS, WIDTH = 6, 4
VALUES = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)
Stored = dict[str, tuple[int, npt.NDArray[np.generic]]]


def text(value: str) -> bytes:
    raw = value.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def write(stored: Stored, specification: str = "WhisperSpec") -> bytes:
    out = struct.pack("<I", 6) + text(specification) + struct.pack("<II", 3, len(stored))
    for name, (type_id, values) in stored.items():
        out += text(name) + struct.pack("<B", values.ndim) + struct.pack(f"<{values.ndim}I", *values.shape)
        out += struct.pack("<BI", type_id, values.nbytes) + values.tobytes()
    return out + struct.pack("<I", 1) + text("decoder/projection/weight") + text(EMBEDDINGS)


def stored(kind: str) -> Stored:
    other: Stored = {"other": (3, np.arange(3, dtype="<i4"))}
    if kind == "float32":
        return {EMBEDDINGS: (0, VALUES), **other}
    if kind == "float16":
        return {EMBEDDINGS: (4, VALUES.astype("<f2")), **other}
    if kind == "bfloat16":
        return {EMBEDDINGS: (5, (VALUES.view(np.uint32) >> 16).astype("<u2")), **other}
    if kind == "int16":
        return {
            EMBEDDINGS: (2, np.rint(VALUES * 1000).astype("<i2")),
            EMBEDDINGS + "_scale": (0, np.float32(1000)),
            **other,
        }
    scale = (127 / np.abs(VALUES).max(axis=1)).astype(np.float32)
    return {EMBEDDINGS: (1, np.rint(VALUES * scale[:, None]).astype("i1")), EMBEDDINGS + "_scale": (0, scale), **other}


def real(data: memoryview) -> npt.NDArray[np.float32]:
    found = tensors(data, file=FILE)
    values = array(data, found[EMBEDDINGS]).astype(np.float32)
    scale = found.get(EMBEDDINGS + "_scale")
    return values if scale is None else values / array(data, scale).reshape(-1, 1)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 1e-7), ("float16", 1e-3), ("bfloat16", 2e-2), ("int16", 2e-3), ("int8", 2e-2)]
)
def test_the_mixed_row_is_the_mean_and_nothing_else_changes(kind: str, tolerance: float) -> None:
    before = write(stored(kind))
    after = memoryview(with_mixed_row(memoryview(before), file=FILE, sources=(1, 2), target=4).getvalue())
    old, new = real(memoryview(before)), real(after)
    assert np.abs(new[4] - (old[1] + old[2]) / 2).max() < tolerance
    others = [0, 1, 2, 3, 5]
    assert np.array_equal(new[others], old[others])
    found = tensors(after, file=FILE)
    assert array(after, found["other"]).tolist() == [0, 1, 2]
    bias = array(after, found[BIAS])
    assert bias[4] == -1e4
    assert not bias[others].any()
    assert bytes(after[-60:]) == before[-60:]  # the aliases still close the file


def test_every_truncation_inside_a_tensor_is_noticed() -> None:
    whole = write(stored("int8"))
    end = max(t.offset + t.size for t in tensors(memoryview(whole), file=FILE).values())
    for keep in range(end):
        with pytest.raises(ModelError, match=r"model\.bin"):
            tensors(memoryview(whole)[:keep], file=FILE)


def test_other_models_are_refused() -> None:
    with pytest.raises(ModelError, match="not a Whisper"):
        tensors(memoryview(write(stored("float32"), specification="TransformerSpec")), file=FILE)
    with pytest.raises(ModelError, match="fewer embeddings"):
        with_mixed_row(memoryview(write(stored("float32"))), file=FILE, sources=(1, 2), target=ROWS)
    twice = with_mixed_row(memoryview(write(stored("float32"))), file=FILE, sources=(1, 2), target=4).getvalue()
    with pytest.raises(ModelError, match=BIAS):
        with_mixed_row(memoryview(twice), file=FILE, sources=(1, 2), target=4)

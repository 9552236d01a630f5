"""Reads the metadata of an ONNX file without loading the model or needing a library.

An ONNX file is a protobuf message `ModelProto`; its `metadata_props` (field 14) are pairs of key (1) and value (2)
(onnx/onnx.proto). Every other field is skipped, the weights among them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from k2d.errors import ModelError

METADATA: Final = 14  # of ModelProto
KEY, VALUE = 1, 2  # of StringStringEntryProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protobuf


def metadata_of(file: Path) -> dict[str, str]:
    """The metadata of an ONNX file; empty if it has none.

        metadata_of(Path("model.onnx")).get("model_type")

    Raises:
        ModelError: it cannot be read, or is not an ONNX file.
    """
    try:
        with file.open("rb") as handle:
            return dict(_entry(handle, end) for number, end in _fields(handle, _size(handle)) if number == METADATA)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is not an ONNX file: {error}", hint="fetch the model again") from error


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    texts = {KEY: "", VALUE: ""}
    for number, stop in _fields(file, end):
        texts[number] = file.read(stop - file.tell()).decode()
    return texts[KEY], texts[VALUE]


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """The number and the end of each length-delimited field up to `end`; the caller may read it, the rest is skipped.

    Raises:
        ValueError: it is not a protobuf message, or cut off.
    """
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _varint(file)
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(kind)
        if kind == BYTES:
            length = _varint(file)
        if length is None or not number or file.tell() + length > end:
            raise ValueError("it is damaged or cut off")
        stop = file.tell() + length
        if kind == BYTES:
            yield number, stop
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is cut off")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is damaged")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size

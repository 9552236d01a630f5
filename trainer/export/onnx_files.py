"""Reworks ONNX files after their export: weights in 8 bits, and weights in files of their own, each written once."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnx
from onnx.external_data_helper import set_external_data

SMALLEST: Final = 1024  # bytes: smaller tensors stay in the graph
PAGE: Final = 4096  # where a tensor may begin, so that it can be mapped into memory
DATA: Final = ".data"  # what torch's exporter adds to a graph's name for its weights


def quantise(file: Path) -> None:
    """Quantise matrix products with constant weights to 8 bits, with a scale for each column and dynamic activations.

    Convolutions and token embeddings stay: the former lose accuracy and gain no speed on a CPU, the latter are looked
    up in one graph and multiplied in another.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = file.with_name("whole-" + file.name)
    logging.getLogger().setLevel(
        logging.ERROR
    )  # hides a recommendation of pre-processing, which this graph does not need
    quantize_dynamic(
        file,
        whole,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    file.with_name(file.name + DATA).unlink()
    file.unlink()
    quantised = onnx.load(whole)
    whole.unlink()
    whole.with_name(whole.name + DATA).unlink()
    onnx.save(quantised, file, save_as_external_data=True, location=file.name + DATA)


def share_weights(graphs: Sequence[Path], data: Path) -> None:
    """Move the weights of `graphs` to the file `data` in the same folder; equal tensors are written once.

    An ONNX file may not exceed 2 GiB, which a large encoder does with its weights inside.
    """
    written: dict[bytes, tuple[int, int]] = {}
    with data.open("wb") as out:
        for graph in graphs:
            model = onnx.load(graph)  # with its weights
            for tensor in model.graph.initializer:
                if len(tensor.raw_data) >= SMALLEST:
                    _move(tensor, out, data.name, written)
            graph.with_name(graph.name + DATA).unlink(missing_ok=True)
            onnx.save(model, graph)


def _move(tensor: Any, out: Any, name: str, written: dict[bytes, tuple[int, int]]) -> None:
    raw = tensor.raw_data
    content = hashlib.sha256(raw).digest()
    if content not in written:
        out.write(b"\0" * (-out.tell() % PAGE))
        written[content] = (out.tell(), len(raw))
        out.write(raw)
    offset, length = written[content]
    set_external_data(tensor, location=name, offset=offset, length=length)
    tensor.ClearField("raw_data")

"""The formats a student can be exported to: writers, precisions, and the tools that check the result."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2d.errors import BadRequest, ModelError, install_hint
from trainer.export.gate import OpenTools
from trainer.need import need

EXTRA: Final = "export"  # the package's extra with what most formats need

WriteFormat = Callable[[Path, Path, str], None]  # source folder, folder to write, precision


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format. Modules are imported when it is used, so that no format needs the packages of another."""

    title: str
    precisions: tuple[str, ...]  # the first is the default
    packages: tuple[str, ...]
    parts: Callable[[], tuple[WriteFormat, OpenTools]]
    extra: str = EXTRA

    def check(self, precision: str | None) -> str:
        """The precision to use.

        Raises:
            BadRequest: the format has no such precision.
            ModelError: a package is missing.
        """
        if precision is not None and precision not in self.precisions:
            raise BadRequest(
                f"{self.title} has no precision {precision!r}", hint=f"it has: {', '.join(self.precisions)}"
            )
        need("torch", "transformers", "safetensors", "jinja2")
        try:
            need(*self.packages)
        except ModelError as error:
            raise ModelError(error.message, hint=install_hint(self.extra)) from error
        return precision or self.precisions[0]


def _transformers() -> tuple[WriteFormat, OpenTools]:
    from trainer.export.decoders import for_transformers
    from trainer.export.folder import write_transformers

    return write_transformers, for_transformers


def _ctranslate2() -> tuple[WriteFormat, OpenTools]:
    from trainer.export.ct2_format import write_ctranslate2
    from trainer.export.decoders import for_ctranslate2

    return _from_complete_folder(write_ctranslate2), for_ctranslate2


def _onnx() -> tuple[WriteFormat, OpenTools]:
    from trainer.export.decoders import for_onnx
    from trainer.export.folder import write_companions
    from trainer.export.onnx_graphs import write_onnx

    def write(source: Path, folder: Path, precision: str) -> None:
        write_companions(source, folder)
        write_onnx(source, folder, precision)

    return write, for_onnx


def _ggml() -> tuple[WriteFormat, OpenTools]:
    from trainer.export.decoders import for_ggml
    from trainer.export.ggml import write_ggml

    return write_ggml, for_ggml


def _from_complete_folder(write: WriteFormat) -> WriteFormat:
    """For writers that need a complete transformers folder: make a temporary one for them, in float32."""
    from trainer.export.folder import write_transformers

    def write_from_complete(source: Path, folder: Path, precision: str) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as complete:
            write_transformers(source, Path(complete), "float32")
            write(Path(complete), folder, precision)

    return write_from_complete


FORMATS: Final = {
    "transformers": ExportFormat("transformers", ("float16", "float32"), (), _transformers),
    "ctranslate2": ExportFormat(
        "CTranslate2",
        ("float16", "int8", "float32", "int8_float32", "int8_float16"),
        ("ctranslate2", "tokenizers"),
        _ctranslate2,
        extra="ct2",
    ),
    "onnx": ExportFormat("ONNX", ("float32", "float16", "int8"), ("onnx", "onnxscript", "onnxruntime"), _onnx),
    "ggml": ExportFormat("whisper.cpp", ("float16", "float32"), ("pywhispercpp",), _ggml),
}

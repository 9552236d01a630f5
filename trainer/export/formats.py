"""What a student can be exported to: writers, precisions, and the tools that check the result."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k2d.errors import BadRequest, ModelError, install_hint
from trainer.export.gate import Opens
from trainer.need import need

EXTRA = "export"  # of the package: what the forms other than transformers need

Write = Callable[[Path, Path, str], None]


@dataclass(frozen=True, slots=True)
class Format:
    """One form. Modules are imported when it is used: none of their packages is needed for another form."""

    title: str
    precisions: tuple[str, ...]  # the first is the default
    packages: tuple[str, ...]
    parts: Callable[[], tuple[Write, Opens]]
    extra: str = EXTRA

    def check(self, precision: str | None) -> str:
        """The precision to use.

        Raises:
            BadRequest: the form has no such precision.
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


def _transformers() -> tuple[Write, Opens]:
    from trainer.export.decoders import for_transformers
    from trainer.export.folder import write_transformers

    return write_transformers, for_transformers


def _ctranslate2() -> tuple[Write, Opens]:
    from trainer.export.ct2_format import write_ctranslate2
    from trainer.export.decoders import for_ctranslate2

    return _from_folder(write_ctranslate2), for_ctranslate2


def _onnx() -> tuple[Write, Opens]:
    from trainer.export.decoders import for_onnx
    from trainer.export.folder import write_beside
    from trainer.export.onnx_graphs import write_onnx

    def write(source: Path, folder: Path, precision: str) -> None:
        write_beside(source, folder)
        write_onnx(source, folder, precision)

    return write, for_onnx


def _ggml() -> tuple[Write, Opens]:
    from trainer.export.decoders import for_ggml
    from trainer.export.ggml import write_ggml

    return write_ggml, for_ggml


def _from_folder(write: Write) -> Write:
    """For writers that need all of a transformers folder: make one for them, at full precision."""
    from trainer.export.folder import write_transformers

    def written(source: Path, folder: Path, precision: str) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as whole:
            write_transformers(source, Path(whole), "float32")
            write(Path(whole), folder, precision)

    return written


FORMATS = {
    "transformers": Format("transformers", ("float16", "float32"), (), _transformers),
    "ctranslate2": Format(
        "CTranslate2",
        ("float16", "int8", "float32", "int8_float32", "int8_float16"),
        ("ctranslate2", "tokenizers"),
        _ctranslate2,
        extra="ct2",
    ),
    "onnx": Format("ONNX", ("float32", "float16", "int8"), ("onnx", "onnxscript", "onnxruntime"), _onnx),
    "ggml": Format("whisper.cpp", ("float16", "float32"), ("pywhispercpp",), _ggml),
}

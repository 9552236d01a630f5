"""The engines that can run a model, each described once.

To add an engine: add its name to `k2d.schema.EngineName`, an entry to ENGINES, and a module with the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from k2d.errors import ModelError
from k2d.schema import EngineName

ModelFormat = Literal["ctranslate2", "transformers"]  # model.bin, or config.json and safetensors


@dataclass(frozen=True, slots=True)
class EngineKind:
    """Where an engine's class is, which files it loads, and which packages its module needs."""

    module: str
    class_name: str
    packages: tuple[str, ...]
    extra: str  # the extra of k2d that installs them
    format: ModelFormat


ENGINES: Final[Mapping[EngineName, EngineKind]] = {
    EngineName.CTRANSLATE2: EngineKind(
        module="k2d.whisper.ct2_engine",
        class_name="CTranslate2Engine",
        packages=("ctranslate2", "tokenizers"),
        extra="ct2",
        format="ctranslate2",
    ),
    EngineName.TRANSFORMERS: EngineKind(
        module="k2d.whisper.torch_engine",
        class_name="TransformersEngine",
        packages=("tokenizers", "torch", "transformers"),
        extra="torch",
        format="transformers",
    ),
}


def engine_kind(engine: str) -> EngineKind:
    """The description of an engine, by its name.

    Raises:
        ModelError: no engine has this name.
    """
    if engine not in ENGINES:
        raise ModelError(f"unknown engine {engine!r}", hint=f"engines are: {', '.join(ENGINES)}")
    return ENGINES[EngineName(engine)]

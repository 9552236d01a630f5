"""Converts a student for CTranslate2, and so for faster-whisper: weights, settings, tokenizer."""

from pathlib import Path
from typing import Final

from k2d.errors import ModelError

COPIED: Final = ("tokenizer.json", "preprocessor_config.json")  # faster-whisper reads both


def write_ctranslate2(source: Path, folder: Path, precision: str) -> None:
    """Convert a complete transformers folder (`write_transformers`) for CTranslate2.

    Args:
        precision: of the weights in the file; another one can still be chosen when it is loaded.

    Raises:
        ModelError: the converter does not accept the model.
        OSError: the folder cannot be written.
    """
    from ctranslate2.converters import TransformersConverter

    try:
        converter = TransformersConverter(str(source), copy_files=list(COPIED))
        converter.convert(str(folder), quantization=precision, force=True)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"{source} cannot be converted: {error}", hint="name a Whisper model") from error

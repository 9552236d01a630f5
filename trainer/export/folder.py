"""Writes a student as a self-contained transformers folder: weights, settings, tokenizer, feature settings."""

import errno
import json
import re
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError

from k2d.whisper.conversion import generation_settings, preprocessor_settings
from k2d.whisper.prompts import MIXED_CODES
from k2d.whisper.vocabulary import Vocabulary
from trainer.export.tokenizer import write_tokenizer
from trainer.model.alignment_heads import alignment_heads
from trainer.model.student import load_teacher

PRECISIONS: Final = {"float16": torch.float16, "float32": torch.float32}


def write_transformers(source: Path, folder: Path, precision: str) -> None:
    """Write the model in `source`, a transformers folder, to `folder` so that plain transformers works with it offline.

        write_transformers(Path("runs/a/best"), Path("out"), "float16")

    Raises:
        ModelError: the weights cannot be loaded, or the tokenizer is not Whisper's.
        OSError: the folder cannot be written.
    """
    model = load_teacher(source)
    _write_companions(model, source, folder)
    settings = _read(folder / "generation_config.json")
    try:
        model.to(PRECISIONS[precision]).save_pretrained(folder, safe_serialization=True)
    except SafetensorError as error:  # the system's error number is in its message only
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
    _write(folder / "generation_config.json", settings)  # again: the model's own lack what `generation_for_tools` adds


def write_companions(source: Path, folder: Path) -> None:
    """Write all files but the weights, for a tool that has its weights in another form.

    Raises:
        ModelError, OSError: as `write_transformers`.
    """
    model = load_teacher(source)
    _write_companions(model, source, folder)
    model.config.save_pretrained(folder)


def _write_companions(model: Any, source: Path, folder: Path) -> None:
    vocabulary = Vocabulary(source / "tokenizer.json")
    own = _read(source / "generation_config.json")
    settings = generation_for_tools(own, model.config, vocabulary=vocabulary, mixed=has_one_prompt(model, vocabulary))
    _write(folder / "generation_config.json", settings)
    _write(folder / "preprocessor_config.json", preprocessor_settings(model.config.num_mel_bins))
    write_tokenizer(source / "tokenizer.json", folder)


def generation_for_tools(own: dict[str, Any], config: Any, *, vocabulary: Vocabulary, mixed: bool) -> dict[str, Any]:
    """The generation settings with which other tools decode as k2d does.

    Args:
        own: the model's own settings, which are kept where they have a value.
        config: the model's configuration.
        mixed: it was trained with the mixed prompt alone. `zh` is then the default, since such a model was never
            trained to detect a language.
    """
    ours = generation_settings({}, vocabulary=vocabulary)
    known = {key: value for key, value in own.items() if value is not None}
    heads = alignment_heads(
        known.get("alignment_heads"), layers=range(config.decoder_layers), heads=config.decoder_attention_heads
    )
    settings = {**ours, **known, "alignment_heads": heads}
    for name in ("forced_decoder_ids", "_from_model_config", "transformers_version"):
        settings.pop(name, None)  # a forced language would overrule the one that is asked for
    return settings | ({"language": "<|zh|>", "task": "transcribe"} if mixed else {})


def has_one_prompt(model: Any, vocabulary: Vocabulary) -> bool:
    """Whether zh and en have the same embedding, as in a student that `trainer.model.student.save_student` wrote."""
    rows = model.model.decoder.embed_tokens.weight[[vocabulary.languages[code] for code in MIXED_CODES]]
    return bool((rows == rows[0]).all())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", "utf-8")
